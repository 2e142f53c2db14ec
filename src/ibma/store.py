"""Features on disk, memory-mapped, and the batches that training sees.

A folder `data/features/<task>/` holds one `<modality>.npy` per modality, `index.csv` (id, split,
group, label, dialogue), `dropped.csv` (id, reason) and `meta.json`. Rows keep the order of
`samples()`.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibma.datasets import TWIN_MARKER, Card, Dataset, Dropped, Part, Sample
from ibma.errors import IbmaError

Compute = Callable[[str, Part, Mapping[str, Any]], NDArray[Any]]


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
        """Raises IbmaError when the folder was never written."""
        meta_file = folder / "meta.json"
        if not meta_file.exists():
            raise IbmaError(f"{meta_file}: no features here: run `dvc repro extract` first")
        self.meta: dict[str, Any] = json.loads(meta_file.read_text())
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


# --- writing -------------------------------------------------------------------------------------


def extract(
    task: str, entry: Mapping[str, Any], dataset: Dataset, raw: Path, out: Path, compute: Compute
) -> None:
    """Compute and store the features of one task (stage `extract`), streaming over samples.

    `entry` is `tasks.<task>` of params.yaml. Samples are listed first (labels and paths only);
    features are then written row by row into memory maps, so memory does not grow with their size.

    Raises IbmaError on a bad sample unless the task says `on_bad: drop`.
    """
    card = dataset.CARD
    options = {**entry.get("options", {}), "on_bad": entry.get("on_bad", "stop")}
    listed = _listed(dataset, raw, task, options)
    dropped = [sample for sample in listed if isinstance(sample, Dropped)]
    samples = [sample for sample in listed if isinstance(sample, Sample)]
    if not samples:
        raise IbmaError(
            f"{raw}: data set '{entry['dataset']}' has no usable sample: check the files"
        )
    out.mkdir(parents=True, exist_ok=True)
    kept, broken = _write_arrays(samples, card, entry, out, compute)
    dropped += broken
    _write_csv(out / "dropped.csv", ["id", "reason"], [[d.id, d.reason] for d in dropped])
    _write_csv(
        out / "index.csv",
        ["id", "split", "group", "label", "dialogue"],
        [[s.id, s.split, s.group, _label_text(s, card), s.dialogue] for s in kept],
    )
    shapes = {name: np.load(out / f"{name}.npy", mmap_mode="r") for name in card.modalities}
    meta = {
        "digest": _digest(out, [*(f"{name}.npy" for name in card.modalities), "index.csv"]),
        "task": task,
        "dataset": entry["dataset"],
        "source": "twin" if (raw / TWIN_MARKER).exists() else "real",
        "kind": card.kind,
        "classes": list(card.classes),
        "folds": card.folds,
        "modalities": {
            name: {
                "kind": card.modalities[name],
                "shape": list(array.shape[1:]),
                "dtype": str(array.dtype),
                "file": f"{name}.npy",
            }
            for name, array in shapes.items()
        },
        "counts": dict(sorted(Counter(s.split for s in kept).items())),
        "dropped": len(dropped),
        "absent": {
            name: sum(sample.parts[name] is None for sample in kept) for name in card.modalities
        },
    }
    (out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


def _listed(
    dataset: Dataset, raw: Path, task: str, options: Mapping[str, Any]
) -> list[Sample | Dropped]:
    try:
        return list(dataset.samples(raw, **options))
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise IbmaError(
            f"params.yaml: tasks.{task}.options: {error}: remove or correct it"
        ) from None


def _digest(folder: Path, names: Sequence[str]) -> str:
    """sha256 over the files in order: the data part of a record's key."""
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _label_text(sample: Sample, card: Card) -> str:
    values = sample.label if isinstance(sample.label, tuple) else (sample.label,)
    low, high = _label_range(card)
    for value in values:
        if not low <= value <= high:
            raise IbmaError(
                f"sample {sample.id}: label {value} is outside {low}..{high}: "
                "correct the label file"
            )
    return " ".join(str(value) for value in values)


def _label_range(card: Card) -> tuple[int, int]:
    """Smallest and largest label of a data set."""
    if card.kind == "sentiment":
        bound = (len(card.classes) - 1) // 2
        return -bound, bound
    return 0, 1 if card.kind == "multilabel" else len(card.classes) - 1


def _write_arrays(
    samples: Sequence[Sample], card: Card, entry: Mapping[str, Any], out: Path, compute: Compute
) -> tuple[list[Sample], list[Dropped]]:
    """Fill `<modality>.npy`; unreadable samples are dropped (or stop the run) as `on_bad` says.

    A part that is None stays zero.
    """
    from tqdm import tqdm

    arrays: dict[str, NDArray[Any]] = {}
    kept: list[Sample] = []
    dropped: list[Dropped] = []
    for sample in tqdm(samples, desc=f"extract {entry['dataset']}", unit="sample", mininterval=1.0):
        try:
            row = {
                name: compute(kind, sample.parts[name], entry["features"].get(name) or {})
                for name, kind in card.modalities.items()
                if sample.parts[name] is not None
            }
        except IbmaError as error:
            if entry.get("on_bad", "stop") == "stop":
                raise
            dropped.append(Dropped(sample.id, str(error)))
            continue
        for name, value in row.items():
            if name not in arrays:
                arrays[name] = _memory_map(
                    out / f"{name}.part.npy", (len(samples), *value.shape), value
                )
            arrays[name][len(kept)] = value
        kept.append(sample)
    if not kept:
        raise IbmaError(f"{out}: every sample was dropped, first reason: {dropped[0].reason}")
    for name in card.modalities:
        if name not in arrays:
            raise IbmaError(f"{out}: no sample has '{name}': check the data set's files")
    for name, array in arrays.items():
        _trim(array, len(kept), out / f"{name}.npy")
        (out / f"{name}.part.npy").unlink()
    return kept, dropped


def _memory_map(path: Path, shape: tuple[int, ...], like: NDArray[Any]) -> NDArray[Any]:
    array: NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=like.dtype, shape=shape)
    return array


def _trim(array: NDArray[Any], rows: int, path: Path) -> None:
    """Copy the first `rows` rows to their final file, a slice at a time."""
    final = _memory_map(path, (rows, *array.shape[1:]), array)
    for start in range(0, rows, 1024):
        final[start : start + 1024] = array[start : min(start + 1024, rows)]


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
