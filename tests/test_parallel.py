"""Two processes leave the record of one; shares, weights and refusals.

The two processes run this file as a script, which trains over a store that is there.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import cell_over
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ibma.datasets import Card, Counts, Sample
from ibma.errors import IbmaError
from ibma.features import store
from ibma.features.extract import extract
from ibma.network import distributed
from ibma.network.centroids import Assignment, write_all
from ibma.network.method import Method
from ibma.training import loop, run
from ibma.training.cell import Cell, Setting

CPU = torch.device("cpu")
REFRESHES = ("epoch", "pass")
ENCODERS = {  # networks without batch statistics and without noise
    "image": {
        "name": "vit",
        "size": 16,
        "patch_size": 8,
        "hidden_size": 16,
        "layers": 1,
        "heads": 2,
    },
    "text": {
        "name": "bert",
        "vocab_size": 16,
        "max_length": 4,
        "hidden_size": 16,
        "layers": 1,
        "heads": 2,
        "dropout": 0.0,
    },
}


def write_store(root: Path) -> None:
    """45 training rows: batches of 16 leave one of 13, whose halves are unequal."""
    card = Card(
        title="fake",
        kind="multilabel",
        classes=("a", "b", "c"),
        modalities={"image": "image", "text": "text"},
        licence="none",
        access="builtin",
        official=Counts(45, 18),
        cite="none",
    )

    def samples(raw, *, on_bad="stop"):
        rng = np.random.default_rng(0)
        for i in range(63):
            label = tuple(int(v) for v in rng.integers(0, 2, 3))
            picture = rng.integers(0, 100, (3, 16, 16)) + 100 * np.array(label)[:, None, None]
            words = np.array([*(1 + 2 * i + v for i, v in enumerate(label)), 0], dtype=np.int32)
            parts = {"image": picture.astype(np.uint8), "text": words}
            yield Sample(f"s{i}", "train" if i < 45 else "test", f"g{i}", label, parts)

    dataset = SimpleNamespace(CARD=card, FILES=(), samples=samples)
    entry = {"dataset": "fake", "options": {}, "features": {}}
    extract("fake", entry, dataset, root, root / "store", lambda kind, part, params: part)
    cell = cell_of(root, "ibma")
    write_all(cell.open(), cell.problem(), ENCODERS, Assignment(), 3, cell.centroids)


def cell_of(root: Path, method: str, **fields: object) -> Cell:
    return cell_over(root / "store", method, ENCODERS, epochs=4, **fields)


def train_seed(root: Path, refresh: str, into: str) -> None:
    cell = cell_of(root, "ibma", refresh=refresh)
    finished = run.train_run(cell, 0, Setting(1e-3, 1e-5, 0.5), quiet=True)
    if distributed.rank() == 0:
        (root / f"{into}.safetensors").write_bytes(finished.weights)
        finished.record.write(root / f"{into}.json")


def in_two_processes(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this file in two processes; checkpoints are written below `root`."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    command = (*launcher, "--nproc-per-node", "2", __file__, str(root), *arguments)
    source = {"PYTHONPATH": str(Path(distributed.__file__).parents[2])}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=root, env=os.environ | source
    )


def numbers(value: object, path: str = "") -> dict[str, float]:
    """Every number of a record by its place."""
    if isinstance(value, dict):
        return {k: v for key, x in value.items() for k, v in numbers(x, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, x in enumerate(value) for k, v in numbers(x, f"{path}/{i}").items()}
    return {path: float(value)} if isinstance(value, int | float) else {}


@pytest.mark.slow
def test_two_processes_leave_the_record_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path)
    done = in_two_processes(tmp_path, *REFRESHES)
    assert done.returncode == 0, done.stderr
    for refresh in REFRESHES:
        train_seed(tmp_path, refresh, f"{refresh}_1")
        names = [f"{refresh}_{processes}" for processes in (1, 2)]
        one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in names)
        assert two.pop("provenance")["processes"] == 2 and one.pop("provenance")["processes"] == 1
        assert one["key"] == two["key"]
        assert numbers(two) == pytest.approx(numbers(one), abs=1e-5)
        weights = [load_file(tmp_path / f"{name}.safetensors") for name in names]
        assert weights[0].keys() == weights[1].keys()


def test_without_learning_both_refreshes_agree(tmp_path):
    """At lr 0 the epoch's own features are those of a pass after it."""
    write_store(tmp_path)
    states = []
    for refresh in REFRESHES:
        cell = cell_of(tmp_path, "ibma", refresh=refresh)
        setting = Setting(0.0, 0.0, 0.5)
        model = cell.build(0, setting, 3, seed=0, on=CPU)
        settings = {"seed": 0, "epochs": 3, "batch_size": 15, "device": CPU, "quiet": True}
        fit = loop.Fit(model, cell.training(0, CPU), setting, **settings)
        fit.run("x")
        fit.refresh()
        states.append((model.state_dict(), fit.history))
    (one, history), (other, same) = states
    kept = [name for name in one if name.startswith(("bound.centroids", "bound.q"))]
    assert len(kept) == 6
    for name in kept:
        torch.testing.assert_close(one[name], other[name])
        assert one[name].std() > 0
    assert numbers(history) == pytest.approx(numbers(same), abs=1e-5)


