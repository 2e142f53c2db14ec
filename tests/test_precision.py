"""What a GPU does, on the CPU: bfloat16, steps that never wait, texts of their own length."""

import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import cell_over
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ibma import methods
from ibma.datasets import Card, Counts, Sample
from ibma.features import store
from ibma.features.extract import extract
from ibma.features.store import Placed, Streamed
from ibma.methods.ibma import bound_names
from ibma.network import method as method_module
from ibma.network import tasks
from ibma.network.centroids import Assignment, write_all
from ibma.training import loop
from ibma.training.cell import Cell, Setting

CPU = torch.device("cpu")
METHODS = [*methods.names(), *(f"ibma_{bound}" for bound in bound_names() if bound != "ibb")]
LENGTH = 24
ENCODERS = {
    "audio": {"name": "resnet", "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]},
    "image": {"name": "vit", "patch_size": 8, "hidden_size": 16, "layers": 1, "heads": 2},
    "text": {"name": "bert", "vocab_size": 32, "max_length": LENGTH, "hidden_size": 16}
    | {"layers": 1, "heads": 2, "dropout": 0.0},
}


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """Features of 60 sounds, pictures and texts in three classes."""
    root = tmp_path_factory.mktemp("media")
    kinds = {"audio": "audio", "image": "image", "text": "text"}
    card = Card(
        title="fake", kind="classify", classes=("a", "b", "c"), modalities=kinds, licence="none",
        access="builtin", official=Counts(44, 16), cite="none",
    )  # fmt: skip

    def samples(raw, *, on_bad="stop") -> Iterator[Sample]:
        random = np.random.default_rng(0)
        for i in range(60):
            words = np.zeros(LENGTH, np.int32)
            length = random.integers(0, LENGTH + 1)
            words[:length] = random.integers(1, 32, length)
            parts = {
                "audio": (random.normal(size=(8, 12)) + i % 3).astype(np.float16),
                "image": (random.integers(0, 100, (3, 16, 16)) + 50 * (i % 3)).astype(np.uint8),
                "text": words,
            }
            yield Sample(f"s{i}", "train" if i < 44 else "test", f"g{i}", i % 3, parts)

    entry = {"dataset": "fake", "options": {}, "features": {}}
    dataset = SimpleNamespace(CARD=card, FILES=(), samples=samples)
    extract("fake", entry, dataset, root, root / "store", lambda kind, part, params: part)
    cell = cell_over(root / "store", "ibma", ENCODERS)
    write_all(cell.open(), cell.problem(), ENCODERS, Assignment(), 3, cell.centroids)
    return root / "store"


def cell_of(folder: Path, method: str) -> Cell:
    bound = {"bound": method.removeprefix("ibma_")} if method.startswith("ibma_") else {}
    return cell_over(folder, "ibma" if bound else method, ENCODERS, hparams=bound)


def fit_of(cell: Cell, *, lr=1e-4, epochs=2, **options) -> loop.Fit:
    setting = Setting(lr, 1e-5, 0.5)
    model = cell.build(0, setting, epochs, seed=0, on=CPU)
    fixed = {"seed": 0, "epochs": epochs, "batch_size": 8, "device": CPU, "quiet": True}
    return loop.Fit(model, cell.training(0, CPU), setting, **(fixed | options))


def history(cell: Cell, precision: torch.dtype | None, **options) -> dict[str, list[float]]:
    fit = fit_of(cell, precision=precision, **options)
    fit.run("test")
    return fit.history


def worst(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> float:
    """Largest difference in hundredths; terms near zero, differences of larger ones, get 1e-3."""
    assert ours.keys() == theirs.keys()
    a, b = (np.array(list(one.values())) for one in (ours, theirs))
    return float((np.abs(a - b) / (0.01 * np.abs(b) + 1e-3)).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_history_in_bfloat16_is_within_one_percent_of_float32(make_cell, media, method):
    cells = [make_cell(kind, 3) for kind in ("classify", "multilabel", "one_class")]
    one = cell_of(media, method)
    for cell in (one, *(replaced(cell, one) for cell in cells)):
        found = worst(history(cell, torch.bfloat16), history(cell, torch.float32))
        assert found < 1, f"{cell.features.name}: {found:.2f} %"


def replaced(cell: Cell, one: Cell) -> Cell:
    return cell_over(cell.features, one.method, dict(cell.encoders), hparams=one.hparams, epochs=2)


def test_the_one_percent_would_catch_losses_in_bfloat16(make_cell, monkeypatch):
    """In many small steps sums in bfloat16 stop growing."""
    cell = replaced(make_cell("classify", 3), cell_over(Path(), "ce3", {}))
    full, half = (history(cell, each, batch_size=2) for each in (torch.float32, torch.bfloat16))
    assert worst(half, full) < 1
    monkeypatch.setattr(method_module.Output, "float", lambda out: out)
    monkeypatch.setattr(tasks.Head, "forward", nn.Linear.forward)
    assert worst(history(cell, torch.bfloat16, batch_size=2), full) > 1


def test_passes_before_an_epoch_run_in_the_networks_precision(make_cell):
    fit = fit_of(make_cell("one_class"), precision=torch.bfloat16)
    kinds: list[torch.dtype] = []
    layer = fit.model.encoders["view0"].projection
    layer.register_forward_hook(lambda _, __, out: kinds.append(out.dtype))
    loop.centre_spheres(fit.model.eval(), fit.outputs())
    assert set(kinds) == {torch.bfloat16}
    kinds.clear()
    fit.refresh()
    assert set(kinds) == {torch.bfloat16}
    assert fit.model.bound.get_buffer("centroids_view0").abs().sum() > 0
    loop.predict(fit.model, make_cell("one_class").open().test(0), CPU, torch.bfloat16)
    assert set(kinds) == {torch.bfloat16}


class HostReads(TorchDispatchMode):
    """Note who reads a tensor's value on the host; on a GPU each would wait for it."""

    # F.one_hot checks its range on the CPU only; the inner Adam counts its steps on the CPU
    HARMLESS = ("one_hot", "torch/optim/adam.py")

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, lists = str(function), [a for a in args if isinstance(a, list | tuple)]
        by_mask = name.startswith("aten.index.") and any(
            isinstance(one, Tensor) and one.dtype == torch.bool for each in lists for one in each
        )
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique")
        if by_mask or any(each in name for each in waits):
            stack = traceback.format_stack()
            if not any(each in line for line in stack for each in self.HARMLESS):
                self.found.add(f"{name}: {stack[-2]}")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", METHODS)
def test_a_step_never_reads_a_tensor_on_the_host(make_cell, media, method):
    one = cell_of(media, method)
    cells = [replaced(make_cell(kind), one) for kind in ("classify", "multilabel", "one_class")]
    for cell in (one, *cells):
        fit = fit_of(cell, epochs=2)
        fit.run("test")  # into the last phase of every method
        fit.model.train()
        batch = next(fit.rows.batches(16, CPU))
        with HostReads() as reads:
            fit.step(batch)
        assert not reads.found, f"{cell.features.name}: {reads.found}"


def test_a_read_on_the_host_is_noticed():
    with HostReads() as reads:
        float(torch.ones(3).sum())
    assert len(reads.found) == 1


def test_texts_are_cut_to_the_longest_of_their_batch(media):
    features = store.opened(media)
    whole = features.on(CPU)
    ids = torch.from_numpy(np.array(features.arrays["text"]))
    lengths = features.lengths["text"]
    assert lengths.tolist() == [int(row.nonzero().max()) + 1 if row.any() else 0 for row in ids]
    parts = [(rows, 1.0) for rows in features.training(0).shuffled(8, 0, 0)]
    for placed in (Placed(whole.x, whole.y, features.lengths), Streamed(*vars(whole).values())):
        placed = type(placed)(whole.x, whole.y, features.lengths)
        for (rows, _), short, full in zip(
            parts, placed.load(parts), whole.load(parts), strict=True
        ):
            width = short.x["text"].shape[1]
            assert width % store.WIDTHS == 0 and width - lengths[rows].max() < store.WIDTHS
            assert torch.equal(short.x["text"], full.x["text"][:, :width])
            assert not full.x["text"][:, width:].any()
            assert torch.equal(short.x["image"], full.x["image"])


def test_cut_texts_give_the_same_history(media, monkeypatch):
    """Without dropout; its masks depend on shapes."""
    cell = cell_of(media, "ibma")
    full = history(cell, None)
    features = store.opened(media)
    whole = features.on(CPU)
    short = Placed(whole.x, whole.y, features.lengths)
    monkeypatch.setitem(features._placed, CPU, short)
    for name, values in history(cell, None).items():
        assert values == pytest.approx(full[name], rel=1e-4, abs=1e-5), name


def test_batches_by_length_hold_every_row_and_less_padding(media, make_cell):
    rows = store.opened(media).training(0)
    lengths = store.opened(media).lengths["text"]

    def padding(batches):
        return sum(int((lengths[one].max() - lengths[one]).sum()) for one in batches)

    plain, by_length = rows.shuffled(4, 0, 0), rows.shuffled(4, 0, 0, by_length=True)
    assert sorted(np.concatenate(by_length)) == sorted(np.concatenate(plain)) == list(rows.index)
    assert padding(by_length) < 0.5 * padding(plain)
    again, other = (rows.shuffled(4, 0, epoch, by_length=True) for epoch in (0, 1))
    assert all(map(np.array_equal, by_length, again))
    assert not all(map(np.array_equal, by_length, other))
    longest = [int(lengths[one].max()) for one in by_length]
    assert longest != sorted(longest), "batches are shuffled again"
    vectors = make_cell().open().training(0)
    same = zip(vectors.shuffled(16, 0, 0), vectors.shuffled(16, 0, 0, by_length=True), strict=True)
    assert all(np.array_equal(a, b) for a, b in same), "without texts the order stays"


def test_training_and_benchmarks_share_one_setup():
    for compiled, deterministic in ((False, False), (True, True), (False, True)):
        loop.configure_torch(1, compiled, deterministic)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.backends.cudnn.benchmark is not deterministic
        assert torch.get_num_threads() == 1
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
