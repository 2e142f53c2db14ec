"""Read stored features, memory-mapped, and load the batches that training sees.

A task's folder of features holds one `<modality>.npy` per modality, `index.csv` (id, split, group,
label, dialogue, and which modalities the sample lacks), `dropped.csv` (id, reason) and `meta.json`.
Rows keep the order of `samples()`.
This module knows nothing of networks: what a run adds to its batches, it gets as tables of rows.
"""

from __future__ import annotations

import csv
import functools
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibma.features import meta as described
from ibma.files import required
from ibma.paths import META

RESIDENT_SHARE = 0.5  # of a GPU's free memory that features may take, the rest is the network's
PRESENT = "present/"  # followed by a modality: which samples have it
AHEAD = 2  # batches that are read while the GPU works
WIDTHS = 16  # texts are cut to a multiple of this: few shapes, and aligned ones
POOL = 50  # batches among whose rows texts of like length are put together


class Table(Protocol):
    """Something with one entry per row of a feature store."""

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """Return the entries of some rows: [B] -> [B, ...]."""
        ...


class RowsOf(Mapping[str, Tensor]):
    """Read some rows of named tables, each table only when it is asked for.

    Most methods read none of them, so that a step pays for what its method reads.
    """

    def __init__(self, tables: Mapping[str, Table], index: Tensor) -> None:
        self._tables, self._index = tables, index

    def __getitem__(self, name: str) -> Tensor:
        """Return the rows of one table."""
        return self._tables[name][self._index]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the tables."""
        return iter(self._tables)

    def __len__(self) -> int:
        """Return the number of tables."""
        return len(self._tables)


@dataclass(frozen=True)
class Batch:
    """Some samples and what is known of each; all tensors on one device.

    Args:
        x: modality -> [B, ...]; `present/<modality>` -> whether each sample has it, bool [B], where
            some lack it (their entries of the modality mean nothing).
        y: labels as the task's loss takes them.
        index: rows of the store, [B].
        weight: of this process's mean loss, see `network.distributed.share`; 0 for rows that only
            stand in.
        phi_x: modality -> phi(X), the soft assignments of the inputs, [B, G, K].
        inputs: modality -> X as standardised vectors, [B, R].
        pseudo: one-hot pseudo-classes of one-class data, [B, K].
        previous: label of the utterance before each sample in its dialogue, [B], NaN for none;
            None where the data has no dialogues.
    """

    x: Mapping[str, Tensor]
    y: Tensor
    index: Tensor
    weight: float = 1.0
    phi_x: Mapping[str, Tensor] = field(default_factory=dict)
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    pseudo: Tensor | None = None
    previous: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """Return the tensors that make the batch; `phi_x` and `inputs` are read by its index."""
        rest = (self.y, self.index, self.pseudo, self.previous)
        return [*self.x.values(), *(value for value in rest if value is not None)]


@dataclass(frozen=True)
class Tables:
    """What a run knows of every row of the store besides its features; all on one device.

    Args:
        phi_x: modality -> [n, G, K].
        inputs: modality -> a table of [R] per row.
        pseudo: [n, K], None where labels serve.
        previous: [n], None where the data has no dialogues.
    """

    phi_x: Mapping[str, Tensor] = field(default_factory=dict)
    inputs: Mapping[str, Table] = field(default_factory=dict)
    pseudo: Tensor | None = None
    previous: Tensor | None = None

    def join(self, batch: Batch) -> Batch:
        """Return the batch with its rows of the tables."""
        return replace(
            batch,
            phi_x=RowsOf(self.phi_x, batch.index),
            inputs=RowsOf(self.inputs, batch.index),
            pseudo=None if self.pseudo is None else self.pseudo[batch.index],
            previous=None if self.previous is None else self.previous[batch.index],
        )


@dataclass(frozen=True)
class StoredModality:
    """How a modality is stored: kind (`datasets.ModalityKind`), shape and type of an example."""

    kind: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(eq=False)
class Features:
    """The features of one task: opened from a folder, or made of arrays in memory.

    Args:
        meta: kind, classes and folds of the task, as in `meta.json`.
        modalities: name -> how it is stored.
        arrays: modality -> examples, [n, ...].
        labels: [n, C]; one column unless there are several labels.
        ids, groups, splits, dialogues: of each sample, [n].
        present: modality -> whether each sample has it, bool [n], where some lack it.
    """

    meta: Mapping[str, Any]
    modalities: Mapping[str, StoredModality]
    arrays: Mapping[str, NDArray[Any]]
    labels: NDArray[np.float64]
    ids: Sequence[str]
    groups: NDArray[np.str_]
    splits: NDArray[np.str_]
    dialogues: NDArray[np.str_]
    present: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    _placed: dict[torch.device, Placed] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: Path) -> Features:
        """Open the feature store of a task.

        Raises:
            IbmaError: the folder was never written, says why it is empty, or holds a file that is
                not the one that was written.
        """
        meta = described.read(folder)
        remedy = f"delete {folder} and run `dvc repro extract@{folder.name}`"
        for name, digest in meta["sha256"].items():
            required(folder / name, digest, remedy)
        modalities = {
            name: StoredModality(m["kind"], tuple(m["shape"]), m["dtype"])
            for name, m in meta["modalities"].items()
        }
        with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        lacking = {name: [name in row["lacks"].split() for row in rows] for name in modalities}
        return cls(
            meta=meta,
            modalities=modalities,
            # copy-on-write, which torch takes without a copy; nothing ever writes
            arrays={name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in modalities},
            labels=np.array([[float(v) for v in row["label"].split()] for row in rows]),
            ids=[row["id"] for row in rows],
            groups=np.array([row["group"] for row in rows]),
            splits=np.array([row["split"] for row in rows]),
            dialogues=np.array([row["dialogue"] for row in rows]),
            present={name: ~np.array(each) for name, each in lacking.items() if any(each)},
        )

    def on(self, device: torch.device) -> Placed:
        """Return the features as a device reads them; they are placed there once.

        A GPU gets texts cut to the longest of a batch. The CPU gets them as they are stored: the
        masks of dropout depend on shapes, and records of the CPU are to keep their bytes.
        """
        if device not in self._placed:
            mapped = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
            mapped |= {f"{PRESENT}{n}": torch.from_numpy(mask) for n, mask in self.present.items()}
            y = label_tensor(self.meta["kind"], self.labels).to(device)
            lengths = self.lengths if device.type == "cuda" else {}
            if device.type == "cuda" and not _fit(mapped, device):
                self._placed[device] = Streamed(mapped, y, lengths)
            else:  # on the CPU the memory map itself
                x = {name: value.to(device) for name, value in mapped.items()}
                self._placed[device] = Placed(x, y, lengths)
        return self._placed[device]

    @functools.cached_property
    def lengths(self) -> dict[str, NDArray[np.int64]]:
        """Return text modality -> number of ids before the padding at the end of each row, [n]."""
        return {
            name: np.concatenate([_lengths(rows) for rows in _slices(self.arrays[name])])
            for name, modality in self.modalities.items()
            if modality.kind == "text"
        }

    def training(self, run: int) -> TrainingSet:
        """Return the rows that a run may learn from: all but its test split or test fold."""
        return TrainingSet(self, np.flatnonzero(~np.isin(self.splits, self._held_out(run))))

    def test(self, run: int) -> TestSet:
        """Return the rows that a run is judged on."""
        return TestSet(self, np.flatnonzero(self.splits == self._held_out(run)[0]))

    def everything(self) -> Rows:
        """Return every row, for work that reads no label (phi of the inputs)."""
        return Rows(self, np.arange(len(self.ids)))

    def having(self, index: NDArray[np.int64], *names: str) -> NDArray[np.int64]:
        """Return those of some rows whose samples have all of some modalities."""
        kept = np.ones(len(index), dtype=bool)
        for name in names:
            if name in self.present:
                kept &= self.present[name][index]
        return index[kept]

    def fold(self, run: int) -> int | None:
        """Return the test fold of a run, None for a data set with a fixed split."""
        return run % self.meta["folds"] if self.meta["folds"] else None

    def _held_out(self, run: int) -> list[str]:
        fold = self.fold(run)
        return ["test", "valid"] if fold is None else [f"fold{fold}"]


def opened(folder: Path) -> Features:
    """Open a feature store; a process keeps the last ones open until they are made anew."""
    meta = folder / META
    return _opened(folder, meta.stat().st_mtime_ns if meta.exists() else 0)


@functools.lru_cache(maxsize=2)
def _opened(folder: Path, _: int) -> Features:
    return Features.read(folder)


def _slices(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (array[start : start + 4096] for start in range(0, len(array), 4096))


def _lengths(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return one more than the place of the last id that is not 0, for each row of [n, L]."""
    places = np.arange(1, ids.shape[1] + 1)
    return np.asarray(((ids != 0) * places).max(1), dtype=np.int64)


