"""dvc.yaml declares what a stage depends on: all of it, and nothing else."""

import re
from functools import reduce
from pathlib import Path

import pytest
import yaml

from ibma import params
from ibma.training import record

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TRAINING = (
    "train",
    "train_ibma",
    "ablation",
    "bounds",
)  # and sensitivity, without a task of its own


def inner(name: str) -> dict:
    """Return what a stage does, for one key of its foreach if it has one."""
    return STAGES[name].get("do", STAGES[name])


def test_a_stage_is_a_script_and_where_it_has_parameters_a_block_of_the_same_word():
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"checkout"}
    assert scripts == set(STAGES)
    blocks = set(params.Params.model_fields)
    for name in STAGES:
        assert f"stages/{name}.py" in inner(name)["deps"]
        assert inner(name)["cmd"].startswith(f"python stages/{name}.py")
        own = {each.partition(".")[0] for each in inner(name).get("params", ())}
        assert own <= blocks
        assert (name in own) == (name in blocks), name


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_profile_has_every_key_that_dvc_yaml_reads(path):
    """One that is missing stops `dvc repro` before its first stage."""
    asked = set(re.findall(r"\$\{([\w.]+)\}", (ROOT / "dvc.yaml").read_text()))
    profile = yaml.safe_load(path.read_text())
    assert {"tables", "tasks", "sensitivity.task"} <= asked
    for name in asked - {"key", "item", "item.dataset"}:
        reduce(lambda block, key: block[key], name.split("."), profile)
    for stage in STAGES:
        for name in inner(stage).get("params", ()):
            if "${" not in name:
                reduce(lambda block, key: block[key], name.split("."), profile)


def test_what_trains_sees_the_code_that_keys_of_records_digest():
    """Stage tune lists it; its choices hold digests of it, and the others read these."""
    code = {f"src/ibma/{name}" for name in (*record.SHARED_CODE, "methods")}
    for name in ("tune", "timing"):
        assert code <= set(inner(name)["deps"]), name
    for name in (*TRAINING, "sensitivity", "regimes", "noise"):
        deps = inner(name)["deps"]
        assert any(dep.startswith("data/tune/") for dep in deps) and not code & set(deps), name


def test_what_trains_depends_on_its_data_its_choice_and_its_parameters():
    for name in TRAINING:
        stage = inner(name)
        data = {f"data/{kind}/${{key}}" for kind in ("features", "centroids", "tune")}
        assert {dep for dep in stage["deps"] if dep.startswith("data/")} == data
        own = {"profile", "seeds", "keep_weights", name}
        assert own == set(stage["params"]) - {"eta"}, "tune's choice holds a digest of the others"
        assert stage["outs"] == [f"runs/{name}/${{key}}", f"models/{name}/${{key}}"]


def test_what_decides_a_choice_is_what_tune_depends_on():
    training = {"training", "tasks.${key}.batch_size", "tasks.${key}.encoders"}
    environment = {"profile", "device", "threads", "instructions"}
    methods = {"train", "train_ibma", "ablation", "bounds"}
    assert set(inner("tune")["params"]) == training | environment | methods | {"tune"}


def test_only_stages_of_ibma_and_the_report_read_eta():
    readers = {name for name in STAGES if "eta" in inner(name).get("params", ())}
    assert readers == {"train_ibma", "ablation", "bounds", "report"}


def test_no_output_persists_and_all_but_the_committed_report_is_cached():
    for name in STAGES:
        for out in inner(name)["outs"]:
            if isinstance(out, dict):
                assert name == "report" and list(out.values()) == [{"cache": False}]
