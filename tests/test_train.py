"""One run: what its record holds, exact resume, refused NaN, what a batch carries."""

import errno
import json
import threading
from dataclasses import asdict, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from problems import Problem

from ibma import pretrained
from ibma.errors import IbmaError
from ibma.methods import ibma as ibma_method
from ibma.training import checkpoint, loop, record, run
from ibma.training.cell import Cell, Setting
from ibma.training.checkpoint import Checkpoint

SETTING = Setting(lr=1e-3, weight_decay=1e-5, eta=0.5)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def in_a_fresh_folder(tmp_path, monkeypatch):
    """Checkpoints are written below the working folder."""
    monkeypatch.chdir(tmp_path)


def train(cell, seed=0, setting=SETTING):
    return run.train_run(cell, seed, setting, quiet=True).record


def stable(one) -> str:
    content = asdict(one)
    for name in ("provenance", "digest"):
        content.pop(name)
    return json.dumps(content)


@pytest.mark.parametrize(("kind", "modalities"), [("classify", 2), ("multilabel", 3)])
def test_a_record_has_an_ib_loss_of_every_modality_and_a_bound_of_every_pair(
    make_cell, kind, modalities
):
    cell = make_cell(kind, modalities, epochs=1)
    one, names = train(cell), cell.open().modalities
    assert set(one.ib) == {*names, "fused", *(f"u/{name}" for name in names)}
    pairs = {f"ibb/{a}|{b}" for a, b in permutations(names, 2)}
    assert {name for name in one.history if name.startswith("ibb/")} == {*pairs, "ibb/fused"}


@pytest.mark.parametrize("method", ["ibma", "omib"])  # the second draws noise in every step
def test_a_killed_run_resumes_to_the_same_record(make_cell, monkeypatch, method):
    cell = make_cell(method=method, epochs=5)
    expected = stable(train(cell))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    one_epoch = loop.Fit._one_epoch

    def dies_in_epoch_4(fit):
        if fit.epoch == 3:
            raise KeyboardInterrupt
        return one_epoch(fit)

    monkeypatch.setattr(loop.Fit, "_one_epoch", dies_in_epoch_4)
    with pytest.raises(KeyboardInterrupt):
        train(cell)
    key = cell.key(0, SETTING, run.environment(cell))
    assert run.checkpoint(key).exists()
    resumed = []
    monkeypatch.setattr(
        loop.Fit, "_one_epoch", lambda fit: resumed.append(fit.epoch) or one_epoch(fit)
    )
    assert stable(train(cell)) == expected
    assert resumed == [3, 4]
    run.forget(key)
    assert not run.checkpoint(key).exists()


