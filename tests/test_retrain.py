"""`ibma verify --retrain`: runs trained again from nothing, and what may differ."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ibma import cli, params
from ibma.errors import IbmaError
from ibma.evidence import retrain
from ibma.experiments import runs
from ibma.files import write_json
from ibma.training import record

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two methods, two seeds, one epoch each on the digits that come with a package."""
    here = tmp_path_factory.mktemp("trained")
    raw = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    raw["tasks"] = {"split_digits": raw["tasks"]["split_digits"]}
    raw |= {"seeds": 2, "workers": 1, "methods": {"concat": {}}, "variants": {"ibma": {}}}
    raw["training"]["epochs"] = 1
    for stage in ("timing", "sensitivity", "probe"):
        raw[stage]["task"] = "split_digits"
    raw["probe"]["methods"] = raw["gradcam"]["methods"] = ["ibma"]
    raw["gradcam"]["tasks"] = {}
    (here / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        profile = params.load()
        runs.download(profile, "split_digits")
        runs.extract(profile, "split_digits")
        runs.centroids(profile, "split_digits")
        for method, eta in (("concat", None), ("ibma", 0.5)):
            choice = {"run_fold": None, "lr": 0.001, "weight_decay": 1e-6, "eta": eta}
            write_json(runs.TUNING / f"split_digits/{method}.json", {"choices": [choice]})
            runs.train_cell(profile, "split_digits", method)
    return here


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")


def again(wanted: str) -> list[retrain.Again]:
    return list(retrain.run("twin", Path(), wanted))


def test_a_run_trained_again_is_the_committed_one(here):
    before = sorted(Path("runs").rglob("*"))
    (one,) = again("1")
    assert one.same_key and one.run.task == "split_digits"
    names = {gap.name for gap in one.gaps}
    assert {"accuracy", "ib/fused", "ib/left"} <= names
    assert all(gap.agrees and gap.allowed == retrain.SAME for gap in one.gaps)
    assert sorted(Path("runs").rglob("*")) == before, "nothing is written here"


def test_a_record_that_training_does_not_give_is_named(here):
    path = Path("runs/split_digits/concat/seed_1.json")
    held = record.read(path)
    metrics = {"accuracy": held.metrics["accuracy"] - 0.01}
    replace(held, metrics=metrics).write(path.parent)
    (one,) = again("split_digits/concat/1")
    assert [gap.name for gap in one.gaps if not gap.agrees] == ["accuracy"]


@pytest.mark.parametrize("moved", [{"volatile": {"device": "another"}}, {"key": "other"}])
def test_by_other_code_or_elsewhere_a_run_may_differ_as_seeds_do(here, moved):
    folder = Path("runs/split_digits/concat")
    held = [record.read(path) for path in sorted(folder.iterdir())]
    for one, accuracy in zip(held, (0.90, 0.92), strict=True):
        replace(one, metrics={"accuracy": accuracy}, **moved).write(folder)
    (one,) = again("split_digits/concat")
    assert one.same_key == ("key" not in moved)
    accuracy = next(gap for gap in one.gaps if gap.name == "accuracy")
    assert accuracy.allowed == pytest.approx(3 * math.sqrt(2) * 0.02 / math.sqrt(2))


def test_undefined_agrees_with_undefined_only():
    assert retrain.Gap("auc", None, None, 0.0).agrees
    assert not retrain.Gap("auc", None, 0.5, math.inf).agrees


@pytest.mark.parametrize("wanted", ["0", "some", "split_digits/omib", "split_digits/ibma/7"])
def test_a_run_that_is_not_there_is_refused(here, wanted):
    with pytest.raises(IbmaError, match=f"--retrain {wanted}: "):
        again(wanted)


def test_missing_features_say_which_stages_to_run(here):
    shutil.rmtree("data/centroids")
    with pytest.raises(IbmaError, match=r"`dvc repro centroids@split_digits` fetches"):
        again("1")


def test_the_command_tells_every_gap_and_fails_in_one_line(here, monkeypatch, capsys):
    held = record.read(Path("runs/split_digits/concat/seed_0.json"))
    gaps = (retrain.Gap("accuracy", 0.9, 0.9, 1e-6), retrain.Gap("ib/fused", -0.1, -0.2, 1e-6))
    found = [retrain.Again(held, "cpu", True, gaps[:1]), retrain.Again(held, "cpu", False, gaps)]
    monkeypatch.setattr(retrain, "run", lambda *_: iter(found))
    with pytest.raises(IbmaError, match=r"^split_digits/concat/0: trained again, and not"):
        cli._train_again("twin", "1")
    said = capsys.readouterr().out
    assert said.count("DIFFERS") == 1 and "ib/fused: -0.1 -0.2 (+-1e-06)  DIFFERS" in said
    assert "same key" in said and "another key" in said
