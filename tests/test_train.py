"""The loop: determinism, exact resume, kept seeds, refused NaN, full disk."""

import errno
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from ibma import files
from ibma.errors import IbmaError
from ibma.files import write_json
from ibma.methods import ibma as ibma_method
from ibma.training import loop, record
from ibma.training.loop import Setting

SETTING = Setting(lr=1e-3, weight_decay=1e-5, eta=0.5)


def run(cell, root, seed=0, setting=SETTING):
    return loop.run_seed(cell, seed, setting, root / "runs", root / "models", root / "scratch")


def stable(result) -> str:
    content = asdict(result)
    content.pop("volatile")
    return json.dumps(content)


@pytest.mark.parametrize("kind", ["classify", "multilabel"])
@pytest.mark.parametrize("modalities", [2, 3])
def test_same_seed_same_record_and_better_than_chance(make_cell, tmp_path, kind, modalities):
    cell = make_cell(kind, modalities, epochs=15)
    first = run(cell, tmp_path / "a")
    assert stable(first) == stable(run(cell, tmp_path / "b"))
    assert first.metrics[cell.task.selection] > 0.6
    assert set(first.ib) == {
        *cell.features.modalities,
        "fused",
        *(f"u/{name}" for name in cell.features.modalities),
    }
    pairs = modalities * (modalities - 1)
    assert sum(name.startswith("ibb/") for name in first.history) == pairs + 1


def test_finished_seed_is_kept_and_a_new_key_retrains(make_cell, tmp_path):
    cell = make_cell()
    assert run(cell, tmp_path) is not None
    assert run(cell, tmp_path) is None
    assert run(cell, tmp_path, seed=1) is not None
    assert run(cell, tmp_path, setting=replace(SETTING, eta=0.3)).params["eta"] == 0.3


def test_a_killed_run_resumes_to_the_same_record(make_cell, tmp_path, monkeypatch):
    cell = make_cell(epochs=5)
    expected = stable(run(cell, tmp_path / "undisturbed"))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    one_epoch = loop.Fit._one_epoch

    def dies_in_epoch_4(fit):
        if fit.epoch == 3:
            raise KeyboardInterrupt
        return one_epoch(fit)

    monkeypatch.setattr(loop.Fit, "_one_epoch", dies_in_epoch_4)
    with pytest.raises(KeyboardInterrupt):
        run(cell, tmp_path / "killed")
    assert (tmp_path / "killed/scratch/seed_0.pt").exists()
    resumed = []
    monkeypatch.setattr(
        loop.Fit, "_one_epoch", lambda fit: resumed.append(fit.epoch) or one_epoch(fit)
    )
    assert stable(run(cell, tmp_path / "killed")) == expected
    assert resumed == [3, 4]
    assert not (tmp_path / "killed/scratch/seed_0.pt").exists()


def test_a_damaged_checkpoint_only_costs_time(make_cell, tmp_path):
    cell = make_cell()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/seed_0.pt").write_bytes(b"half a file")
    assert run(cell, tmp_path) is not None


def test_nan_loss_names_the_term_and_keeps_finished_seeds(make_cell, tmp_path, monkeypatch):
    cell = make_cell()
    run(cell, tmp_path)
    monkeypatch.setattr(
        ibma_method.Model,
        "losses",
        lambda self, out, batch: {"ce/fused": out.logits.sum() * float("nan")},
    )
    with pytest.raises(
        IbmaError, match=r"fake ibma seed 1: loss term 'ce/fused' is nan in epoch 1"
    ):
        run(cell, tmp_path, seed=1)
    assert (tmp_path / "runs/seed_0.json").exists()
    assert not (tmp_path / "runs/seed_1.json").exists()


def test_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "seed_0.pt"
    loop.save_atomically({"epoch": 1}, path)

    def full(state, target):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(IbmaError, match="free disk space and run again"):
        loop.save_atomically({"epoch": 2}, path)
    monkeypatch.undo()
    assert torch.load(path)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["seed_0.pt"]


def test_full_disk_keeps_the_old_record(tmp_path, monkeypatch):
    write_json(tmp_path / "seed_0.json", {"a": 1})
    monkeypatch.setattr(
        files.os,
        "fsync",
        lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")),
    )
    with pytest.raises(OSError):
        write_json(tmp_path / "seed_0.json", {"a": 2})
    assert json.loads((tmp_path / "seed_0.json").read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_order_of_samples_is_a_function_of_seed_and_epoch(make_cell):
    rows = make_cell().features.training(0)

    def order(seed, epoch):
        return np.concatenate(rows.shuffled(16, seed, epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) and order(0, 0) != order(1, 0)
    assert sorted(order(0, 0)) == rows.index.tolist()


def test_run_k_tests_on_fold_k_mod_folds(make_cell, tmp_path):
    cell = make_cell(folds=3)
    records = [run(cell, tmp_path, seed=seed) for seed in range(4)]
    assert [r.fold for r in records] == [0, 1, 2, 0]
    test = set(cell.features.test(1).index)
    assert test.isdisjoint(cell.features.training(1).index)


def test_a_compiled_network_is_the_one_that_trains(make_cell, tmp_path, monkeypatch):
    """What torch.compile returns is called; the record stays the same."""
    compiled = []

    def compile_(model):
        compiled.append(model)
        return lambda x: model(x)

    plain = run(make_cell(), tmp_path / "plain")
    monkeypatch.setattr(torch, "compile", compile_)
    other = run(replace(make_cell(), compile=True), tmp_path / "compiled")
    assert len(compiled) == 1
    assert stable(replace(other, key="")) == stable(replace(plain, key=""))


def test_ib_losses_before_training_are_those_of_the_untrained_network(make_cell, tmp_path):
    """They do not depend on how long it trains; after training they are others."""
    short, long = (run(make_cell(epochs=n), tmp_path / str(n)) for n in (1, 12))
    assert short.ib_before == long.ib_before and set(long.ib_before) == set(long.ib)
    assert short.ib != long.ib and long.ib["fused"] != long.ib_before["fused"]


def test_unknown_device_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(IbmaError, match="cuda asked for, none found"):
        loop.device("cuda")


def test_a_file_that_is_no_record_is_named(tmp_path):
    (tmp_path / "seed_0.json").write_text("{}")
    with pytest.raises(IbmaError, match="seed_0.json: not a record"):
        record.read(tmp_path / "seed_0.json")