def test_a_damaged_checkpoint_only_costs_time(make_cell, monkeypatch):
    """Whatever byte of it is wrong, wherever it ends, and whichever run wrote it."""
    cell = make_cell(epochs=2)
    expected = stable(train(cell))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    train(cell)
    path = run.checkpoint(cell.key(0, SETTING, run.environment(cell)))
    whole = path.read_bytes()
    damaged = [b"", b"half a file", whole[: len(whole) // 2]]
    for place in np.linspace(0, len(whole) - 1, 40).astype(int):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        assert Checkpoint(path, path.stem).read() is None
    assert stable(train(cell)) == expected
    path.write_bytes(whole)
    assert Checkpoint(path, "another key").read() is None
    assert Checkpoint(path, path.stem).read()["epoch"] == 2


def test_a_checkpoint_is_what_the_state_was_when_it_was_taken(tmp_path, monkeypatch):
    """A thread writes it while training changes the state."""
    may_write, write = threading.Event(), checkpoint._write

    def waits(state, path):
        may_write.wait()
        write(state, path)

    monkeypatch.setattr(checkpoint, "_write", waits)
    one = Checkpoint(tmp_path / "state.pt", "k")
    weights = torch.zeros(3)
    one.write({"weights": {"w": weights}, "history": [1.0], "groups": [{"betas": (0.9, 0.999)}]})
    weights += 1
    assert not (tmp_path / "state.pt").exists(), "training goes on meanwhile"
    may_write.set()
    one.close()
    state = Checkpoint(tmp_path / "state.pt", "k").read()
    assert state["weights"]["w"].tolist() == [0, 0, 0]
    assert state["groups"] == [{"betas": (0.9, 0.999)}] and state["history"] == [1.0]


def test_full_disk_keeps_the_old_checkpoint_and_stops_at_the_next(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    one = Checkpoint(path, "k")
    one.write({"epoch": 1})
    one._writing.result()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    one.write({"epoch": 2})
    with pytest.raises(IbmaError, match="free disk space and run again"):
        one.write({"epoch": 3})
    one.close()
    assert Checkpoint(path, "k").read() == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def test_what_a_kill_left_of_a_checkpoint_is_deleted_with_it(tmp_path):
    for name in ("state.pt", "state.part"):
        (tmp_path / name).touch()
    Checkpoint(tmp_path / "state.pt", "k").forget()
    assert not list(tmp_path.iterdir())


def test_nan_loss_names_the_term(make_cell, monkeypatch):
    monkeypatch.setattr(
        ibma_method.Model,
        "losses",
        lambda self, out, batch: {"ce/fused": out.logits.sum() * float("nan")},
    )
    named = r"fake ibma seed 1: loss term 'ce/fused' is nan in epoch 1"
    with pytest.raises(IbmaError, match=named):
        train(make_cell(), seed=1)


def test_a_step_is_one_of_adam_with_its_rate_and_weight_decay():
    setting, batch = Setting(0.01, 0.3, None), next(Problem().rows(CPU).batches(16, CPU))
    model, other = (Problem().network("concat", 1) for _ in range(2))
    sizes = {"epochs": 1, "batch_size": 16, "device": CPU, "quiet": True}
    fit = loop.Fit(model, Problem().rows(CPU), setting, seed=0, **sizes)
    adam = torch.optim.Adam(other.parameters(), lr=0.01, weight_decay=0.3)
    for _ in range(3):
        fit.step(batch)
        adam.zero_grad()
        other.losses(other(batch.x), batch)["task"].backward()
        adam.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_epoch_is_prepared_in_evaluation_mode_and_told_as_a_mean_over_samples(monkeypatch):
    """The last batch is smaller: 44 rows are five batches of eight and one of four."""
    fit, modes, steps = Problem().fit("ce3", CPU, epochs=2, lr=0.01), [], []
    step, model = fit.step, fit.model
    monkeypatch.setattr(model, "before_epoch", lambda *_: modes.append(model.training))

    def watched(batch, *first):
        modes.append(model.training)
        result = step(batch, *first)
        steps.append((len(batch.y), dict(zip(result.names, result.values.tolist(), strict=True))))
        return result

    monkeypatch.setattr(fit, "step", watched)
    fit.run("test")
    assert modes == 2 * [False, *6 * [True]] and [n for n, _ in steps] == 2 * [*5 * [8], 4]
    for name, values in fit.history.items():
        totals = [sum(n * terms[name] for n, terms in steps[k : k + 6]) for k in (0, 6)]
        assert values == pytest.approx([total / 44 for total in totals])


def test_order_of_samples_is_a_function_of_seed_and_epoch(make_cell):
    rows = make_cell().open().training(0)

    def order(seed, epoch):
        return np.concatenate(rows.shuffled(16, seed, epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) and order(0, 0) != order(1, 0)
    assert sorted(order(0, 0)) == rows.index.tolist()


@pytest.mark.parametrize("kind", ["classify", "one_class"])
def test_a_batch_carries_its_rows_of_what_the_centroid_stage_wrote(make_cell, kind):
    cell = make_cell(kind)
    inputs, rows = cell.inputs(0), cell.training(0, CPU)
    previous = rows.previous_labels()
    batches = rows.shuffled(16, 0, 0)
    for index, batch in zip(batches, rows.load([(b, 1.0) for b in batches], CPU), strict=True):
        assert batch.index.tolist() == index.tolist()
        assert set(batch.phi_x) == set(batch.inputs) == set(batch.x) == set(inputs.phi)
        for name in batch.x:
            assert torch.equal(batch.phi_x[name], inputs.phi[name][index])
            expected = inputs.vectors[name][torch.from_numpy(index)]
            assert torch.equal(batch.inputs[name], expected)
        torch.testing.assert_close(batch.previous, previous[index], equal_nan=True)
        if kind == "one_class":
            assert torch.equal(batch.pseudo, inputs.pseudo[index])
        else:
            assert batch.pseudo is None


def test_folds_inside_training_keep_what_batches_carry(make_cell):
    rows = make_cell().training(0, CPU)
    for learn, judge in rows.hold_outs(3):
        assert learn.tables is rows.tables
        assert set(learn.index) | set(judge.index) == set(rows.index)


def test_run_k_tests_on_fold_k_mod_folds(make_cell):
    cell = make_cell(folds=3, epochs=1)
    assert [train(cell, seed=seed).fold for seed in range(4)] == [0, 1, 2, 0]
    test = set(cell.open().test(1).index)
    assert test.isdisjoint(cell.open().training(1).index)


def test_a_compiled_network_is_the_one_that_trains(make_cell, monkeypatch):
    """What torch.compile returns is called; the record stays the same."""
    compiled, called = [], set()

    def compile_(forward, dynamic):
        compiled.append(forward)
        return lambda x: called.add(forward) or forward(x)

    plain = train(make_cell())
    monkeypatch.setattr(torch, "compile", compile_)
    other = train(replace(make_cell(), compile=True))
    assert len(compiled) == 1 and called == set(compiled)
    assert stable(replace(other, key="")) == stable(replace(plain, key=""))


def test_ib_losses_before_training_are_those_of_the_untrained_network(make_cell, monkeypatch):
    """They do not depend on how long it trains; after training they are others."""
    short, long = (train(make_cell(epochs=n)) for n in (1, 12))
    assert short.ib_before == long.ib_before and set(long.ib_before) == set(long.ib)
    assert short.ib != long.ib and long.ib["fused"] != long.ib_before["fused"]
    cell, said = make_cell(epochs=1), make_cell().meta
    monkeypatch.setattr(Cell, "meta", {**said, "source": "twin"})
    twin = train(cell)
    assert (twin.ib_before, twin.ib) == ({}, short.ib), "no table reads a twin's"


def test_unknown_device_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(IbmaError, match="cuda asked for, none found"):
        loop.select_device("cuda")


def test_a_record_counts_parameters_and_the_operations_of_a_prediction(make_cell):
    """Concat by hand: two encoders 3 -> 16 -> 16 and a head 32 -> 3; two flops a multiply-add."""
    model = {method: train(make_cell(method=method, epochs=1)) for method in ("concat", "ibma")}
    products = 2 * (3 * 16 + 16 * 16) + 32 * 3
    cost = model["concat"].cost
    assert cost["flops"] == 2 * products
    assert cost["parameters"] == cost["trained"] == products + 2 * (16 + 16) + 3
    attention = 2 * (4 * 16 * 16 + 2 * 4 * 16 * 16)  # of two tokens: projections and MLP
    assert model["ibma"].cost["flops"] > 2 * (products + attention)


def test_the_number_of_pseudo_classes_is_part_of_the_key_of_one_class_data(make_cell):
    around = record.Environment(device="cpu", instructions="portable", threads=1)
    for kind, parts in (("one_class", 2), ("classify", 1)):
        cells = [replace(make_cell(kind), pseudo_classes=count) for count in (3, 4)]
        assert len({cell.key(0, SETTING, around) for cell in cells}) == parts


def test_the_code_of_a_method_that_is_extended_counts():
    files = [file.as_posix() for file in record.code_files("beta_tuned")]
    for part in ("methods/beta_tuned.py", "methods/ibma/ibb.py", "network/method.py"):
        assert sum(file.endswith(part) for file in files) == 1
    assert not any("methods/omib" in file for file in files)


def test_weights_in_a_local_folder_are_part_of_the_key(make_cell, tmp_path):
    folder, keys = tmp_path / "weights", set()
    cell = replace(make_cell(), encoders={"view0": {"name": "vit", "pretrained": str(folder)}})
    assert "pretrained" not in run.environment(cell)  # a hub id
    folder.mkdir()
    for content in (b"one", b"other"):
        pretrained.digest.cache_clear()
        (folder / "model.safetensors").write_bytes(content)
        keys.add(cell.key(0, SETTING, run.environment(cell)))
    assert len(keys) == 2
