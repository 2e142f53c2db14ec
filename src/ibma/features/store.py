"""Features on disk, memory-mapped, and the batches that training sees.

A folder `data/features/<task>/` holds one `<modality>.npy` per modality, `index.csv` (id, split,
group, label, dialogue), `dropped.csv` (id, reason) and `meta.json`. Rows keep the order of
`samples()`.
"""

from __future__ import annotations

import csv
import functools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibma.errors import IbmaError
from ibma.network import distributed

RESIDENT_SHARE = 0.5  # of a GPU's free memory that features may take, the rest is the network's
AHEAD = 2  # batches that are read while the GPU works


@dataclass(frozen=True)
class Batch:
    """x: modality -> [B, ...]; y: labels as the loss takes them; index: rows of the store.

    All on one device. weight: of this process's mean loss, see `distributed.share`; 0 for rows that
    only stand in.
    """

    x: dict[str, Tensor]
    y: Tensor
    index: Tensor
    weight: float = 1.0


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
            # copy-on-write, which torch takes without a copy; nothing ever writes
            name: np.load(folder / f"{name}.npy", mmap_mode="c")
            for name in self.modalities
        }
        with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.ids = [row["id"] for row in rows]
        self.groups = np.array([row["group"] for row in rows])
        self.splits = np.array([row["split"] for row in rows])
        self.labels = np.array([[float(v) for v in row["label"].split()] for row in rows])
        self.dialogues = np.array([row["dialogue"] for row in rows])
        self._placed: dict[torch.device, Placed] = {}

    def on(self, device: torch.device) -> Placed:
        """The features as `device` reads them."""
        if device not in self._placed:
            mapped = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
            y = label_tensor(self.meta["kind"], self.labels).to(device)
            if device.type == "cuda" and not _fit(mapped, device):
                self._placed[device] = Streamed(mapped, y)
            else:  # on the CPU the memory map itself
                x = {name: value.to(device) for name, value in mapped.items()}
                self._placed[device] = Placed(x, y)
        return self._placed[device]

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


def opened(folder: Path) -> Features:
    """Open a feature store; a process keeps the last ones open until they are made anew."""
    meta = folder / "meta.json"
    return _opened(folder, meta.stat().st_mtime_ns if meta.exists() else 0)


@functools.lru_cache(maxsize=2)
def _opened(folder: Path, _: int) -> Features:
    return Features(folder)


def _fit(x: Mapping[str, Tensor], device: torch.device) -> bool:
    """Whether features may stay in the memory of a GPU."""
    free, _ = torch.cuda.mem_get_info(device)
    return sum(value.nbytes for value in x.values()) <= RESIDENT_SHARE * free


@dataclass(frozen=True)
class Placed:
    """Features where they are read without another copy: on the GPU, or in the CPU's memory map.

    x: modality -> [n, ...] as stored (uint8 stays uint8). y: [n, ...].
    """

    x: Mapping[str, Tensor]
    y: Tensor

    def load(self, parts: Iterable[tuple[NDArray[np.int64], float]]) -> Iterator[Batch]:
        """One batch per pair of store rows and weight, on the device of `y`."""
        for rows, weight in parts:
            index = torch.from_numpy(rows).to(self.y.device, non_blocking=True)
            x = {name: value.index_select(0, index) for name, value in self.x.items()}
            yield Batch(x, self.y[index], index, weight)


@dataclass(frozen=True)
class Streamed(Placed):
    """Features that do not fit on the GPU: read ahead into pinned memory, copied beside the work.

    x: on the CPU. y: on the GPU.
    """

    def load(self, parts: Iterable[tuple[NDArray[np.int64], float]]) -> Iterator[Batch]:
        """As `Placed.load`; a thread reads up to `AHEAD` batches before they are asked for."""
        copies = None
        if self.y.is_cuda:
            copies = torch.cuda.Stream(self.y.device)  # type: ignore[no-untyped-call]
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1) as reader:
            for rows, weight in parts:
                waiting.append(reader.submit(self._read, rows, weight, copies))
                if len(waiting) > AHEAD:
                    yield self._arrived(waiting.popleft().result(), copies)
            while waiting:
                yield self._arrived(waiting.popleft().result(), copies)

    def _read(
        self, rows: NDArray[np.int64], weight: float, copies: torch.cuda.Stream | None
    ) -> Batch:
        index = torch.from_numpy(rows)
        x = {name: value.index_select(0, index) for name, value in self.x.items()}
        if copies is None:
            return Batch(x, self.y[index], index, weight)
        with torch.cuda.stream(copies):
            there = index.pin_memory().to(self.y.device, non_blocking=True)
            x = {n: v.pin_memory().to(self.y.device, non_blocking=True) for n, v in x.items()}
            return Batch(x, self.y[there], there, weight)

    def _arrived(self, batch: Batch, copies: torch.cuda.Stream | None) -> Batch:
        """Let the work wait for the copies, and the copies' memory for the work."""
        if copies is not None:
            work = torch.cuda.current_stream(self.y.device)
            work.wait_stream(copies)
            for value in (*batch.x.values(), batch.y, batch.index):
                value.record_stream(work)
        return batch


@dataclass(frozen=True)
class Rows:
    """Some rows of a feature store."""

    features: Features
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def batches(self, size: int, device: torch.device) -> Iterator[Batch]:
        """Walk the rows in store order."""
        starts = range(0, len(self.index), size)
        parts = ((self.index[start : start + size], 1.0) for start in starts)
        return self.features.on(device).load(parts)

    def mine(self) -> Self:
        """This process's share of the rows, see `distributed.mine`."""
        return replace(self, index=distributed.mine(self.index))

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

    def shuffled(self, size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
        """Store rows of each batch of an epoch, a pure function of (seed, epoch).

        A last batch of one sample is left out: batch statistics do not exist for it, and another
        sample is left out in the next epoch.
        """
        order = np.random.default_rng((seed, epoch)).permutation(self.index)
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        return [rows for rows in batches if len(rows) > 1]

    def load(self, batches: Sequence[NDArray[np.int64]], device: torch.device) -> Iterator[Batch]:
        """This process's shares of some batches, in order."""
        return self.features.on(device).load(map(distributed.share, batches))

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
