"""The MLflow mirror: one run per record, never two, rebuilt from disk, calm when down."""

import json
import shutil
import sqlite3
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from ibma import params, tracking
from ibma.errors import IbmaError
from ibma.params import Sensitivity
from ibma.training.record import Record

PARAMS = replace(
    params.load(Path(__file__).parent.parent / "profiles/twin.yaml"),
    sensitivity=Sensitivity("digits", ["ibma"], []),
    tasks={"digits": {}},
    methods={"concat": {}},
    variants={"ibma": {}},
)


def record(method, seed, accuracy=0.5):
    return {
        "key": f"key-{method}-{seed}",
        "profile": "twin",
        "task": "digits",
        "method": method,
        "seed": seed,
        "source": "real",
        "fold": None,
        "n_train": 10,
        "n_test": 4,
        "params": {"lr": 0.001},
        "metrics": {"accuracy": accuracy, "auc/Lung Opacity": None},
        "ib": {"left": -0.01, "fused": 0.2},
        "ib_before": {"left": 0.0, "fused": 0.0},
        "history": {"task": [1.5, 0.75], "ibb/left|right": [0.2, 0.1]},
        "volatile": {
            "device": "cpu",
            "seconds_per_epoch": [0.1, 0.1],
            "peak_memory_bytes": 123,
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:00:09+00:00",
            "git_commit": "abc",
        },
    }


def write(root, record):
    path = root / "runs" / record["task"] / record["method"] / f"seed_{record['seed']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A migrated database, made once: MLflow takes seconds to create one."""
    from mlflow import MlflowClient

    tracking._quiet()
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path, empty_database, monkeypatch):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # Drawing is another module's matter, and matplotlib is slow to start.
    (tmp_path / "history.png").write_bytes(b"png")
    drawn = [tmp_path / "history.png"]
    monkeypatch.setattr(tracking, "draw", lambda records: nullcontext(drawn * len(records)))
    for method, seed in (("concat", 0), ("ibma", 0), ("ibma", 1)):
        write(tmp_path, record(method, seed))
    return tmp_path


def counts(collected):
    return collected.new, collected.replaced, collected.kept


def active_runs(root):
    with sqlite3.connect(root / "mlflow.db") as database:
        rows = database.execute("select run_uuid from runs where lifecycle_stage = 'active'")
        return {row[0] for row in rows}


def client(root):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def test_second_collection_writes_nothing(root):
    first = tracking.collect(PARAMS, root)
    assert counts(first) == (3, 0, 0)
    assert set(first.runs) == {
        "runs/digits/concat/seed_0.json",
        "runs/digits/ibma/seed_0.json",
        "runs/digits/ibma/seed_1.json",
    }
    assert json.loads((root / "data/track.json").read_text()) == first.runs
    before = (root / "data/track.json").read_bytes()
    assert counts(tracking.collect(PARAMS, root)) == (0, 0, 3)
    assert (root / "data/track.json").read_bytes() == before
    assert active_runs(root) == set(first.runs.values())


def test_run_holds_what_the_record_holds(root):
    run_id = tracking.collect(PARAMS, root).runs["runs/digits/ibma/seed_1.json"]
    run = client(root).get_run(run_id)
    assert run.data.tags["dvc.stage"] == "train_ibma@digits-ibma"
    expected = {"source": "real", "seed": "1", "record.key": "key-ibma-1", "git.commit": "abc"}
    assert expected.items() <= run.data.tags.items()
    assert run.data.params["lr"] == "0.001" and run.data.params["n_train"] == "10"
    assert run.data.metrics["accuracy"] == 0.5 and run.data.metrics["ib/left"] == -0.01
    assert "auc/Lung Opacity" not in run.data.metrics
    loss = client(root).get_metric_history(run_id, "loss/task")
    assert [(point.step, point.value) for point in loss] == [(1, 1.5), (2, 0.75)]
    assert run.data.metrics["loss/ibb/left given right"] == 0.1
    assert run.info.end_time - run.info.start_time == 9000 and run.info.status == "FINISHED"
    names = {item.path for item in client(root).list_artifacts(run_id)}
    assert names == {"seed_1.json", "history.png"}


def test_changed_record_replaces_its_run(root):
    first = tracking.collect(PARAMS, root)
    changed = write(root, record("ibma", 0, accuracy=0.9)).relative_to(root).as_posix()
    second = tracking.collect(PARAMS, root)
    assert counts(second) == (0, 1, 2)
    assert second.runs[changed] != first.runs[changed]
    assert active_runs(root) == set(second.runs.values())
    assert client(root).get_run(second.runs[changed]).data.metrics["accuracy"] == 0.9


def test_run_cut_off_or_doubled_is_mended(root):
    first = tracking.collect(PARAMS, root)
    victim = first.runs["runs/digits/concat/seed_0.json"]
    client(root).delete_tag(victim, tracking.DIGEST)  # what a kill in the middle leaves
    tags = client(root).get_run(first.runs["runs/digits/ibma/seed_1.json"]).data.tags
    experiment = client(root).get_experiment_by_name("twin").experiment_id
    client(root).create_run(experiment, tags=tags)
    second = tracking.collect(PARAMS, root)
    assert counts(second) == (0, 1, 2)
    assert active_runs(root) == set(second.runs.values()) and len(second.runs) == 3


def test_store_is_rebuilt_from_records(root, empty_database):
    tracking.collect(PARAMS, root)
    shutil.copy(empty_database, root / "mlflow.db")
    assert counts(tracking.collect(PARAMS, root)) == (3, 0, 0)


def test_long_history_is_split_at_the_limit(root):
    long = record("concat", 0)
    long["history"] = {"task": [float(i) for i in range(1100)]}
    path = write(root, long).relative_to(root).as_posix()
    run_id = tracking.collect(PARAMS, root).runs[path]
    assert len(client(root).get_metric_history(run_id, "loss/task")) == 1100


def test_dead_server_costs_one_warning(root, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    collected = tracking.collect(PARAMS, root)
    assert collected.down and counts(collected) == (0, 0, 0)
    error = capsys.readouterr().err
    assert error.startswith("warning: MLflow at http://127.0.0.1:9") and error.count("\n") == 1
    assert json.loads((root / "data/track.json").read_text()) == {}


@pytest.mark.parametrize("text", ["{", '{"key": "x"}', "[]"])
def test_broken_record_is_named(root, text):
    path = root / "runs/digits/concat/seed_0.json"
    path.write_text(text)
    with pytest.raises(IbmaError, match="seed_0.json: not a record"):
        tracking.collect(PARAMS, root)


def test_plots_are_drawn_in_the_order_of_the_records():
    records = [Record(**record("concat", seed)) for seed in range(3)]
    with tracking.draw(records) as plots:
        drawn = [path.read_bytes() for path in plots]
    assert len(set(drawn)) == 3 and all(one.startswith(b"\x89PNG") for one in drawn)
