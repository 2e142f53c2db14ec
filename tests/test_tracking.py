"""The copy of the records in MLflow: one run each, never two, made again at any time."""

import json
import posixpath
import re
import shutil
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import record_of
from hypothesis import given
from hypothesis import strategies as st

from ibma import datasets, params, paths, tracking
from ibma.errors import IbmaError, redact
from ibma.estimators import trained
from ibma.features import media
from ibma.features.extract import extract
from ibma.files import read_json, write_bytes, write_json
from ibma.network import tasks
from ibma.network.centroids import write_all
from ibma.tracking import entities, store
from ibma.training import run
from ibma.training.cell import Cell, Setting
from ibma.training.record import Record, RunId

ROOT = Path(__file__).parent.parent
PARAMS = params.load(ROOT / "profiles/twin.yaml")
SECRET = "http://bob:SECRET@127.0.0.1:9/x"


def made(method: str, seed: int, accuracy: float | None = None) -> Record:
    return record_of(
        key=f"key-{method}-{seed}",
        stage=PARAMS.stage_of(method),
        task="crema_d",
        method=method,
        seed=seed,
        n_test=4,
        metrics={"accuracy": 0.25 * (seed + 1) if accuracy is None else accuracy},
        ib={"audio": -0.01, "fused": 0.2},
        ib_before={"audio": 0.0, "fused": 0.0},
        history={"task": [1.5, 0.75], "ibb/audio|visual": [0.2, 0.1]},
        regime={"share/audio": [0.0, 0.2]},
        provenance={
            "device": "cpu",
            "seconds_per_epoch": [0.25, 0.5],
            "peak_memory_bytes": 123,
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:00:00+00:00",
            "git_commit": "abc-dirty-123",
        },
    )


RECORDS = [made("concat", 0), made("ibma", 0), made("ibma", 1), made("ibma", 2)]


def lay(root: Path, *records: Record) -> None:
    for one in records:
        one.write(root / one.id.record)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow's tables, made once: they take seconds."""
    store.silence()
    folder = tmp_path_factory.mktemp("store")
    store.client(folder)
    return folder / "mlflow.db"


