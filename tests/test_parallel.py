"""Two processes leave the record of one; shares, weights and refusals.

The two processes run this file as a script, which trains one seed over a store that is there.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ibma.datasets import Card, Counts, Sample
from ibma.errors import IbmaError
from ibma.features import store
from ibma.features.extract import extract
from ibma.network import distributed
from ibma.network.centroids import Assignment, write_all
from ibma.training import loop
from ibma.training.loop import Cell, Setting

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
    cell = cell_over(root, "ibma")
    write_all(cell.features, cell.task, ENCODERS, Assignment(), 3, cell.centroids)


def cell_over(root: Path, method: str, **options: str) -> Cell:
    return Cell(
        "twin",
        "fake",
        method,
        method,
        {},
        ENCODERS,
        4,
        16,
        16,
        2,
        Assignment(),
        store.Features(root / "store"),
        root / "centroids",
        torch.device("cpu"),
        **options,
    )


def train_seed(root: Path, method: str, refresh: str, into: str) -> None:
    torch.set_num_threads(1)
    cell = cell_over(root, method, refresh=refresh)
    out = root / into
    loop.run_seed(cell, 0, Setting(1e-3, 1e-5, 0.5), out / "runs", out / "models", out / "scratch")


def in_two_processes(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    command = (*launcher, "--nproc-per-node", "2", __file__, str(root), *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def numbers(value: object, path: str = "") -> dict[str, float]:
    """Every number of a record by its place."""
    if isinstance(value, dict):
        return {k: v for key, x in value.items() for k, v in numbers(x, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, x in enumerate(value) for k, v in numbers(x, f"{path}/{i}").items()}
    return {path: float(value)} if isinstance(value, int | float) else {}


@pytest.mark.parametrize("refresh", ["epoch", "pass"])
def test_two_processes_leave_the_record_of_one(tmp_path, refresh):
    write_store(tmp_path)
    train_seed(tmp_path, "ibma", refresh, "one")
    done = in_two_processes(tmp_path, "ibma", refresh, "two")
    assert done.returncode == 0, done.stderr
    one, two = (
        json.loads((tmp_path / name / "runs/seed_0.json").read_text()) for name in ("one", "two")
    )
    assert two.pop("volatile")["processes"] == 2 and one.pop("volatile")["processes"] == 1
    assert one["key"] == two["key"]
    assert numbers(two) == pytest.approx(numbers(one), abs=1e-5)
    weights = [torch.load(tmp_path / name / "models/seed_0.pt") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()


def test_without_learning_both_refreshes_agree(tmp_path):
    """At lr 0 the epoch's own features are those of a pass after it."""
    write_store(tmp_path)
    states = []
    for refresh in ("epoch", "pass"):
        cell = cell_over(tmp_path, "ibma", refresh=refresh)
        setting = Setting(0.0, 0.0, 0.5)
        rows = cell.features.training(0)
        model = cell.build(0, setting, 3, seed=0)
        settings = {"seed": 0, "epochs": 3, "batch_size": 15, "device": cell.device}
        fit = loop.Fit(model, rows, setting, **settings)
        fit.run("x")
        model.eval()
        with torch.no_grad():
            model.before_epoch(3, fit.evaluation_batches)
        states.append((model.state_dict(), fit.history))
    (one, history), (other, same) = states
    kept = [name for name in one if name.startswith(("bound.centroids", "bound.q"))]
    assert len(kept) == 6
    for name in kept:
        torch.testing.assert_close(one[name], other[name])
        assert one[name].std() > 0
    assert numbers(history) == pytest.approx(numbers(same), abs=1e-5)


def test_what_several_processes_cannot_do_is_refused(tmp_path):
    write_store(tmp_path)
    done = in_two_processes(tmp_path, "refused", "epoch", "two")
    assert done.returncode == 0, done.stderr
    assert "refused: inner network" in done.stdout


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
    rows = make_cell().features.training(0)
    placed = rows.features.on(torch.device("cpu"))
    parts = [distributed.share(batch) for batch in rows.shuffled(16, 0, 0)]
    streamed = store.Streamed(placed.x, placed.y)
    for one, other in zip(placed.load(parts), streamed.load(parts), strict=True):
        assert torch.equal(one.index, other.index) and torch.equal(one.y, other.y)
        assert all(torch.equal(one.x[name], other.x[name]) for name in one.x)


def refusals(root: Path) -> None:
    """In two processes: an inner optimiser is refused in one line."""
    cell = cell_over(root, "ibma")
    cell = Cell(**{**vars(cell), "hparams": {"bound": "club"}})
    setting = Setting(1e-3, 1e-5, 0.5)
    model = cell.build(0, setting, 1, seed=0)
    try:
        loop.distribute(loop.Objective(model, cell.device, False), cell.device)
    except IbmaError as error:
        assert "inner network" in str(error)
        print("refused: inner network")
    model.inner = None
    model.batch_statistics = torch.nn.BatchNorm1d(2)
    try:
        loop.distribute(loop.Objective(model, cell.device, False), cell.device)
    except IbmaError as error:
        assert "batch statistics" in str(error)
    else:
        raise AssertionError("batch statistics were not refused")


if __name__ == "__main__":
    distributed.begin()
    place, what, how, target = sys.argv[1:]
    if what == "refused":
        refusals(Path(place))
    else:
        train_seed(Path(place), what, how, target)
