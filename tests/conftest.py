"""A tiny two-view problem, stored as the extract stage stores it."""
# ruff: noqa: E402

import functools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from ibma.params import hold_to

hold_to("portable")  # before numpy and torch load: processes that tests start compute alike

import numpy as np
import pytest

from ibma.datasets import Card, Counts, Dataset, Dropped, Sample
from ibma.network.centroids import Assignment, write_all
from ibma.training.cell import Cell
from ibma.training.loop import configure_torch

ENCODER = {"name": "mlp", "hidden": [16]}
SIZES = {  # of the tiny networks that tests train
    "batch_size": 16,
    "width": 16,
    "heads": 2,
    "phi": "unit",
    "beta": 1.0,
    "refresh": "epoch",
    "compile": False,
    "device": "cpu",
}
KINDS = ("classify", "multilabel", "one_class", "sentiment")
CLASSES = {"one_class": ("normal", "anomalous")}


def fake_dataset(kind: str = "classify", modalities: int = 2, folds: int = 0) -> Dataset:
    """72 samples of 12 groups whose views are noisy one-hot labels.

    One-class: three clusters of normal samples, and anomalies in test that are far and disagree.
    """
    names = [f"view{m}" for m in range(modalities)]
    card = Card(
        title="fake",
        kind=kind,
        classes=CLASSES.get(kind, ("a", "b", "c")),
        modalities=dict.fromkeys(names, "vector"),
        licence="none",
        access="builtin",
        official=Counts(48, 24),
        cite="none",
        folds=folds,
    )

    def samples(raw: Path, *, on_bad: str = "stop") -> Iterator[Sample | Dropped]:
        rng = np.random.default_rng(0)
        for i in range(72):
            y = rng.integers(0, 2, 3) if kind == "multilabel" else np.eye(3, dtype=int)[i % 3]
            split = f"fold{i % folds}" if folds else ("test" if i % 3 == (i // 9) % 3 else "train")
            odd = kind == "one_class" and split == "test" and i % 2 == 0
            parts = {
                name: tuple(np.roll(y, m * odd) + (2.0 if odd else 0.4) * rng.normal(size=3))
                for m, name in enumerate(names)
            }
            label: int | float | tuple[int, ...] = int(y.argmax())
            if kind == "multilabel":
                label = tuple(int(v) for v in y)
            elif kind == "sentiment":
                label = float(y.argmax() - 1) * 0.8
            elif kind == "one_class":
                label = int(odd)
            group = f"g{i % folds}_{i % 4}" if folds else f"g{i % 12}"
            if kind == "one_class":
                group = f"slice{i // 36}"
            yield Sample(f"s{i}", split, group, label, parts, dialogue=group)
        yield Dropped("broken", "for the test")

    return SimpleNamespace(CARD=card, FILES=(), samples=samples)  # type: ignore[return-value]


def vector(kind: str, part: object, params: object) -> np.ndarray:
    return np.asarray(part, dtype=np.float32)


def cell_over(folder: Path, method: str, encoders: dict[str, dict[str, object]], **more) -> Cell:
    """A cell of task `fake` over the features in a folder; `more` are fields of `Cell`."""
    fields = SIZES | {
        "profile": "twin",
        "stage": "train",
        "task": "fake",
        "method": method,
        "method_file": method,
        "hparams": {},
        "encoders": encoders,
        "epochs": 3,
        "features": folder,
        "centroids": folder / "centroids",
    }
    return Cell(**(fields | more))


@pytest.fixture(scope="session")
def fake_store(tmp_path_factory: pytest.TempPathFactory):
    """Write the store of a fake data set once: fake_store(kind, modalities, folds)."""
    from ibma.features.extract import extract  # a bare machine with a GPU lacks what it needs

    root = tmp_path_factory.mktemp("fake")

    @functools.cache
    def write(kind: str, modalities: int, folds: int) -> Path:
        folder = root / f"{kind}{modalities}{folds}"
        entry = {"dataset": "fake", "options": {}, "features": {}}
        extract("fake", entry, fake_dataset(kind, modalities, folds), root, folder, vector)
        encoders = {f"view{m}": ENCODER for m in range(modalities)}
        cell = cell_over(folder, "ibma", encoders)
        write_all(cell.open(), cell.problem(), encoders, Assignment(), 3, cell.centroids)
        return folder

    return write


@pytest.fixture
def make_cell(fake_store):
    """Build a Cell over a fake store: make_cell(kind=..., modalities=..., method=...).

    All tests read the same stores: none may write into them.
    """

    def make(
        kind: str = "classify",
        modalities: int = 2,
        folds: int = 0,
        method: str = "ibma",
        epochs: int = 3,
        **hparams: object,
    ) -> Cell:
        configure_torch(1, compiled=False)
        encoders = {f"view{m}": ENCODER for m in range(modalities)}
        folder = fake_store(kind, modalities, folds)
        return cell_over(folder, method, encoders, hparams=hparams, epochs=epochs)

    return make