def _fit(x: Mapping[str, Tensor], device: torch.device) -> bool:
    """Tell whether features may stay in the memory of a GPU."""
    free, _ = torch.cuda.mem_get_info(device)
    return sum(value.nbytes for value in x.values()) <= RESIDENT_SHARE * free


@dataclass(frozen=True)
class Placed:
    """Features where they are read without another copy: on the GPU, or in the CPU's memory map.

    Args:
        x: modality -> [n, ...] as stored (uint8 stays uint8).
        y: labels, [n, ...].
        lengths: modality -> ids of each row, [n], of texts that batches cut to their longest. They
            are the host's, which never waits for a GPU to read them.
    """

    x: Mapping[str, Tensor]
    y: Tensor
    lengths: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def load(self, parts: Iterable[tuple[NDArray[np.int64], float]]) -> Iterator[Batch]:
        """Yield one batch per pair of store rows and weight, on the device of `y`."""
        for rows, weight in parts:
            index = torch.from_numpy(rows).to(self.y.device, non_blocking=True)
            yield Batch(self.select(rows, index), self.y[index], index, weight)

    def select(self, rows: NDArray[np.int64], index: Tensor) -> dict[str, Tensor]:
        """Return some rows of every modality.

        Args:
            index: the same as `rows`, on the device of `x`.
        """
        x = dict(self.x)
        for name, lengths in self.lengths.items():
            longest = max(int(lengths[rows].max()), 1)
            x[name] = x[name][:, : -(-longest // WIDTHS) * WIDTHS]
        return {name: value.index_select(0, index) for name, value in x.items()}


Arriving = tuple[Batch, torch.cuda.Event | None]  # a batch, and what says that it was copied


@dataclass(frozen=True)
class Streamed(Placed):
    """Features that do not fit on the GPU: read ahead and copied while the GPU computes.

    Args:
        x: on the CPU.
        y: on the GPU.
    """

    def load(self, parts: Iterable[tuple[NDArray[np.int64], float]]) -> Iterator[Batch]:
        """Yield the batches of `Placed.load`; a thread reads up to `AHEAD` of them in advance."""
        copies = None
        if self.y.is_cuda:
            copies = torch.cuda.Stream(self.y.device)  # type: ignore[no-untyped-call]
        waiting: deque[Future[Arriving]] = deque()
        with ThreadPoolExecutor(1) as reader:
            for rows, weight in parts:
                waiting.append(reader.submit(self._read, rows, weight, copies))
                if len(waiting) > AHEAD:
                    yield self._arrived(*waiting.popleft().result())
            while waiting:
                yield self._arrived(*waiting.popleft().result())

    def _read(
        self, rows: NDArray[np.int64], weight: float, copies: torch.cuda.Stream | None
    ) -> Arriving:
        index = torch.from_numpy(rows)
        x = self.select(rows, index)
        if copies is None:
            return Batch(x, self.y[index], index, weight), None
        with torch.cuda.stream(copies):
            there = index.pin_memory().to(self.y.device, non_blocking=True)
            x = {n: v.pin_memory().to(self.y.device, non_blocking=True) for n, v in x.items()}
            batch = Batch(x, self.y[there], there, weight)
            return batch, copies.record_event()

    def _arrived(self, batch: Batch, copied: torch.cuda.Event | None) -> Batch:
        """Make the compute stream wait for the copies; keep copied tensors alive until used."""
        if copied is not None:
            work = torch.cuda.current_stream(self.y.device)
            work.wait_event(copied)
            for value in (*batch.x.values(), batch.y, batch.index):
                value.record_stream(work)
        return batch


@dataclass(frozen=True)
class Rows:
    """Some rows of a feature store.

    Args:
        index: their places in the store.
        tables: what batches of them carry besides features and labels.
    """

    features: Features
    index: NDArray[np.int64]
    tables: Tables = field(default_factory=Tables)

    def __len__(self) -> int:
        return len(self.index)

    def load(
        self, parts: Iterable[tuple[NDArray[np.int64], float]], device: torch.device
    ) -> Iterator[Batch]:
        """Yield one batch per pair of store rows and weight; all rows are among these."""
        return map(self.tables.join, self.features.on(device).load(parts))

    def batches(self, size: int, device: torch.device) -> Iterator[Batch]:
        """Yield all rows in the order of `index`, `size` at a time."""
        starts = range(0, len(self.index), size)
        return self.load(((self.index[start : start + size], 1.0) for start in starts), device)

    def taking(self, index: NDArray[np.int64]) -> Self:
        """Return some of the rows, with the same tables."""
        return replace(self, index=index)

    def joined(self, tables: Tables) -> Self:
        """Return the same rows, whose batches carry their rows of some tables."""
        return replace(self, tables=tables)

    def labels(self) -> Tensor:
        """Return the labels of these rows as the task's loss takes them."""
        return label_tensor(self.features.meta["kind"], self.features.labels[self.index])

    def groups(self) -> NDArray[np.str_]:
        """Return the group of each of these rows."""
        return self.features.groups[self.index]


class TestSet(Rows):
    """Rows that metrics are computed on; nothing that chooses takes this type."""

    __test__ = False  # the name is not a pytest class


class TrainingSet(Rows):
    """Rows that may be learnt from. It cannot reach a test row: it holds its own index only."""

    def shuffled(
        self, size: int, seed: int, epoch: int, by_length: bool = False
    ) -> list[NDArray[np.int64]]:
        """Return the store rows of each batch of an epoch, a pure function of (seed, epoch).

        A last batch of one sample is left out: batch statistics do not exist for it, and another
        sample is left out in the next epoch.

        Args:
            by_length: put texts of like length together, so that less of a batch is padding: the
                rows of `POOL` batches are sorted by length, and all batches are shuffled again.
                Data without texts keeps its order.
        """
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(self.index)
        if not by_length or not self.features.lengths:
            return _batches(order, size)
        length = np.sum(list(self.features.lengths.values()), axis=0)
        pools = [order[start : start + POOL * size] for start in range(0, len(order), POOL * size)]
        sorted_pools = [pool[np.argsort(length[pool], kind="stable")] for pool in pools]
        batches = [rows for pool in sorted_pools for rows in _batches(pool, size)]
        return [batches[place] for place in random.permutation(len(batches))]

    def previous_labels(self) -> Tensor | None:
        """Return the label of the utterance before each row of the store, [n].

        None for data without dialogues; NaN for the first utterance of a dialogue and for rows
        outside this training split.
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
        """Yield the folds of a cross-validation, stratified by label; groups are never split.

        Multi-label data is stratified by the full label combination, scores by the nearest integer.
        Where there are fewer groups than folds (IEMOCAP: four sessions), each group is a fold. Of a
        class with fewer rows than folds some folds hold nothing out.
        """
        from sklearn.model_selection import StratifiedGroupKFold

        labels = self.features.labels[self.index]
        strata = np.unique(np.round(labels), axis=0, return_inverse=True)[1].ravel()
        groups = self.groups()
        splits = min(folds, len(np.unique(groups)))
        splitter = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of rare classes, see above
            parts = list(splitter.split(labels, strata, groups))
        for learn, judge in parts:
            yield self.taking(self.index[learn]), HoldOut(self.features, self.index[judge])


def _batches(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return [rows for rows in batches if len(rows) > 1]


class HoldOut(Rows):
    """Rows of train that a fold of the tuning stage is scored on."""


def label_tensor(kind: str, labels: NDArray[np.float64]) -> Tensor:
    """Return labels as the task's loss takes them.

    They are int64 [n]; float [n, C] for multi-label data; float [n] for sentiment scores.
    """
    y = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    if kind == "multilabel":
        return y
    return y[:, 0] if kind == "sentiment" else y[:, 0].long()
