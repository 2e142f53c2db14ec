"""`ibma plan`: sums that can be checked by hand, and nothing that was not measured."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
import yaml

from ibma import fetch, params, plan, pretrained
from ibma.files import write_json
from ibma.plan import Asked

ROOT = Path(__file__).parent.parent


def load(name, **changed):
    return params.load(ROOT / "profiles" / f"{name}.yaml").model_copy(update=changed)


def write(root, path, value):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, str):
        (root / path).write_text(value)
    else:
        write_json(root / path, value)


def rows_of(profile, root):
    """The rows of the table by their task; that of the sum is the last."""
    return {row["task"]: row for row in plan.table(profile, root)}


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
    rates = plan.rates(profile, measured)
    assert rates.measured == "measured on Some GPU, 60 rows of crema_d"
    assert rates.hours(60, {"concat": 24, "ibma": 1}) == pytest.approx((24 * 6 + 12) / 3600)
    assert rates.hours(30, {"misa": 1}) == pytest.approx(4.5 / 3600), "half the rows, the median"
    assert rates.hours(None, {"ibma": 1}) is None
    # 26 methods, 3 seeds of 5 epochs; all but two take the median of 6 and 12 seconds
    table = rows_of(profile, measured)
    row = table["crema_d"]
    assert row["methods"] == 26
    assert row["train h"] == pytest.approx(3 * 5 * (6 + 12 + 24 * 9) / 3600)
    # on 2 folds, an epoch each, of half of the rows: 2 points, and of all that have a weight
    # of their own (not Concat, BiGated, CE3 and two single modalities) one value more
    settings = 2 * 6 + 3 * 12 + (4 * 2 + 20 * 3) * 9
    assert row["tune h"] == pytest.approx(settings * 2 * (1 / 2) / 3600)
    fixed = table["sensitivity@crema_d"]
    assert fixed["train h"] == pytest.approx(9 * 3 * 5 * 12 / 3600) and fixed["networks"] == 27
    assert fixed["tune h"] == fixed["trials"] == fixed["weights GB"] == 0
    total = [*table.values()][-1]
    assert total["train h"] == pytest.approx(row["train h"] + fixed["train h"])
    of_tasks = [len(profile.methods_of(task)) for task in profile.tasks]
    assert sorted(set(of_tasks)) == [26, 27] and total["networks"] == sum(of_tasks) * 3 + 27 + 21
    studies = [table[f"{study}@split_digits"] for study in ("regimes", "noise")]
    assert [one["networks"] for one in studies] == [3 * 3, 4 * 3]


def test_rates_of_the_latest_gpu_record_stand_in_where_the_stage_has_not_run(tmp_path):
    profile = load("paper")
    assert "not measured: `dvc repro timing`" in plan.text(profile, tmp_path)
    epoch = {"measure": "epoch", "task": "crema_d", "rows": 6698, "device": "Card"}
    part = epoch | {"measure": "short epoch", "rows": 1280}
    lines = [
        epoch | {"method": "ibma", "seconds": 2.0},
        {"measure": "bandwidth", "value": 3},
        part | {"method": "ibma", "seconds": 0.5},
        part | {"method": "omib", "seconds": 0.6},
    ]
    write(tmp_path, "benchmarks/gpu/2027-01-01.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    slower = [epoch | {"method": "ibma", "seconds": 99.0}]
    write(tmp_path, "benchmarks/gpu/2026-01-01.jsonl", json.dumps(slower[0]))
    rates = plan.rates(profile, tmp_path)
    assert rates.measured == "measured on Card, 6,698 rows"
    assert rates.hours(6698, {"ibma": 1800}) == pytest.approx(1.0)
    assert rates.hours(1280, {"omib": 6000}) == pytest.approx(1.0)
    assert plan.rates(load("twin"), tmp_path).seconds == {}, "generated data has its own rows"


def test_a_task_has_its_own_measured_rate_or_that_of_a_task_with_its_encoders(tmp_path):
    epoch = {"measure": "epoch", "method": "ibma", "device": "Card"}
    lines = [epoch | {"task": "crema_d", "rows": 100, "seconds": 1.0}]
    lines += [epoch | {"task": "mimic_cxr", "rows": 100, "seconds": 4.0}]
    write(tmp_path, "benchmarks/gpu/2027-01-01.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    table = rows_of(load("paper"), tmp_path)
    tasks = ("crema_d", "meld_emotion", "mimic_cxr", "chexpert")
    a_row = {task: table[task]["train h"] / table[task]["rows"] for task in tasks}
    assert a_row["mimic_cxr"] == pytest.approx(4 * a_row["crema_d"])
    assert a_row["chexpert"] == pytest.approx(a_row["mimic_cxr"]), "the same ViT and BERT"
    assert a_row["meld_emotion"] == pytest.approx(27 / 26 * a_row["crema_d"]), "one method more"


def test_what_was_timed_here_wins_over_another_machines_gpu(tmp_path):
    epoch = {"measure": "epoch", "method": "ibma", "device": "Card", "task": "mimic_cxr"}
    line = json.dumps(epoch | {"rows": 100, "seconds": 4.0})
    write(tmp_path, "benchmarks/gpu/2027-01-01.jsonl", line)
    timed = {"task": "crema_d", "source": "real", "device": "here"}
    timed["methods"] = {"ibma": {"median": 6698.0}}  # a second a row
    write(tmp_path, "data/timing.json", timed)
    rates = plan.rates(load("paper"), tmp_path, "mimic_cxr")
    assert rates.measured.startswith("measured on here") and rates.seconds["ibma"] == 1.0


def test_times_of_twins_say_nothing_about_real_data(measured):
    for name in ("paper", "open"):
        assert plan.rates(load(name), measured).seconds == {}
    table = rows_of(load("paper"), measured)
    row = table["crema_d"]
    assert (row["rows"], row["train h"], row["tune h"]) == (6698, None, None)
    assert [*table.values()][-1]["train h"] is None


def test_disk_is_rows_times_bytes_of_a_row_and_networks_that_are_kept(measured):
    profile = load("twin")
    asked = Asked(profile, measured, "crema_d")
    assert asked.features_gb == 80 * (4 * 5 * 4 + 3 * 3 * 8 * 8) / 1e9
    kept = rows_of(profile, measured)["crema_d"]["weights GB"]
    assert kept == pytest.approx(asked.network_gb * 3 * len(profile.keep_weights))
    none = profile.model_copy(update={"keep_weights": []})
    assert rows_of(none, measured)["crema_d"]["weights GB"] == 0
    assert Asked(profile, measured, "meld_emotion").features_gb is None, "the twin is not there"


def test_rows_and_shapes_are_known_before_anything_is_extracted(tmp_path, monkeypatch):
    """3 s are 66,150 samples: 188 columns at a hop of 353; the short Fourier transform has 257."""
    paper = load("paper")
    film = {"audio": ((128, 188), "f4"), "visual": ((3, 3, 224, 224), "u1"), "text": ((96,), "i4")}
    assert Asked(paper, tmp_path, "meld_emotion").shapes == film
    tissue = {"expression": ((3000,), "f4"), "image": ((3, 64, 64), "u1")}
    assert Asked(paper, tmp_path, "tissue").shapes == tissue
    values = yaml.safe_load((ROOT / "profiles/paper.yaml").read_text())
    values["tasks"]["crema_d"]["features"] = {"audio": {"spectrogram": "ogm"}}
    plain = Asked(params.parse(values, Path("params.yaml")), tmp_path, "crema_d")
    assert plain.shapes == {"audio": ((257, 188), "f4"), "visual": film["visual"]}
    folds = Asked(load("open"), tmp_path, "ravdess")
    assert folds.samples == (1440, 0) and folds.rows == 1152, "four of five folds"
    assert folds.shapes is None and folds.features_gb is None, "statistics and vectors"
    shape = Asked._shape
    monkeypatch.setattr(Asked, "_shape", lambda s, name: shape(s, name) if name != "text" else None)
    assert Asked(paper, tmp_path, "meld_emotion").shapes is None, "all or none"


def test_what_nothing_is_known_of_stays_unknown_in_every_row(tmp_path):
    profile = load("open")
    study = next(name for name, tasks in profile.studies().items() if "ravdess" in tasks)
    row = rows_of(profile, tmp_path)[f"{study}@ravdess"]
    assert (row["features GB"], row["tune h"], row["train h"]) == (None, None, None)
    assert row["trials"] == 0
    shown = [plan._shown(value) for value in (None, 12345, 12345.6, 1.0, 0.123, 0.0, "x")]
    assert shown == ["?", "12,345", "12,345.6", "1.0", "0.12", "0", "x"]
    rates = plan.Rates({"a": 1.0, "b": 2.0, "c": 9.0}, "")
    assert rates.hours(3600, {"other": 1.0}) == 2.0, "the median of the others"


def test_disk_holds_raw_data_once_and_features_and_weights_twice(tmp_path, monkeypatch):
    asked = []
    known = {"task": "sum", "source": "", "features GB": 3.0, "weights GB": 0.5}
    unknown = known | {"task": "a", "features GB": None, "weights GB": None}
    monkeypatch.setattr(plan, "table", lambda *_: [unknown, known])
    monkeypatch.setattr(plan, "raw_gb", lambda params, root, name: 1.0 if name != "mosi" else None)
    monkeypatch.setattr(plan, "missing", lambda params, root, disk: asked.append(disk) or [])
    profile = load("twin")
    lines = plan.text(profile, tmp_path).splitlines()
    assert asked == [len(profile.datasets) - 1 + 2 * 3.5] and "mosi" in profile.datasets
    assert f"Disk for all of it: {asked[0]:.1f} GB" in "\n".join(lines)


@pytest.mark.slow
def test_shapes_from_the_parameters_are_those_that_are_stored(tmp_path, monkeypatch):
    """For every kind of modality: as params.yaml says, and as extracted."""
    monkeypatch.syspath_prepend(ROOT / "stages")
    profile = load("twin")
    profile = load("twin", engine=profile.engine.model_copy(update={"workers": 1}))
    for task in ("meld_emotion", "tissue"):
        planned = Asked(profile, tmp_path, task).shapes
        monkeypatch.chdir(tmp_path)
        for stage, of in (("download", profile.task(task).dataset), ("extract", task)):
            runpy.run_path(str(ROOT / f"stages/{stage}.py"))[stage](profile, of)
        stored = Asked(profile, tmp_path, task).shapes
        assert {n: s for n, (s, _) in planned.items()} == {n: s for n, (s, _) in stored.items()}


def test_trials_are_those_of_the_tune_stage(tmp_path):
    crema, tissue = (Asked(load("paper"), tmp_path, task) for task in ("crema_d", "tissue"))
    assert crema.trials("concat") == crema.trials("ce3") == 5 * 9, "without a weight of their own"
    assert crema.trials("ibma") == crema.trials("omib") == 5 * (9 + 8)
    assert tissue.trials("ibma") == 0, "one class: nothing to select by"
    ravdess = Asked(load("open"), tmp_path, "ravdess")
    assert ravdess.trials("ibma") == 5 * load("open").tune.folds * (4 + 2)


def test_what_is_missing_is_said(measured, monkeypatch):
    profile = load("open")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9e9, 8e9, 1e9))
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    lacking = plan.missing(profile, measured, 2.5)
    assert "disk: 2 GB to write, 1 GB free" in lacking
    assert any("`pip install '.[text]'` in a clone" in line for line in lacking)
    assert not any(line.startswith("data set") for line in lacking), "all open"
    assert not any(line.startswith("disk") for line in plan.missing(profile, measured, 0.5))
    by_hand = plan.missing(load("paper"), measured, 0.0)
    assert any(line.startswith("data set mimic_cxr: not placed") for line in by_hand)
    assert any(line.startswith("data set crema_d: not placed") for line in by_hand), "a twin's"
    write(measured, "data/features/mimic_cxr/meta.json", {"dataset": "mimic_cxr", "source": "real"})
    again = plan.missing(load("paper"), measured, 0.0)
    assert not any("mimic_cxr" in line for line in again), "features need no raw files"


def test_raw_files_are_counted_where_they_lie_else_as_the_card_states(tmp_path):
    profile = load("paper")
    assert plan.raw_gb(profile, tmp_path, "mimic_cxr") == 570.0
    assert plan.raw_gb(profile, tmp_path, "mosi") is None, "nobody states it"
    assert plan.raw_gb(load("twin"), tmp_path, "mimic_cxr") == 0.0
    files = [["a.jpg", 1_500_000_000, None], ["b.csv", 500_000_000, "x"]]
    write(tmp_path, "data/manifests/mimic_cxr.json", {"source": "real", "files": files})
    assert plan.raw_gb(profile, tmp_path, "mimic_cxr") == 2.0
    assert plan.raw_gb(load("twin"), tmp_path, "mimic_cxr") == 0.0, "these are no twin's"


def test_a_network_is_as_large_as_what_training_stores(tmp_path):
    """ResNet-18 twice: 11.2 million weights each and a projection to the embedding."""
    size = Asked(load("paper"), tmp_path, "crema_d").network_gb
    assert size == pytest.approx(2 * (11.17e6 + 512 * 513) * 4 / 1e9, rel=0.01)
    assert fetch.missing("split_digits", plan.datasets.load("split_digits"), Path("x")) is None


def test_the_text_has_a_line_a_task_and_says_what_it_does_not_know(measured):
    lines = plan.text(load("twin"), measured).splitlines()
    assert lines[0] == "Profile twin: 3 seeds of 5 epochs"
    task = next(line for line in lines if line.startswith("crema_d "))
    assert task.split()[:6] == ["crema_d", "twin", "60", "26", "78", "146"]
    unknown = next(line for line in lines if line.startswith("mosi "))
    assert unknown.split()[2] == "?" and unknown.split()[6:9] == ["?", "?", "?"]
    assert max(map(len, lines[:14])) <= 121
