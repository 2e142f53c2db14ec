"""What `ibma plan` says: sums that can be checked by hand, and nothing that was not measured."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ibma import fetch, params, plan, pretrained
from ibma.experiments import runs, tune

ROOT = Path(__file__).parent.parent


def load(name):
    return params.load(ROOT / "profiles" / f"{name}.yaml")


def write(root, path, value):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(json.dumps(value))


@pytest.fixture
def measured(tmp_path):
    """The twin of CREMA-D with 60 training rows, and two methods timed on it."""
    arrays = {
        "audio": {"shape": [4, 5], "dtype": "float32"},
        "visual": {"shape": [3, 3, 8, 8], "dtype": "uint8"},
    }
    meta = {
        "dataset": "crema_d",
        "source": "twin",
        "counts": {"train": 60, "test": 15, "valid": 5},
        "modalities": arrays,
    }
    write(tmp_path, "data/features/crema_d/meta.json", meta)
    timed = {"concat": {"median": 6.0}, "ibma": {"median": 12.0}}
    timing = {"task": "crema_d", "source": "twin", "device": "Some GPU", "methods": timed}
    write(tmp_path, "data/timing.json", timing)
    return tmp_path


def test_hours_are_rows_times_epochs_times_what_was_measured(measured):
    profile = load("twin")
    assert plan.rates(profile, measured).source == "measured on Some GPU, 60 rows of crema_d"
    hours = plan.hours(profile, measured)
    # 3 seeds of 8 epochs of 6 s; another method takes the median of what was measured
    assert hours("train@crema_d-concat") == pytest.approx(3 * 8 * 6 / 3600)
    assert hours("train@crema_d-misa") == pytest.approx(3 * 8 * 9 / 3600)
    assert hours("sensitivity@ibma-0.1") == pytest.approx(3 * 8 * 12 / 3600)
    # 2 points on 5 folds, 2 epochs each, of four fifths of the rows
    assert hours("tune@crema_d-ibma") == pytest.approx(2 * 5 * 2 * 0.8 * 12 / 3600)


def test_disk_is_rows_times_bytes_of_a_row(measured):
    profile = load("twin")
    assert plan.feature_gb(profile, measured, "crema_d") == 80 * (4 * 5 * 4 + 3 * 3 * 8 * 8) / 1e9
    assert plan.feature_gb(profile, measured, "meld_emotion") is None, "the twin is not there yet"


def test_shapes_from_the_parameters_are_those_that_are_stored(tmp_path):
    """For every kind of modality: read off params.yaml, and off features that were extracted."""
    profile = replace(load("twin"), workers=1)
    for task in ("meld_emotion", "tissue"):
        told = plan.feature_shapes(profile, tmp_path, task)
        here = tmp_path / task
        here.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(here)
            runs.download(profile, profile.task(task)["dataset"])
            runs.extract(profile, task)
        stored = plan.feature_shapes(profile, here, task)
        assert {name: shape for name, (shape, _) in told.items()} == {
            name: shape for name, (shape, _) in stored.items()
        }


def test_trials_are_those_of_the_tune_stage():
    profile = load("paper")
    assert plan.trials(profile, "crema_d", "concat") == 5 * 9
    assert plan.trials(profile, "crema_d", "ibma") == 5 * 81
    assert plan.trials(profile, "tissue", "ibma") == 0, "one class: nothing to select by"
    assert plan.trials(load("open"), "ravdess", "ibma") == 5 * 5 * len(
        tune.grid(load("open").tuning, reads_eta=True)
    )


def test_the_paper_profile_without_data_rests_on_the_papers_own_times(tmp_path):
    profile = load("paper")
    assert "not measured here: the paper's Tables 6 and 9" in plan.rates(profile, tmp_path).source
    # 10 seeds, 500 epochs, 2.0 minutes
    assert plan.hours(profile, tmp_path)("train@crema_d-ibma") == pytest.approx(10 * 500 * 2 / 60)
    told = plan.text(profile, tmp_path)
    assert "data set mimic_cxr: not placed" in told and "split_digits: not placed" not in told
    line = next(line for line in told.splitlines() if line.startswith("crema_d  "))
    assert line.split()[:6] == ["crema_d", "real", "6,698", "22", "220", "3,510"]


def test_times_of_twins_say_nothing_about_real_data(measured):
    assert "not measured here" in plan.rates(load("paper"), measured).source
    assert plan.rates(load("open"), measured).seconds == {}
    told = plan.text(load("twin"), measured)
    assert "measured on Some GPU" in told
    unknown = plan.text(load("open"), measured)
    assert "not measured: `dvc repro timing`" in unknown


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    profile = load("open")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9e9, 8e9, 1e9))
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    told = plan.missing(profile, tmp_path, 2.5)
    assert "disk: 2 GB to write, 1 GB free" in told
    assert any("pip install ibma[text]" in line for line in told)
    assert not any(line.startswith("data set") for line in told), "all open"
    assert not any(line.startswith("disk") for line in plan.missing(profile, tmp_path, 0.5))


def test_only_the_bytes_of_placed_files_are_counted_where_there_are_any(tmp_path):
    assert plan.raw_gb(tmp_path, "mimic_cxr", "real") == 570.0
    assert plan.raw_gb(tmp_path, "mosi", "real") is None, "nobody says"
    files = [["a.jpg", 1_500_000_000, None], ["b.csv", 500_000_000, "x"]]
    write(tmp_path, "data/manifests/mimic_cxr.json", {"source": "real", "files": files})
    assert plan.raw_gb(tmp_path, "mimic_cxr", "real") == 2.0


def test_a_network_is_as_large_as_what_training_stores():
    """ResNet-18 twice: 11.2 million weights each and a projection to the embedding."""
    size = plan.network_gb(load("paper"), Path("nowhere"), "crema_d")
    assert size == pytest.approx(2 * (11.17e6 + 512 * 513) * 4 / 1e9, rel=0.01)
    assert fetch.missing("split_digits", plan.datasets.load("split_digits"), Path("x")) is None
