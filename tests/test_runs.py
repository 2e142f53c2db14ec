"""A stage trains what the store of finished runs lacks, and lays its folders out anew."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import digits

from ibma import machine, params, paths
from ibma.errors import IbmaError
from ibma.experiments import progress, runs, tune
from ibma.features import media
from ibma.features.extract import absent, extract
from ibma.files import read_json, write_json
from ibma.formats import checksums
from ibma.network.centroids import write_all
from ibma.results import records
from ibma.training import loop, record
from ibma.training.cell import Cell, Setting

ROOT = Path(__file__).parent.parent
GRID = {"lr": [0.001], "weight_decay": [1e-5], "eta": [0.5], "weight_factor": [1]}


def load(**changes: object) -> params.Params:
    """Profile `twin` cut down to the digits, three methods, two seeds, two epochs."""
    values = digits() | {"bounds": {}, "ablation": {"ce3": {}}}
    values["training"]["epochs"] = 2
    values["tasks"]["split_digits"]["batch_size"] = 256
    values["tune"] |= {"folds": 2, "epochs": 1, "grid": GRID}
    values["noise"]["methods"] = ["concat", "ibma"]
    values["regimes"]["betas"] = [1.0, 16.0]
    return params.parse(values | changes, Path("params.yaml"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with features, centroids and choices of the digits."""
    from ibma import datasets

    root = tmp_path_factory.mktemp("digits")
    before = Path.cwd()
    os.chdir(root)
    try:
        profile, task = load(), "split_digits"
        entry = profile.task(task).extraction()
        module, out = datasets.load(task), paths.FEATURES / task
        extract(task, entry, module, paths.RAW / task, out, media.compute)
        cell = Cell.of(profile, task, "ibma")
        folder = paths.CENTROIDS / task
        write_all(cell.open(), cell.problem(), cell.encoders, cell.assignment(), 8, folder)
        tune.tune_task(profile, task)
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def project(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(capsys, profile: params.Params, stage: str, only: str | None = None) -> str:
    """Run a stage and return its last line."""
    runs.train_stage(profile, stage, "split_digits", only)
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_is_trained_once_and_another_eta_is_another_run(project, capsys):
    assert train(capsys, load(), "train_ibma") == "train_ibma split_digits: 0 kept, 2 trained"
    first = record.read(record.RunId("train_ibma", "split_digits", "ibma", 0).record)
    assert train(capsys, load(eta=0.3), "train_ibma").endswith("0 kept, 2 trained")
    again = record.read(first.id.record)
    assert again.params["eta"] == 0.3 and again.key != first.key
    assert train(capsys, load(), "train_ibma").endswith("2 kept, 0 trained")
    assert record.read(first.id.record) == first
    assert train(capsys, load(seeds=3), "train_ibma").endswith("2 kept, 1 trained")
    assert not list(paths.SCRATCH.glob("*")), "finished runs need no checkpoint"


def test_a_finished_run_is_passed_on_once_it_is_stored(project):
    finished = []

    class Note:
        def finished(self, one: record.Record) -> None:
            assert list(paths.store().rglob(f"{one.key}.json"))
            finished.append(one.id)

    for _ in range(2):
        runs.train_stage(load(), "train_ibma", "split_digits", watcher=Note())
    assert sorted(finished) == [("train_ibma", "split_digits", "ibma", k) for k in range(2)]


def test_a_run_that_trains_is_seen_epoch_by_epoch(project, monkeypatch):
    """Its checkpoint says how far it is."""
    seen = []

    class Note:
        def running(self, one: record.Record) -> None:
            seen.append(one)

        def finished(self, one: record.Record) -> None:
            seen.append(one)

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "BEAT_SECONDS", 0.02)
    values = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())["training"]
    profile = load(seeds=1, training=values | {"epochs": 20})
    runs.train_stage(profile, "train_ibma", "split_digits", watcher=Note())
    *before, last = seen
    counts = [len(one.history["ce/fused"]) for one in before]
    assert counts and counts == sorted(counts) and last.metrics
    whole = record.read(last.id.record)
    for one in before:
        shared = ("id", "source", "fold", "n_train", "n_test", "params", "tuned", "environment")
        assert all(getattr(one, name) == getattr(whole, name) for name in shared)
        shown = {name: values[: len(one.history[name])] for name, values in whole.history.items()}
        assert one.history == shown and not one.metrics


