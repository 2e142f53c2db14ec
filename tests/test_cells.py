"""Stages on data that is not there: said, not failed, and the rest goes on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ibma import params
from ibma.errors import IbmaError
from ibma.experiments import runs
from ibma.report import page, paper_tables
from ibma.results import records

ROOT = Path(__file__).parent.parent


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """CheXpert, real but never placed, and the digits that come with a package."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "profiles/twin.yaml", tmp_path / "params.yaml")
    loaded = params.load()
    digits = loaded.tasks["split_digits"]
    return replace(
        loaded,
        workers=1,
        datasets={"chexpert": {"source": "real"}, "split_digits": {"source": "real"}},
        tasks={"chexpert": loaded.tasks["chexpert"], "split_digits": digits},
        methods={"concat": {}},
        variants={"ibma": {}},
    )


def test_a_set_that_is_not_there_is_not_run_and_says_why(profile, tmp_path, capsys):
    for task in profile.tasks:
        runs.download(profile, task)
        runs.extract(profile, task)
    assert "chexpert: data/raw/chexpert is empty: register at" in capsys.readouterr().err
    runs.centroids(profile, "chexpert")
    runs.tune_task(profile, "chexpert")
    runs.train_cell(profile, "chexpert", "ibma")
    assert capsys.readouterr().err.count("chexpert: not run: data/raw/chexpert is empty") == 4
    for folder in ("data/centroids/chexpert", "runs/chexpert/ibma", "models/chexpert/ibma"):
        assert not list(Path(folder).iterdir())
    assert Path("data/tune/chexpert/ibma.json").exists(), "train depends on it"
    with pytest.raises(IbmaError, match="data/raw/chexpert is empty"):
        runs.cell(profile, "chexpert", "ibma")
    sizes, *others = paper_tables.build(profile, tmp_path)
    line = next(x for x in sizes.lines if x.row == "CheXpert" and x.measure == "train")
    assert (line.published, line.official, line.ours) == ("223,414", "223,414", "")
    assert line.remark.startswith("not run: data/raw/chexpert is empty: register at")
    assert page._tuning(profile, tmp_path) == []
    digits = next(x for x in sizes.lines if x.row.startswith("Split digits"))
    assert digits.ours == "10"
    assert not records.of_task(records.cells(profile, tmp_path), "chexpert")


def test_data_placed_later_is_found_by_a_forced_download(profile, monkeypatch):
    runs.download(profile, "chexpert")
    raw = Path("data/raw/chexpert")
    (raw / "CheXpert-v1.0-small").mkdir()
    (raw / "CheXpert-v1.0-small/train.csv").write_text("Path\n")
    with pytest.raises(IbmaError, match="train.csv: column 'Frontal/Lateral' is missing"):
        runs.download(profile, "chexpert")


def test_files_gone_since_the_manifest_was_written_are_asked_for(profile):
    runs.download(replace(profile, datasets={"crema_d": {"source": "twin"}}), "crema_d")
    shutil.rmtree("data/raw/crema_d")
    entry = {"dataset": "crema_d", "features": {}}
    with pytest.raises(IbmaError, match="gone, but .* run `dvc repro -f download@crema_d`"):
        runs.extract(replace(profile, tasks={"crema_d": entry}), "crema_d")


def test_an_unknown_data_set_is_named(profile):
    with pytest.raises(IbmaError, match="no data set 'meld': expected one of chexpert, split"):
        runs.download(profile, "meld")


def test_records_do_not_depend_on_how_many_processes_train(profile):
    few = replace(
        profile,
        tasks={"split_digits": profile.tasks["split_digits"]},
        training=replace(profile.training, epochs=2),
    )
    runs.download(few, "split_digits")
    runs.extract(few, "split_digits")
    runs.centroids(few, "split_digits")
    runs.tune_method(replace(few, tuning=replace(few.tuning, epochs=1)), "split_digits", "concat")
    found = {}
    for workers in (1, 2):
        shutil.rmtree("runs", ignore_errors=True)
        runs.train_cell(replace(few, workers=workers), "split_digits", "concat")
        records = [json.loads(path.read_text()) for path in sorted(Path("runs").rglob("*.json"))]
        assert [one["seed"] for one in records] == [0, 1, 2]
        found[workers] = [{**one, "volatile": None} for one in records]
    assert found[1] == found[2]


def test_on_cuda_one_process_trains_unless_params_say_more(profile, monkeypatch):
    monkeypatch.setattr(runs, "_device", lambda params: torch.device("cuda"))
    assert runs._processes(replace(profile, workers=None)) == 1
    assert runs._processes(replace(profile, workers=3)) == 3
    monkeypatch.setattr(runs, "_device", lambda params: torch.device("cpu"))
    assert runs._processes(replace(profile, workers=None)) == params.cores()