@pytest.mark.slow
def test_what_several_processes_cannot_do_is_refused(tmp_path):
    write_store(tmp_path)
    done = in_two_processes(tmp_path, "refused")
    assert done.returncode == 0, done.stderr
    assert "refused: inner network" in done.stdout and "refused: samples" in done.stdout
    assert "trained: omib 2" in done.stdout


@given(st.integers(1, 50), st.integers(1, 8))
def test_weighted_shares_add_up_to_the_mean(rows, processes):
    values = np.arange(rows, dtype=np.float64) ** 2
    index = np.arange(rows)
    total = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "world", lambda: processes)
        for rank in range(processes):
            patch.setattr(distributed, "rank", lambda rank=rank: rank)
            own, weight = distributed.share(index)
            assert len(own)
            total += weight * values[own].mean() / processes
    assert total == pytest.approx(values.mean())


def test_one_process_is_left_alone():
    distributed.begin()
    assert (distributed.world(), distributed.rank()) == (1, 0)
    value = torch.arange(3)
    distributed.add_up([value])
    assert distributed.gather(value) is value and value.tolist() == [0, 1, 2]


def test_streamed_batches_are_the_resident_ones(make_cell):
    rows = make_cell().open().training(0)
    placed = rows.features.on(CPU)
    parts = [distributed.share(batch) for batch in rows.shuffled(16, 0, 0)]
    streamed = store.Streamed(placed.x, placed.y)
    for one, other in zip(placed.load(parts), streamed.load(parts), strict=True):
        assert torch.equal(one.index, other.index) and torch.equal(one.y, other.y)
        assert all(torch.equal(one.x[name], other.x[name]) for name in one.x)


def refusal_of(model: Method, features: store.Features) -> str:
    with pytest.raises(IbmaError) as caught:
        loop.distribute(loop.Objective(model, False, None), features, CPU)
    return str(caught.value)


def refusals(root: Path) -> None:
    """In two processes: what they cannot do exactly is refused in one line each."""
    cell = cell_of(root, "ibma", hparams={"bound": "club"})
    model = cell.build(0, Setting(1e-3, 1e-5, 0.5), 1, seed=0, on=CPU)
    lacking = replace(cell.open(), present={"a": np.zeros(1, dtype=bool)})
    assert "lack a modality" in refusal_of(model, lacking)
    assert "inner network" in refusal_of(model, cell.open())
    print("refused: inner network")
    model.inner = None
    assert "compares the samples" in refusal_of(model, cell.open())
    print("refused: samples")
    model.compares_samples = False
    model.batch_statistics = torch.nn.BatchNorm1d(2)
    assert "batch statistics" in refusal_of(model, cell.open())
    # its warm-up leaves parameters without a gradient, which DDP must be told
    sizes = {"seed": 0, "epochs": 2, "batch_size": 16, "device": CPU, "quiet": True}
    setting, cell = Setting(1e-3, 1e-5, None), cell_of(root, "omib")
    model = cell.build(0, setting, 2, seed=0, on=CPU)
    model.compares_samples = False
    fit = loop.Fit(model, cell.training(0, CPU), setting, **sizes)
    fit.run("omib")
    print("trained: omib", fit.epoch)


if __name__ == "__main__":
    distributed.begin()
    root = Path(sys.argv[1])
    for what in sys.argv[2:]:
        if what == "refused":
            refusals(root)
        else:
            train_seed(root, what, f"{what}_2")