def test_weights_are_kept_where_params_say_so_and_once_on_disk(project, capsys):
    for stage in ("train", "train_ibma"):
        train(capsys, load(), stage)
    assert not list((paths.MODELS / "train").rglob("*.safetensors"))
    kept = sorted((paths.MODELS / "train_ibma").rglob("*.safetensors"))
    assert len(kept) == 2 and all(path.stat().st_nlink == 2 for path in kept)
    one = record.read(record.RunId("train_ibma", "split_digits", "ibma", 0).record)
    assert checksums.sha256(one.id.weights) == one.weights


def test_a_damaged_store_is_trained_again_and_a_changed_record_refused(project, capsys):
    train(capsys, load(), "train_ibma")
    stored = sorted(paths.store().rglob("*.safetensors"))[0]
    os.chmod(stored, 0o644)
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    for path in sorted(paths.store().rglob("*.json")):
        if json.loads(path.read_text()).get("method") == "ibma" and path.stem != stored.stem:
            path.write_text(path.read_text()[:-40])
    assert train(capsys, load(), "train_ibma").endswith("0 kept, 2 trained")
    one = record.read(record.RunId("train_ibma", "split_digits", "ibma", 0).record)
    (paths.store() / one.key[:2] / f"{one.key}.npz").write_bytes(b"")
    assert train(capsys, load(), "train_ibma").endswith("1 kept, 1 trained")
    path = record.RunId("train_ibma", "split_digits", "ibma", 0).record
    one = json.loads(path.read_text())
    for name, value in (("seed", 1), ("task", "x"), ("metrics", {"accuracy": 0.9999})):
        path.write_text(json.dumps(one | {name: value}))
        with pytest.raises(IbmaError, match=r"seed_0.json: changed since it was written"):
            records.load(load())


TRAIN_RUN = runs.run.train_run


def fail_with_seed_0(cell, seed, *rest):
    """Stand in for `train_run` in worker processes."""
    if seed == 0:
        raise IbmaError("loss term 'task' is nan")
    return TRAIN_RUN(cell, seed, *rest)


def test_a_failed_run_stops_no_other_and_is_named(project, capsys, monkeypatch):
    monkeypatch.setattr(runs.run, "train_run", fail_with_seed_0)
    with pytest.raises(IbmaError, match=r"1 of 2 runs failed.*concat seed 0: loss term"):
        runs.train_stage(load(), "train", "split_digits")
    monkeypatch.setattr(runs.run, "train_run", TRAIN_RUN)
    assert train(capsys, load(), "train").endswith("1 kept, 1 trained")


def test_one_method_of_a_stage_leaves_the_others_as_they_are(project, capsys):
    profile = load(train={"concat": {}, "omib": {}})
    tune.tune_task(profile, "split_digits")
    train(capsys, profile, "train")
    before = (paths.RUNS / "train/split_digits/omib/seed_0.json").stat().st_mtime_ns
    assert train(capsys, profile, "train", "concat").endswith("2 kept, 0 trained")
    assert (paths.RUNS / "train/split_digits/omib/seed_0.json").stat().st_mtime_ns == before
    with pytest.raises(IbmaError, match="train has no 'ibma': expected concat, omib"):
        runs.train_stage(profile, "train", "split_digits", "ibma")


def test_what_is_not_run_keeps_no_old_record(project, capsys):
    train(capsys, load(), "train")
    entry = load().task("split_digits").extraction()
    absent(
        "split_digits",
        entry,
        "data/raw/split_digits is empty: ask",
        paths.FEATURES / "split_digits",
    )
    shutil.rmtree(paths.FEATURES / "split_digits" / "nothing", ignore_errors=True)
    runs.train_stage(load(), "train", "split_digits")
    assert "split_digits: not run: data/raw/split_digits is empty: ask" in capsys.readouterr().err
    assert not list((paths.RUNS / "train").rglob("*.json"))