@pytest.fixture
def root(tmp_path, empty_database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    lay(tmp_path, *RECORDS)
    return tmp_path


def counts(done):
    return done.new, done.replaced, done.kept


def active(root: Path) -> dict[str, str]:
    """Name -> id of the runs that MLflow shows."""
    with sqlite3.connect(root / "mlflow.db") as database:
        found = "select name, run_uuid from runs where lifecycle_stage = 'active'"
        rows = database.execute(found).fetchall()
    assert len({name for name, _ in rows}) == len(rows), "a run is there twice"
    return dict(rows)


def test_a_run_holds_what_its_record_holds(root):
    odd = {"b|c (left)": 0.5, "b given c (left)": 0.25, "50% effusion": 0.1, "<script>": None}
    long = {"task": [float(i) for i in range(1100)], "": [1.0], "../x": [2.0]}
    changed = replace(RECORDS[2], metrics=RECORDS[2].metrics | odd, history=long, digest="")
    lay(root, changed)
    (root / "data/features/crema_d").mkdir(parents=True)
    write_json(root / "data/features/crema_d/meta.json", {"digest": "d" * 64})
    done = tracking.collect(PARAMS, root)
    client, ids = store.client(root), active(root)
    run = client.get_run(ids["IBMA · CREMA-D · seed 1"])
    assert done.runs["runs/train_ibma/crema_d/ibma/seed_1.json"] == run.info.run_id
    assert run.info.status == "FINISHED" and run.info.end_time - run.info.start_time == 750
    expected = {
        "source": "twin",
        "seed": "1",
        "record.key": "key-ibma-1",
        "mlflow.source.name": "stages/train_ibma.py crema_d",
        "mlflow.source.git.commit": "abc",
        "mlflow.source.git.dirty": "true",
        "mlflow.parentRunId": ids["IBMA · CREMA-D"],
    }
    assert expected.items() <= run.data.tags.items() and run.data.tags["mlflow.user"]
    assert run.data.params["lr"] == "0.001" and run.data.params["n_train"] == "10"
    metrics = run.data.metrics
    assert metrics["accuracy"] == 0.5 and metrics["ib/audio"] == -0.01
    assert metrics["50 percent effusion"] == 0.1 and metrics["b given c _left_"] == 0.5
    assert sorted(v for k, v in metrics.items() if k.startswith("b given c")) == [0.25, 0.5]
    assert not any("script" in name for name in metrics)
    losses = client.get_metric_history(run.info.run_id, "loss/task")
    assert [(one.step, one.value) for one in losses] == [(i + 1, float(i)) for i in range(1100)]
    data = run.inputs.dataset_inputs[0].dataset
    assert (data.name, data.digest, data.source_type) == ("CREMA-D", "d" * 36, "twin")
    artifact = root / f"mlartifacts/ibma-twin/{run.info.run_id}/artifacts/record.json"
    assert json.loads(artifact.read_text())["digest"] == changed.digest
    page = client.get_experiment_by_name("ibma-twin").tags
    assert "profile `twin`" in page["mlflow.note.content"]


def test_a_parent_run_holds_mean_and_deviation_over_seeds(root):
    tracking.collect(PARAMS, root)
    client = store.client(root)
    means = client.get_run(active(root)["IBMA · CREMA-D"]).data.metrics
    assert means["seeds"] == 3 and means["accuracy"] == 0.5 and means["sd/accuracy"] == 0.25
    lay(root, made("ibma", 2, accuracy=0.9))
    tracking.collect(PARAMS, root)
    means = client.get_run(active(root)["IBMA · CREMA-D"]).data.metrics
    assert means["accuracy"] == pytest.approx((0.25 + 0.5 + 0.9) / 3)


def test_a_later_call_writes_only_what_changed(root):
    first = tracking.collect(PARAMS, root)
    assert counts(first) == (4, 0, 0)
    written, before = (root / "data/track.json").read_bytes(), active(root)
    assert read_json(root / "data/track.json", {}) == first.runs
    assert counts(tracking.collect(PARAMS, root)) == (0, 0, 4)
    assert (root / "data/track.json").read_bytes() == written and active(root) == before
    client = store.client(root)
    ids = active(root)
    tags = client.get_run(ids["IBMA · CREMA-D · seed 1"]).data.tags
    del tags["mlflow.runName"]
    cut = client.create_run("1", tags=tags | {"seed": "0"}, run_name="cut off")
    client.delete_run(ids["IBMA · CREMA-D · seed 0"])
    client.create_run("1", tags=tags, run_name="double")
    client.delete_run(ids["Concat · CREMA-D · seed 0"])
    lay(root, made("ibma", 2, accuracy=0.9))
    assert tracking.collect(PARAMS, root).new == 1
    assert set(active(root)) == set(before) and cut.info.run_id not in active(root).values()
    client.delete_run(active(root)["IBMA · CREMA-D"])  # its runs follow to a new parent
    assert counts(tracking.collect(PARAMS, root)) == (0, 3, 1)
    assert set(active(root)) == set(before)


def test_a_stage_mirrors_its_runs_as_they_finish(root, capsys):
    mirror = tracking.Mirror(PARAMS, root)
    for seen, one in enumerate(RECORDS[1:], 1):
        mirror.finished(one)
        assert counts(mirror.done) == (seen, 0, 0)
        assert f"IBMA · CREMA-D · seed {one.seed}" in active(root)
    means = store.client(root).get_run(active(root)["IBMA · CREMA-D"]).data.metrics
    assert means["seeds"] == 3 and means["accuracy"] == 0.5
    tracking.Mirror(PARAMS, root).finished(made("ibma", 0, accuracy=0.9))  # trained again
    lay(root, made("ibma", 0, accuracy=0.9))
    assert counts(tracking.collect(PARAMS, root)) == (1, 0, 3)
    assert not capsys.readouterr().err


def epochs(record: Record, count: int) -> Record:
    """Return what is known of a run after some epochs."""
    history, regime = (
        {name: values[:count] for name, values in own.items()}
        for own in (record.history, record.regime)
    )
    provenance = {"seconds_per_epoch": [1.0] * count, "started": "2026-01-01T00:00:00+00:00"}
    empty = {"metrics": {}, "ib": {}, "confusion": [], "digest": ""}
    return replace(record, history=history, regime=regime, provenance=provenance, **empty)


def test_a_long_run_shows_its_epochs_while_it_trains(root, capsys):
    whole = replace(RECORDS[1], history={"task": [3.0, 2.0, 1.0]}, regime={}, digest="")
    mirror, client = tracking.Mirror(PARAMS, root), store.client(root)
    name = "IBMA · CREMA-D · seed 0"
    for count in (1, 3):
        mirror.running(epochs(whole, count))
        run = client.get_run(active(root)[name])
        points = client.get_metric_history(run.info.run_id, "loss/task")
        assert run.info.status == "RUNNING" and [one.step for one in points] == [1, 2, 3][:count]
    assert "accuracy" not in run.data.metrics and run.data.params["lr"] == "0.001"
    mirror.finished(whole)
    run = client.get_run(active(root)[name])
    assert run.info.status == "FINISHED" and run.data.metrics["accuracy"] == 0.25
    assert "seeds" not in client.get_run(active(root)["IBMA · CREMA-D"]).data.metrics
    later = tracking.Mirror(PARAMS, root)
    later.running(epochs(RECORDS[2], 1))
    later.failed(RECORDS[2].id)
    assert client.get_run(active(root)["IBMA · CREMA-D · seed 1"]).info.status == "FAILED"
    later.failed(RECORDS[3].id)  # never seen while it trained
    lay(root, whole)
    assert counts(tracking.collect(PARAMS, root)) == (2, 1, 1) and not capsys.readouterr().err


def test_a_run_is_called_and_described_as_people_would():
    for stage, method, name in (
        ("train_ibma", "ibma", "IBMA · CREMA-D"),
        ("sensitivity", "ibma_eta_0.3", "IBMA · eta 0.3 · CREMA-D"),
        ("noise", "ibma_train_2_test_2", "IBMA · noise train 2 test 2 · CREMA-D"),
        ("regimes", "ibma_unit_beta_16", "IBMA on unit vectors · beta 16 · CREMA-D"),
        ("train", "my_own", "my_own · CREMA-D"),
    ):
        one = replace(RECORDS[1], stage=stage, method=method)
        assert entities.run_name(one, parent=True) == name
        assert entities.run_name(one) == f"{name} · seed 0"
        said = entities.tags(one, None)["mlflow.note.content"]
        assert said.startswith(f"{name}, stage `{stage}`, generated data") and "means" in said


def test_a_run_ends_when_it_was_finished_or_when_its_epochs_are_over():
    """Records note whole seconds; a short run would end before its epochs."""
    start = 1_767_225_600_000  # 2026-01-01 in ms
    for finished, epochs, end in (("10", [1.0, 2.0], 10_000), ("01", [0.75, 0.75], 1_500)):
        provenance = {
            "started": "2026-01-01T00:00:00+00:00",
            "finished": f"2026-01-01T00:00:{finished}+00:00",
            "seconds_per_epoch": epochs,
        }
        one = replace(RECORDS[1], provenance=provenance, digest="")
        assert entities.span(one) == (start, start + end)
    assert entities.span(replace(RECORDS[1], provenance={}, digest="")) == (0, 0)


def test_a_number_of_zero_is_a_number_and_an_undefined_one_is_none(tmp_path):
    one = replace(
        RECORDS[1],
        metrics={"accuracy": 0.0, "auc": None},
        regime={"share/audio": [0.0, 0.2]},
        fold=3,
        digest="",
    )
    points = {(point.key, point.step): point.value for point in entities.metrics(one)}
    assert points["accuracy", 0] == 0.0 and ("auc", 0) not in points
    assert (points["regime/share/audio", 1], points["regime/share/audio", 2]) == (0.0, 0.2)
    assert points["system/peak_memory_bytes", 0] == 123 and points["seconds_per_epoch", 2] == 0.5
    settings = {one.key: one.value for one in entities.params(one)}
    assert (settings["fold"], settings["n_train"], settings["n_test"]) == ("3", "10", "4")
    data = entities.dataset(one, tmp_path).dataset
    assert json.loads(data.profile) == {"num_rows": 14} and data.digest == "unknown"


def test_tags_hold_what_every_store_can_and_say_real_data_and_clean_code(monkeypatch):
    odd = RECORDS[1].provenance | {"device": "GPU \udcff", "git_commit": "abc"}
    tags = entities.tags(replace(RECORDS[1], source="real", provenance=odd, digest=""), "p")
    assert tags["device"] == "GPU ?" and tags["seed"] == "0"
    assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.dirty"]) == ("abc", "false")
    said = tags["mlflow.note.content"]
    assert "real data" in said and "twin" not in said and "`record.json`" in said

    def nameless() -> str:
        raise KeyError("uid 1234")

    monkeypatch.setattr(entities.getpass, "getuser", nameless)
    shared = entities.tags(RECORDS[1], None)
    assert shared["mlflow.user"] == "unknown" and "seed" not in shared


def test_long_and_spaced_names_fit_and_stay_apart():
    keys = ["a" * 300 + "b", "a" * 300 + "c", " auc / left ", "auc/left", "50%"]
    names = entities.names(keys)
    assert all(len(name) <= 250 for name in names.values()) and len(set(names.values())) == 5
    assert names[" auc / left "] == "auc/left" != names["auc/left"]
    assert names["50%"] == "50 percent"
    same = entities.names(["AUC", "auc"])  # some file systems do not tell them apart
    assert len({name.casefold() for name in same.values()}) == 2


def test_a_short_stage_leaves_its_runs_to_track(root):
    mirror = tracking.Mirror(PARAMS, root, patience=1.0)
    mirror.finished(RECORDS[1])
    assert counts(mirror.done) == (0, 0, 0)
    time.sleep(1.0)
    mirror.finished(RECORDS[2])
    assert counts(mirror.done) == (2, 0, 0), "the first one too, once the stage lasts"


@given(st.lists(st.text(), unique=True, max_size=8))
def test_names_are_what_mlflow_takes_and_never_meet(keys):
    names = list(entities.names(keys).values())
    assert len({name.casefold() for name in names}) == len(keys)
    for name in names:
        assert re.fullmatch(r"[/\w.\- ]{1,250}", name)
        assert posixpath.normpath(name) == name and not name.startswith(("/", ".."))


def test_a_refused_run_fails_alone(root, capsys):
    bad = replace(RECORDS[1], metrics={"accuracy": "high"}, digest="")
    lay(root, bad)
    done = tracking.collect(PARAMS, root)
    assert counts(done) == (3, 0, 0) and list(done.failed) == [bad.id.record.as_posix()]
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "ibma/seed_0.json" in line and "'high'" in line
    assert "1 of 4 runs are missing" in line and "does not answer" not in line
    lay(root, RECORDS[1])
    assert counts(tracking.collect(PARAMS, root)) == (0, 1, 3)


def test_a_broken_record_is_named_after_all_others_were_mirrored(root):
    changed = json.dumps(vars(RECORDS[0]) | {"n_test": 5})
    for text in ("{", "[]", changed):
        (root / RECORDS[0].id.record).write_text(text)
        with pytest.raises(IbmaError, match=r"concat/seed_0\.json"):
            tracking.collect(PARAMS, root)
    assert len(read_json(root / "data/track.json", {})) == 3


def test_a_damaged_database_is_known_and_made_anew(root, capsys):
    whole, folder = (root / "mlflow.db").read_bytes(), root / "other"
    lay(folder, *RECORDS)
    database, noise = folder / "mlflow.db", bytes(range(1, 256)) * 500
    assert store._damage(root / "mlflow.db") is None and store._damage(database) is None
    overwritten = whole[:4096] + noise + whole[4096 + len(noise) :]
    for damaged in (whole[: len(whole) // 2], whole[:100], overwritten, noise):
        database.write_bytes(damaged)
        assert store._damage(database)
    mirror = tracking.Mirror(PARAMS, folder)
    mirror.finished(RECORDS[0])
    assert mirror.done.new == 1 and (folder / "mlflow.db.damaged").read_bytes() == damaged
    assert capsys.readouterr().err.count("\n") == 1
    assert counts(tracking.collect(PARAMS, folder)) == (3, 0, 1)


def test_a_locked_database_costs_one_line_and_the_next_call_levels(root, monkeypatch, capsys):
    monkeypatch.setattr(store, "WAIT", 0.1)
    holder = sqlite3.connect(root / "mlflow.db", isolation_level=None)
    holder.execute("begin exclusive")
    mirror = tracking.Mirror(PARAMS, root)
    for one in RECORDS:
        mirror.finished(one)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "database is locked" in line
    holder.close()
    assert counts(tracking.collect(PARAMS, root)) == (4, 0, 0)


def test_a_lock_that_cannot_be_opened_costs_one_line_and_the_next_call_levels(root, capsys):
    lock = root / "mlflow.db.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()  # as on a full disk, or one that is read-only
    mirror = tracking.Mirror(PARAMS, root)
    for one in RECORDS:
        mirror.finished(one)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "Is a directory" in line and "the records are safe" in line
    assert tracking.collect(PARAMS, root).down
    lock.rmdir()
    assert counts(tracking.collect(PARAMS, root)) == (4, 0, 0)


def test_a_store_that_goes_in_the_middle_costs_one_line(root, monkeypatch, capsys):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException, RestException
    from requests import ConnectionError

    log_batch = MlflowClient.log_batch
    gone = MlflowException("API request failed")
    gone.__context__ = ConnectionError("reset")
    told = RestException({"error_code": "PERMISSION_DENIED", "message": "quota of bob"})
    full = OSError(28, "No space left on device")
    for error, said in ((gone, "does not answer"), (told, "quota of bob"), (full, "No space")):
        calls = iter([False, False, True])

        def once(self, *args, calls=calls, error=error, **kwargs):
            if next(calls, True):
                raise error
            return log_batch(self, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, "log_batch", once)
        done = tracking.collect(PARAMS, root)
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and said in line and done.down
        assert ("does not answer" in line) == (error is gone)
        monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
        assert sum(counts(tracking.collect(PARAMS, root))) == 4 and len(active(root)) == 6
        lay(root, *(replace(one, metrics={"accuracy": len(said)}, digest="") for one in RECORDS))


def test_two_at_once_on_a_fresh_database_make_each_run_once(root, capsys):
    (root / "mlflow.db").unlink()
    done = []
    both = [
        threading.Thread(target=lambda: done.append(tracking.collect(PARAMS, root)))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(map(counts, done)) == [(0, 0, 4), (4, 0, 0)]
    assert len(active(root)) == 6 and not capsys.readouterr().err


def test_everything_stays_in_a_project_of_any_name(tmp_path, empty_database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "a%20b#c/q?x é 文"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    shutil.copy(empty_database, "mlflow.db")
    lay(Path(), RECORDS[0])
    assert counts(tracking.collect(PARAMS)) == (1, 0, 0)
    assert len(active(folder)) == 2
    assert len(list(folder.glob("mlartifacts/ibma-twin/*/artifacts/record.json"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a%20b#c"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    monkeypatch.chdir(tmp_path)
    folder.rename(tmp_path / "moved")
    assert counts(tracking.collect(PARAMS, tmp_path / "moved")) == (1, 0, 0)
    assert not folder.exists()  # the address of artifacts moves along


def test_a_dead_server_costs_one_line_without_secrets(root, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{SECRET}?token=SECRET")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mirror = tracking.Mirror(PARAMS, root)
    mirror.finished(RECORDS[0])
    mirror.finished(RECORDS[1])
    done = tracking.collect(PARAMS, root)
    assert counts(done) == (0, 0, 0) and read_json(root / "data/track.json", {}) == {}
    out = capsys.readouterr()
    assert out.err.count("\n") == 2 and "http://bob:***@127.0.0.1:9/x?token=*** does" in out.err
    assert "Connection refused" in out.err and "SECRET" not in out.err + out.out + str(done)


def test_addresses_lose_their_secrets():
    for address, shown in {
        SECRET: "http://bob:***@127.0.0.1:9/x",
        "at https://a:p@s/s#w@host.org/x.": "at https://a:***@host.org/x.",
        f"https://{'t' * 40}@github.com/a/b.git": "https://***@github.com/a/b.git",
        f"https://{'t' * 40}:x-oauth-basic@h": "https://***:***@h",
        "ssh://git@github.com/a": "ssh://git@github.com/a",
        "git@github.com:a/b.git": "git@github.com:a/b.git",
        "https://h:80/x?a=1&access_token=z&b=c@d": "https://h:80/x?a=1&access_token=***&b=c@d",
        "postgresql://bob:pw@h:5/db": "postgresql://bob:***@h:5/db",
        "unsupported URI 'bob:pw@h:9' for": "unsupported URI 'bob:***@h:9' for",
        "bob:p:w@h": "bob:***@h",
        "in header value: 'Bearer abc": "in header value: 'Bearer ***",
        "Authorization: Basic Ym9i=": "Authorization: Basic ***",
        "https://h/x?pass=a&b=c": "https://h/x?pass=***&b=c",
        "no address: a@b, key=value": "no address: a@b, key=value",
        "AWS_SECRET_ACCESS_KEY=abc b HF_TOKEN=x b": "AWS_SECRET_ACCESS_KEY=*** b HF_TOKEN=*** b",
        "PGPASSWORD='a b' api-key = x, y": "PGPASSWORD=*** api-key = *** y",
        "{'password': 'abc', 'user': 1}": "{'password': ***, 'user': 1}",
        "token ids: expected secrets of text": "token ids: expected secrets of text",
        "http://h/#/runs?a=b&viewStateShareKey=ibma": "http://h/#/runs?a=b&viewStateShareKey=ibma",
    }.items():
        assert redact(address) == shown and redact(shown) == shown
        assert str(IbmaError(f"{address}: gone")) == f"{shown}: gone"


# --- networks ------------------------------------------------------------------------------------


def digits(root: Path) -> tuple[params.Params, list[Record]]:
    """Train two seeds on split_digits for an epoch, as the stages do."""
    raw = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    raw["tasks"] = {"split_digits": raw["tasks"]["split_digits"]}
    for stage in ("timing", "sensitivity", "probe"):
        raw[stage]["task"] = "split_digits"
    raw["gradcam"]["tasks"], raw["training"]["epochs"], raw["seeds"] = {}, 2, 2
    given = params.parse(raw, Path("params.yaml"))
    cell = Cell.of(given, "split_digits", "ibma")
    entry = given.task("split_digits").extraction()
    module = datasets.load("split_digits")
    extract("split_digits", entry, module, root, cell.features, media.compute)
    write_all(cell.open(), cell.problem(), cell.encoders, cell.assignment(), 10, cell.centroids)
    setting = Setting(0.01, 0.0, 0.1)
    choice = {"choices": [setting._asdict()]}
    write_json(paths.choice("split_digits", "ibma"), choice)
    records = []
    for seed in range(2):
        done = run.train_run(cell, seed, setting, quiet=True)
        done.record.write(done.record.id.record)
        done.predictions.write(done.record.id.predictions)
        write_bytes(done.record.id.weights, done.weights)
        records.append(done.record)
    return given, records


def test_a_logged_network_predicts_and_every_recipe_of_the_page_runs(
    tmp_path, empty_database, monkeypatch
):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, "mlflow.db")
    given, records = digits(tmp_path)
    done = tracking.collect(given)
    assert counts(done) == (2, 0, 0) and done.models == 2
    page = (ROOT / "docs/mlflow.md").read_text(encoding="utf-8")
    page = page.replace("sqlite:///mlflow.db", store.url(tmp_path / "mlflow.db"))  # others' is open
    session: dict = {}
    try:
        for block in re.findall(r"```python\n(.*?)```", page, re.S):
            exec(compile(block, "docs/mlflow.md", "exec"), session)
    finally:
        mlflow.set_tracking_uri(None)
    accuracy = records[0].metrics["accuracy"]
    assert 0.2 < accuracy < 1 and len(session["loss"]) == len(session["share"]) == 2
    told = session["predictions"].set_index("id")
    assert (told.truth == told.predicted).mean() == pytest.approx(accuracy)
    assert session["confusion"].to_numpy().tolist() == records[0].confusion
    again = session["network"].predict(session["table"])
    again.index = [f"digit{row:04d}" for row in range(len(again))]
    assert list(again.predicted[told.index]) == list(told.predicted)
    best = max(records, key=lambda one: one.metrics["accuracy"])
    name = best.id.record.as_posix()
    assert session["best"].metadata.run_id == done.runs[name]

    files = sorted(tmp_path.glob("mlartifacts/ibma-twin/models/*/artifacts/data/*"))
    assert {file.name for file in files} == {"network.json", "weights.safetensors"}
    linked = {one.id.weights.stat().st_ino for one in records}
    assert {file.stat().st_ino for file in files if file.suffix != ".json"} == linked
    assert not list(tmp_path.rglob("*.pkl"))

    assert counts(tracking.collect(given)) == (0, 0, 2)
    assert len(list(tmp_path.glob("mlartifacts/ibma-twin/models/*"))) == 2, "none is made twice"
    records[1].id.weights.unlink()
    replace(records[1], n_test=3, digest="").write(records[1].id.record)
    again = tracking.collect(given)
    assert counts(again) == (0, 1, 1) and again.models == 1
    version = store.client(tmp_path).get_model_version_by_alias("ibma-twin-split_digits", "best")
    assert version.run_id == done.runs[records[0].id.record.as_posix()], "a gone network is none"
    assert "of 1 kept networks" in version.description or best is records[0]


def test_a_network_of_every_kind_predicts_without_its_project(make_cell, tmp_path):
    for kind, columns in (
        ("classify", {"predicted", "p(a)", "p(b)", "p(c)"}),
        ("multilabel", {"predicted", "p(a)", "p(b)", "p(c)"}),
        ("sentiment", {"predicted", "p(a)", "p(b)", "p(c)"}),
        ("one_class", {"distance"}),
    ):
        cell = replace(make_cell(kind=kind), phi="printed", beta=0.5)
        done = run.train_run(cell, 0, Setting(0.01, 0.0, 0.1), quiet=True)
        test = cell.open().test(0)
        folder, views = tmp_path / kind, dict.fromkeys(cell.open().modalities, ("vector", {}))

        def put(to: Path, done=done) -> None:
            write_bytes(to, done.weights)

        trained.write(folder, cell, done.record, views, put, scale=[0, 100], separator=" | ")
        state = torch.get_rng_state()
        network = trained.Trained.load(folder, "cpu")
        assert torch.equal(torch.get_rng_state(), state) and not network.model.training
        again = cell.build(0, Setting(0.01, 0.0, 0.1), cell.epochs, 0, torch.device("cpu")).spec
        for name in ("assignment", "u", "input_widths", "systems", "epochs", "width"):
            assert getattr(network.model.spec, name) == getattr(again, name), name
        arrays = cell.open().arrays
        table = pd.DataFrame({name: list(arrays[name][test.index]) for name in views})
        told = network.predict(table)
        assert set(told) == columns and len(told) == len(test)
        scores = done.predictions.scores.astype(float)
        if kind == "classify":
            assert list(told.predicted) == [cell.problem().classes[k] for k in scores.argmax(1)]
        elif kind == "multilabel":
            assert np.array_equal(told[["p(a)", "p(b)", "p(c)"]].to_numpy() > 0.5, scores > 0)
            assert {" | " in one for one in told.predicted} == {True, False}
        elif kind == "sentiment":
            assert np.allclose(told.predicted, 50 * (scores[:, 1] + 1), atol=0.1)
        else:
            assert np.allclose(told.distance, scores[:, 0], rtol=1e-6)
        frames = {name: pd.DataFrame(np.stack(table[name])) for name in views}
        for rows in (slice(None), slice(1)):  # of one row, its columns are no samples
            one = network.predict({name: frame.iloc[rows] for name, frame in frames.items()})
            pd.testing.assert_frame_equal(one, network.predict(table.iloc[rows].reset_index()))
        with pytest.raises(IbmaError, match="'view0' is there twice"):
            network.predict(table[["view0", "view0", "view1"]])
        table["view0"] = None
        nothing = network.predict(table)
        table["view0"] = [" ", ""] * (len(test) // 2) + [" "] * (len(test) % 2)
        pd.testing.assert_frame_equal(network.predict(table), nothing)
        with pytest.raises(IbmaError, match="no column view1: expected one for each of view0"):
            network.predict(table[["view0"]])
    said = pd.DataFrame({name: list(arrays[name][:3]) for name in views}, index=["x", "y", "z"])
    assert list(network.predict(said).index) == ["x", "y", "z"]
    old = read_json(folder / trained.NAME, {}) | {"format": 1}
    write_json(tmp_path / "old" / trained.NAME, old)
    with pytest.raises(IbmaError, match="network.json: format 1: expected 2: delete the run"):
        trained.Trained.load(tmp_path / "old")
    (folder / trained.WEIGHTS).write_bytes(b"other")
    with pytest.raises(IbmaError, match="changed since it was written"):
        trained.Trained.load(folder)


def test_a_label_that_is_as_likely_as_not_is_predicted():
    """As in metrics and in `ibma predict`."""
    model = SimpleNamespace(spec=SimpleNamespace(task=tasks.build("multilabel", "abc")))
    network = trained.Trained(model, {}, torch.device("cpu"), None, ";")
    said = network._said(torch.tensor([[0.0, -0.1, 2.0], [-1.0, -1.0, -1.0]]).double())
    assert list(said["predicted"]) == ["a;c", ""] and said["p(a)"][0] == 0.5


def test_the_record_of_a_run_lies_where_its_tag_says():
    one = RunId("train", "crema_d", "concat", 0)
    tags = entities.tags(RECORDS[0], parent="p")
    assert Path(tags[entities.FOLDER]) == one.record.parent
