"""Features on disk, memory-mapped, and the batches that training sees.

A folder `data/features/<task>/` holds one `<modality>.npy` per modality, `index.csv` (id, split,
group, label, dialogue), `dropped.csv` (id, reason) and `meta.json`. Rows keep the order of
`samples()`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibma.errors import IbmaError


@dataclass(frozen=True)
class Batch:
    """x: modality -> [B, ...]; y: labels as the loss takes them; index: rows of the store."""

    x: dict[str, Tensor]
    y: Tensor
    index: Tensor


@dataclass(frozen=True)
class StoredModality:
    """kind: see `datasets.ModalityKind`; shape and dtype of one example."""

    kind: str
    shape: tuple[int, ...]
    dtype: str


class Features:
    """The opened feature store of one task."""

    def __init__(self, folder: Path) -> None:
        """Raises IbmaError when the folder was never written, or says why it is empty."""
        meta_file = folder / "meta.json"
        if not meta_file.exists():
            raise IbmaError(f"{meta_file}: no features here: run `dvc repro extract` first")
        self.meta: dict[str, Any] = json.loads(meta_file.read_text())
        if "missing" in self.meta:
            raise IbmaError(f"{folder}: {self.meta['missing']}")
        self.modalities = {
            name: StoredModality(m["kind"], tuple(m["shape"]), m["dtype"])
            for name, m in self.meta["modalities"].items()
        }
        self.arrays: dict[str, NDArray[Any]] = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in self.modalities
        }
        with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.ids = [row["id"] for row in rows]
        self.groups = np.array([row["group"] for row in rows])
        self.splits = np.array([row["split"] for row in rows])
        self.labels = np.array([[float(v) for v in row["label"].split()] for row in rows])
        self.dialogues = np.array([row["dialogue"] for row in rows])

    def training(self, run: int) -> TrainingSet:
        """What run `run` may learn from: all but the test split (or test fold run mod folds)."""
        return TrainingSet(self, np.flatnonzero(~np.isin(self.splits, self._held_out(run))))

    def test(self, run: int) -> TestSet:
        """What run `run` is judged on."""
        return TestSet(self, np.flatnonzero(self.splits == self._held_out(run)[0]))

    def everything(self) -> Rows:
        """Every row, for label-free work (phi of the inputs)."""
        return Rows(self, np.arange(len(self.ids)))

    def fold(self, run: int) -> int | None:
        """The test fold of a run, None for a data set with a fixed split."""
        return run % self.meta["folds"] if self.meta["folds"] else None

    def _held_out(self, run: int) -> list[str]:
        fold = self.fold(run)
        return ["test", "valid"] if fold is None else [f"fold{fold}"]


@dataclass(frozen=True)
class Rows:
    """Some rows of a feature store."""

    features: Features
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> Batch:
        """Load the given store rows as one batch on `device`."""
        x = {
            name: torch.from_numpy(np.ascontiguousarray(array[rows])).to(device)
            for name, array in self.features.arrays.items()
        }
        y = label_tensor(self.features.meta["kind"], self.features.labels[rows])
        return Batch(x, y.to(device), torch.from_numpy(rows))

    def batches(self, size: int, device: torch.device) -> Iterator[Batch]:
        """Walk the rows in store order."""
        for start in range(0, len(self.index), size):
            yield self.batch(self.index[start : start + size], device)

    def labels(self) -> Tensor:
        """All labels of these rows."""
        return label_tensor(self.features.meta["kind"], self.features.labels[self.index])

    def groups(self) -> NDArray[np.str_]:
        """The group of each of these rows."""
        return self.features.groups[self.index]


class TestSet(Rows):
    """Rows that metrics are computed on. Nothing that chooses takes this type."""

    __test__ = False  # the name is not a pytest class


class TrainingSet(Rows):
    """Rows that may be learnt from. It cannot reach a test row: it holds its own index only."""

    def shuffled(self, size: int, device: torch.device, seed: int, epoch: int) -> Iterator[Batch]:
        """Batches in an order that is a pure function of (seed, epoch).

        A last batch of one sample is left out: batch statistics do not exist for it, and another
        sample is left out in the next epoch.
        """
        order = np.random.default_rng((seed, epoch)).permutation(self.index)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            if len(rows) > 1:
                yield self.batch(rows, device)

    def previous_labels(self) -> Tensor | None:
        """The label of the utterance before each row of the store, [n]; None without dialogues.

        NaN for the first utterance of a dialogue and for rows outside this training split.
        """
        dialogues = self.features.dialogues
        if not any(dialogues):
            return None
        said: dict[str, float] = {}
        before = torch.full((len(dialogues),), torch.nan)
        for row in self.index:
            before[row] = said.get(dialogues[row], torch.nan)
            said[dialogues[row]] = float(self.features.labels[row, 0])
        return before

    def hold_outs(self, folds: int, seed: int = 0) -> Iterator[tuple[TrainingSet, HoldOut]]:
        """Cross-validation inside training: stratified by label, groups never split.

        Multi-label data is stratified by the full label combination, scores by the nearest integer.
        Where there are fewer groups than folds (IEMOCAP: four sessions), each group is a fold.
        """
        from sklearn.model_selection import StratifiedGroupKFold

        labels = self.features.labels[self.index]
        strata = np.unique(np.round(labels), axis=0, return_inverse=True)[1].ravel()
        groups = self.groups()
        splits = min(folds, len(np.unique(groups)))
        splitter = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
        for learn, judge in splitter.split(labels, strata, groups):
            yield (
                TrainingSet(self.features, self.index[learn]),
                HoldOut(self.features, self.index[judge]),
            )


class HoldOut(Rows):
    """Rows of train that a fold of the tuning stage is scored on."""


def label_tensor(kind: str, labels: NDArray[np.float64]) -> Tensor:
    """Labels as the task's loss takes them.

    int64 [n]; float [n, C] for multi-label; float [n] for sentiment scores.
    """
    y = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    if kind == "multilabel":
        return y
    return y[:, 0] if kind == "sentiment" else y[:, 0].long()