def test_readers_take_no_record_of_other_parameters_data_or_code(project, capsys, monkeypatch):
    train(capsys, load(), "train_ibma")
    cell = ("train_ibma", "split_digits", "ibma")
    assert len(records.load(load()).runs[cell]) == 2
    stale = "stale: made under other parameters, data or code"
    for other in (load(eta=0.3), load(threads=2), load(instructions="native")):
        found = records.load(other)
        assert not found.runs[cell] and found.gaps[cell] == stale
    monkeypatch.setattr(record, "code_digest", lambda *_: "another")
    assert records.load(load()).gaps[cell] == stale


def test_runs_of_several_threads_leave_the_others_their_cores(project, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "run_all", lambda *_, threads: asked.append(threads) or ())
    monkeypatch.setattr(tune, "run_all", lambda *_, threads: asked.append(threads) or ())
    monkeypatch.setattr(runs, "_lay_out", lambda _: None)
    monkeypatch.setattr(tune, "_kept", lambda _: None)
    monkeypatch.setattr(tune.Tried, "best", lambda *_: (Setting(0.1, 0.0, None), 0.0))
    for threads, wanted in ((1, 1), (4, 4), (None, machine.cores())):
        tune.tune_task(load(threads=threads), "split_digits", "ibma")
        runs.train_stage(load(threads=threads), "train_ibma", "split_digits")
        assert asked[-2:] == [wanted, wanted], threads


def test_a_fixed_eta_is_a_run_of_its_own(project):
    runs.train_study(load(), "sensitivity", "split_digits")
    one = record.read(record.RunId("sensitivity", "split_digits", "ibma_eta_0.5", 1).record)
    assert one.params["eta"] == 0.5
    assert len(records.load(load()).at_eta("ibma", 0.5)) == 2


def test_a_regime_is_a_run_with_its_own_phi_at_the_settings_of_the_control(project, capsys):
    profile = load()
    choice = paths.choice("split_digits", "ce3")
    content = read_json(choice, {})
    content["choices"][0] |= {"lr": 0.004, "weight_decay": 0.002}
    write_json(choice, content)
    runs.train_study(profile, "regimes", "split_digits")
    assert capsys.readouterr().err.endswith("regimes split_digits: 0 kept, 6 trained\n")
    found = records.load(profile).of_study("regimes", "split_digits")
    assert list(found) == ["ce3", "ibma_unit_beta_1_eta_0.5", "ibma_unit_beta_16_eta_0.5"]
    for name, own in found.items():
        assert {(one.params["lr"], one.params["weight_decay"]) for one in own} == {(0.004, 0.002)}
        assert {one.params.get("beta") for one in own} == {
            {"ce3": None, "ibma_unit_beta_1_eta_0.5": 1.0}.get(name, 16.0)
        }
    flat, sharp = (found[f"ibma_unit_beta_{beta}_eta_0.5"][0] for beta in (1, 16))
    assert sharp.regime["phi_max/fused"][-1] > flat.regime["phi_max/fused"][-1]
    assert not list(paths.MODELS.rglob("*.safetensors")), "nobody reads their weights"


def test_a_network_that_diverges_in_its_last_step_is_one_line(project):
    """Its loss was a number still, its predictions are none."""
    values = load().as_dict()
    values["tasks"]["split_digits"]["batch_size"] = 2048
    values["training"]["epochs"] = 1
    values["tune"]["grid"] = GRID | {"lr": [1e30]}
    profile = params.parse(values, Path("params.yaml"))
    with pytest.raises(IbmaError, match="at lr 1e.30 predictions are no numbers: lower tune.grid"):
        tune.tune_task(profile, "split_digits")
    choice = paths.choice("split_digits", "concat")
    chosen = read_json(choice, {})
    chosen["choices"] = [one | {"lr": 1e30} for one in chosen["choices"]]
    write_json(choice, chosen)
    with pytest.raises(IbmaError, match="2 of 2 runs failed.*predictions are no numbers"):
        runs.train_stage(profile, "train", "split_digits")
    for name in ("nope", "../x", ""):
        with pytest.raises(IbmaError, match=f"unknown task '{name}'"):
            runs.train_study(profile, "noise", name)
    assert not (project / "runs/noise").exists()


