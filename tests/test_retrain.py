"""`ibma verify --retrain`: runs trained again from nothing, and what may differ."""

import math
import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import digits

from ibma import params, paths
from ibma.commands import evidence
from ibma.errors import IbmaError
from ibma.evidence import archive, retrain
from ibma.experiments import runs
from ibma.files import read_json, write_json
from ibma.machine import PORTABLE
from ibma.training import record

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
TASK = "split_digits"


def small() -> dict:
    """Profile `twin` cut down to the digits, two methods, two seeds of one epoch."""
    raw = digits() | {"ablation": {}, "bounds": {}}
    raw["engine"]["workers"] = raw["training"]["epochs"] = 1
    raw["sensitivity"]["etas"] = [0.3]
    raw["regimes"] |= {"tasks": [], "control": "concat"}
    raw["noise"]["tasks"] = {}
    return raw


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two methods, two seeds, one epoch each on the digits that come with a package."""
    here = tmp_path_factory.mktemp("trained")
    (here / "params.yaml").write_text(yaml.safe_dump(small()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.syspath_prepend(ROOT / "stages")
        profile = params.load()
        for stage in ("download", "extract", "centroids"):
            runpy.run_path(str(ROOT / f"stages/{stage}.py"))[stage](profile, TASK)
        for method, eta in (("concat", None), ("ibma", 0.5)):
            choice = {"run_fold": None, "lr": 0.001, "weight_decay": 1e-6, "eta": eta}
            choice |= {"weight_factor": 1.0, "score": 0.5}
            content = {"metric": "accuracy", "choices": [choice], "scores": []}
            write_json(paths.choice(TASK, method), content)
        for stage in ("train", "train_ibma"):
            runs.train_stage(profile, stage, TASK)
        runs.train_study(profile, "sensitivity", TASK)
    return here


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")


def again(wanted: str) -> list[retrain.Again]:
    return list(retrain.run("twin", Path(), wanted))


def files() -> set[Path]:
    return {path for path in Path().rglob("*") if path.is_file()}


def test_a_run_trained_again_is_the_committed_one_and_leaves_no_trace(here):
    before = files()
    first, fixed = again("1")[0], again(f"{TASK}/ibma_eta_0.3/1")[0]
    assert fixed.run.params["eta"] == 0.3 and fixed.run.stage == "sensitivity"
    for one in (first, fixed):
        assert one.same_key and one.run.task == TASK
        assert {"accuracy", "ib/fused", "ib/u/left"} <= {gap.name for gap in one.gaps}
        assert all(gap.committed == gap.retrained and gap.agrees for gap in one.gaps)
        assert all(gap.allowed == retrain.SAME for gap in one.gaps)
    assert files() == before


def test_the_command_trains_with_the_instructions_of_the_profile(here):
    """Though it has loaded torch before it knows the profile: an interval would hide others."""
    plain = {k: v for k, v in os.environ.items() if k not in PORTABLE}
    script = "import torch; torch.backends.cpu.get_cpu_capability()  # chosen now\n"
    script += "from pathlib import Path\nfrom ibma.commands import evidence\n"
    script += "from ibma.evidence import retrain\n"
    script += f"trained = retrain.run('twin', Path(), '{TASK}/ibma/1')\n"
    script += "print(*evidence._compare('twin', trained), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=plain | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert lines and all(line.endswith("(+-1e-06)") for line in lines), done.stdout


def test_another_number_is_found(here, monkeypatch):
    monkeypatch.setattr(archive.records, "is_current", lambda *_: True)
    path = paths.record("train", TASK, "concat", 1)
    committed = record.read(path)
    metrics = {"accuracy": committed.metrics["accuracy"] - 0.01}
    replace(committed, metrics=metrics, digest="").write(path)
    (one,) = again(f"{TASK}/concat/1")
    assert [gap.name for gap in one.gaps if not gap.agrees] == ["accuracy"]


@pytest.mark.parametrize("moved", [{"provenance": {"device": "another"}}, {"key": "other"}])
def test_by_other_code_or_elsewhere_a_run_may_differ_as_seeds_do(here, monkeypatch, moved):
    monkeypatch.setattr(archive.records, "is_current", lambda *_: True)
    for seed, accuracy in enumerate((0.90, 0.92)):
        path = paths.record("train", TASK, "concat", seed)
        changed = {"metrics": {"accuracy": accuracy}, "digest": "", **moved}
        replace(record.read(path), **changed).write(path)
    (one,) = again(f"{TASK}/concat")
    assert one.same_key == ("key" not in moved)
    accuracy = next(gap for gap in one.gaps if gap.name == "accuracy")
    assert accuracy.allowed == pytest.approx(3 * math.sqrt(2) * 0.02 / math.sqrt(2))


def test_undefined_agrees_with_undefined_only():
    assert retrain.Gap("auc", None, None, 0.0).agrees
    assert not retrain.Gap("auc", None, 0.5, math.inf).agrees


def test_a_run_that_is_not_there_is_refused(here):
    for wanted in ("0", "some", f"{TASK}/omib", f"{TASK}/ibma/7", "../x/y/0"):
        with pytest.raises(IbmaError, match=f"--retrain {wanted}: "):
            again(wanted)


def test_a_run_that_an_interruption_left_does_not_go_on(here):
    key = record.read(paths.record("train", TASK, "concat", 0)).key
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    (paths.SCRATCH / f"{key}.pt").write_bytes(b"not a checkpoint")
    (one,) = again(f"{TASK}/concat/0")
    assert all(gap.agrees for gap in one.gaps)


def test_evidence_needs_the_features_that_its_runs_read(here, monkeypatch):
    archive.pack(params.load(), Path(), paths.evidence("twin"))
    meta = Path("data/features") / TASK / "meta.json"
    write_json(meta, read_json(meta, {}) | {"source": "twin"})
    with pytest.raises(IbmaError, match="twin data, the run's is real: `ibma profile twin`"):
        again("1")
    shutil.rmtree("data/centroids")
    with pytest.raises(IbmaError, match=r"`dvc repro centroids@split_digits` fetches"):
        again("1")
    monkeypatch.setattr(evidence, "_verify", lambda _: pytest.fail("it took minutes first"))
    with pytest.raises(IbmaError, match=r"centroids/split_digits: missing: "):
        list(evidence.check("twin", f"{TASK}/ibma"))


def test_evidence_is_what_the_records_are_and_stale_ones_stay_out(here, tmp_path):
    profile, out = params.load(), paths.evidence("twin")
    assert archive.pack(profile, Path(), out) == []
    archive.unpack(out, tmp_path / "laid")
    for cell in profile.cells():
        for seed in range(profile.seeds):
            place = paths.record(*cell, seed)
            assert record.read(tmp_path / "laid" / place) == record.read(place)
    assert again("1")[0].same_key, "evidence serves as well as records"

    raw = small() | {"eta": 0.7}
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    why = archive.pack(params.load(), Path(), out)
    assert len(why) == 1 and why[0].startswith("train_ibma/split_digits/ibma: stale: ")
    assert not (out / "runs/train_ibma").exists() and (out / "runs/train").exists()
    paths.record("train", TASK, "concat", 0).unlink()
    assert "train/split_digits/concat: 1 of 2 runs" in archive.pack(params.load(), Path(), out)[0]
    meta = Path("data/features") / TASK / "meta.json"
    write_json(meta, {"task": TASK, "dataset": TASK, "missing": "data/raw is empty"})
    assert archive.pack(params.load(), Path(), out) == [], "a task that was not run lacks nothing"


def test_the_command_tells_every_gap_and_fails_in_one_line(here, monkeypatch, capsys):
    committed = record.read(paths.record("train", TASK, "concat", 0))
    gaps = (retrain.Gap("accuracy", 0.9, 0.9, 1e-6), retrain.Gap("ib/fused", -0.1, -0.2, 1e-6))
    told = [
        retrain.Again(committed, "cpu", True, gaps[:1]),
        retrain.Again(committed, "cpu", False, gaps),
    ]
    with pytest.raises(IbmaError, match=r"^split_digits/concat/0: trained again, and not"):
        for line in evidence._compare("twin", iter(told)):
            print(line)
    said = capsys.readouterr().out
    assert said.count("DIFFERS") == 1 and "ib/fused: -0.1 -0.2 (+-1e-06)  DIFFERS" in said
    assert "same key" in said and "another key" in said