def test_noise_is_part_of_a_run_and_of_its_key(project):
    profile = load()
    runs.train_study(profile, "noise", "split_digits")
    found = records.load(profile).of_study("noise", "split_digits")
    assert len(found) == 2 * 4 and all(len(own) == 2 for own in found.values())
    assert len({one.key for own in found.values() for one in own}) == 16
    for method in ("concat", "ibma"):
        mean = {
            pair: sum(one.metrics["accuracy"] for one in found[f"{method}_train_{pair}"])
            for pair in ("0_test_0", "2_test_0", "0_test_2", "2_test_2")
        }
        assert mean["0_test_0"] > mean["0_test_2"] + 0.1, "a network that has seen no noise"
        clean, noisy = (found[f"{method}_train_{pair}"][0] for pair in ("0_test_0", "2_test_0"))
        assert clean.history != noisy.history
        assert clean.history == found[f"{method}_train_0_test_2"][0].history
        assert clean.ib["right"] != noisy.ib["right"] and clean.ib["u/left"] != noisy.ib["u/left"]


def test_a_choice_tells_of_every_parameter_and_all_code_that_trains_its_method(
    project, monkeypatch
):
    monkeypatch.setattr(tune, "run_all", lambda *_, **__: ())  # what is chosen does not matter here
    monkeypatch.setattr(tune, "_kept", lambda _: [])
    monkeypatch.setattr(tune.Tried, "best", lambda *_: (Setting(0.1, 0.0, None), 0.0))

    def keys(**changes: object) -> str:
        tune.tune_task(load(**changes), "split_digits", "ibma")
        return read_json(paths.choice("split_digits", "ibma"), {})["key"]

    training = load().training.as_dict()
    tasks = {"split_digits": load().task("split_digits").as_dict() | {"batch_size": 128}}
    seen = [
        keys(),
        keys(training=training | {"epochs": 3}),
        keys(training=training | {"beta": 2.0}),
        keys(tasks=tasks),
        keys(threads=2),
        keys(instructions="native"),
    ]
    monkeypatch.setattr(record, "code_digest", lambda *_: "another")
    assert len({*seen, keys()}) == len(seen) + 1
    assert keys(seeds=3, eta=0.3) == keys()


def test_trials_are_kept_and_choices_follow_the_grid(project, capsys):
    tune.tune_task(load(), "split_digits")
    count = 2 * len(load().methods)
    assert capsys.readouterr().err.splitlines()[-1] == f"tune: {count} kept, 0 tried"
    wide = load().tune.model_copy(update={"grid": params.Grid(**GRID | {"lr": [0.001, 0.01]})})
    tune.tune_task(load().model_copy(update={"tune": wide}), "split_digits", "ibma")
    content = read_json(paths.choice("split_digits", "ibma"), {})
    assert len(content["scores"]) == 4 and len(content["choices"]) == 1
    assert {row["fold"] for row in content["scores"]} == {0, 1}


def test_a_store_of_ones_own_is_made_and_one_that_cannot_be_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("IBMA_STORE", str(tmp_path / "shared/store"))
    assert paths.store().is_dir()
    (tmp_path / "file").touch()
    for place in (tmp_path / "file/store", Path("/proc/ibma")):
        monkeypatch.setenv("IBMA_STORE", str(place))
        with pytest.raises(IbmaError, match=f"IBMA_STORE: {place}: expected a folder, none can"):
            paths.kept("ab")
