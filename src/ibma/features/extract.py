"""From samples to features on disk: in order, in parallel, resumable, in constant memory.

Rows are appended to `<modality>.npy` as they come (numpy's header leaves room for a growing first
axis), lines to `index.csv` and `dropped.csv`; `progress.json` says how far all of them are right.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ibma import datasets
from ibma.datasets import TWIN_MARKER, Card, Dataset, Dropped, Part, Sample
from ibma.errors import IbmaError
from ibma.features import media
from ibma.files import write_json
from ibma.formats import checksums

Compute = Callable[[str, Part, Mapping[str, Any]], NDArray[Any]]
Row = dict[str, NDArray[Any]]  # modality -> feature; modalities that the sample lacks are left out
Entry = Sample | Dropped
Result = Row | Dropped | IbmaError
Work = Callable[[Sequence[Entry]], list[Result]]
Chunks = Iterator[tuple[list[Entry], list[Result]]]

PROGRESS = "progress.json"
CHUNK = 16  # samples that a process computes at a time
AHEAD = 2  # chunks in flight per process
INDEX, DROPPED = "index.csv", "dropped.csv"
HEADERS = {INDEX: ("id", "split", "group", "label", "dialogue"), DROPPED: ("id", "reason")}


@dataclass
class Progress:
    """How far an extraction is.

    key: of what it depends on; another key starts anew. seen: entries of `samples()` done. sizes:
    bytes of each file that are right. splits: kept samples by split. arrays: modality -> shape and
    dtype of a row. absent: kept samples that lack a modality.
    """

    key: str
    seen: int = 0
    dropped: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, tuple[list[int], str]] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Rows of every array."""
        return sum(self.splits.values())


def extract(
    task: str,
    entry: Mapping[str, Any],
    dataset: Dataset,
    raw: Path,
    out: Path,
    compute: Compute,
    *,
    key: str = "",
    workers: int | None = 1,
) -> None:
    """Compute and store the features of one task (stage `extract`).

    entry: `tasks.<task>` of params.yaml. key: of everything beside `entry` that features depend
    on; an interrupted extraction under the same key goes on where it was. workers: processes, None
    for one per core; the result does not depend on their number.

    Raises IbmaError on a bad sample unless the task says `on_bad: drop`; what was computed before
    it is kept.
    """
    source = "twin" if (raw / TWIN_MARKER).exists() else "real"
    card = datasets.card(dataset, entry.get("options", {}))
    dropping = entry.get("on_bad", "stop") == "drop"
    work = partial(_rows, compute, card, dict(entry["features"]), dropping)
    with _Writer(out, card, _key(entry, key)) as writer:
        entries = samples(dataset, raw, task, entry)
        waiting = itertools.islice(entries, writer.progress.seen, None)
        done = _bar(_computed(waiting, work, workers), writer.progress.seen, entry, card, source)
        for sample, result in done:
            writer.add(sample, result)
        writer.finish(raw)
    shapes = {name: writer.progress.arrays[name] for name in card.modalities}
    meta = {
        "digest": _digest(out, [*(f"{name}.npy" for name in card.modalities), INDEX]),
        "task": task,
        "dataset": entry["dataset"],
        "source": source,
        "kind": card.kind,
        "classes": list(card.classes),
        "folds": card.folds,
        "modalities": {
            name: {
                "kind": media.stored_kind(card.modalities[name], entry["features"].get(name) or {}),
                "shape": list(shape),
                "dtype": str(np.dtype(dtype)),
                "file": f"{name}.npy",
            }
            for name, (shape, dtype) in shapes.items()
        },
        "counts": dict(sorted(writer.progress.splits.items())),
        "dropped": writer.progress.dropped,
        "absent": {name: writer.progress.absent.get(name, 0) for name in card.modalities},
    }
    write_json(out / "meta.json", meta)
    (out / PROGRESS).unlink()


def absent(task: str, entry: Mapping[str, Any], why: str, out: Path) -> None:
    """Write a feature folder that only says why there are no features."""
    shutil.rmtree(out, ignore_errors=True)
    write_json(out / "meta.json", {"task": task, "dataset": entry["dataset"], "missing": why})


def samples(dataset: Dataset, raw: Path, task: str, entry: Mapping[str, Any]) -> Iterator[Entry]:
    """Walk a data set as a task asks for it.

    Raises IbmaError for an option that the data set does not have.
    """
    options = {**entry.get("options", {}), "on_bad": entry.get("on_bad", "stop")}
    try:
        return iter(dataset.samples(raw, **options))
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise IbmaError(
            f"params.yaml: tasks.{task}.options: {error}: remove or correct it"
        ) from None


# --- computing -----------------------------------------------------------------------------------


def _rows(
    compute: Compute,
    card: Card,
    features: Mapping[str, Any],
    dropping: bool,
    chunk: Sequence[Entry],
) -> list[Result]:
    """The features of some samples. An error that stops is handed back in its place."""
    found: list[Result] = []
    for entry in chunk:
        if isinstance(entry, Dropped):
            found.append(entry)
            continue
        try:
            found.append(
                {
                    name: compute(kind, entry.parts[name], features.get(name) or {})
                    for name, kind in card.modalities.items()
                    if entry.parts[name] is not None
                }
            )
        except IbmaError as error:
            found.append(Dropped(entry.id, str(error)) if dropping else error)
    return found


def _computed(
    entries: Iterator[Entry],
    work: Work,
    workers: int | None,
) -> Iterator[tuple[Entry, Row | Dropped]]:
    """Results in the order of the entries; few of them are ever held.

    Raises the error of a bad sample after the results before it.
    """
    processes = workers or os.cpu_count() or 1
    for chunk, results in (
        _in_turn(entries, work) if processes == 1 else _in_pool(entries, work, processes)
    ):
        for entry, result in zip(chunk, results, strict=True):
            if isinstance(result, IbmaError):
                raise result
            yield entry, result


def _in_turn(entries: Iterator[Entry], work: Work) -> Chunks:
    for entry in entries:
        yield [entry], work([entry])


def _in_pool(entries: Iterator[Entry], work: Work, processes: int) -> Chunks:
    pending: deque[tuple[list[Entry], Future[list[Result]]]] = deque()
    with ProcessPoolExecutor(processes) as pool:
        try:
            while chunk := list(itertools.islice(entries, CHUNK)):
                pending.append((chunk, pool.submit(work, chunk)))
                if len(pending) >= AHEAD * processes:
                    first, future = pending.popleft()
                    yield first, future.result()
            for first, future in pending:
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _bar(
    results: Iterator[tuple[Entry, Row | Dropped]],
    done: int,
    entry: Mapping[str, Any],
    card: Card,
    source: str,
) -> Iterator[tuple[Entry, Row | Dropped]]:
    """Progress; of real data the official counts say how much there is to do."""
    from tqdm import tqdm

    counts = (card.official.train, card.official.test)
    total = sum(filter(None, counts)) if source == "real" else None
    label = f"extract {entry['dataset']}"
    bar: Iterator[tuple[Entry, Row | Dropped]] = tqdm(
        results, label, total, initial=done, unit="sample", mininterval=1.0
    )
    return bar


# --- writing -------------------------------------------------------------------------------------


class _Writer:
    """The growing files of one feature folder."""

    def __init__(self, out: Path, card: Card, key: str) -> None:
        self.out, self.card = out, card
        self.progress = _resumed(out, key)
        self._files: dict[str, IO[bytes]] = {}
        out.mkdir(parents=True, exist_ok=True)
        for name, header in HEADERS.items():
            if name not in self.progress.sizes:
                self._file(name).write(_line(header))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever happened, what is written so far can be gone on from."""
        self._save()
        for file in self._files.values():
            file.close()

    def add(self, sample: Entry, result: Row | Dropped) -> None:
        """Append a sample's row, or the reason why there is none."""
        if isinstance(sample, Sample) and not isinstance(result, Dropped):
            self._keep(sample, result)
        else:
            gone = result if isinstance(result, Dropped) else sample
            assert isinstance(gone, Dropped)
            self._file(DROPPED).write(_line((gone.id, gone.reason)))
            self.progress.dropped += 1
        self.progress.seen += 1
        if self.progress.seen % 1024 == 0:
            self._save()

    def finish(self, raw: Path) -> None:
        """Write the final shapes into the headers.

        Raises IbmaError when nothing was kept, or no sample had some modality.
        """
        if not self.progress.kept:
            self._refuse_nothing(raw)
        for name in self.card.modalities:
            if name not in self.progress.arrays:
                raise IbmaError(f"{self.out}: no sample has '{name}': check the data set's files")
            file = self._file(f"{name}.npy")
            file.flush()
            with (self.out / f"{name}.npy").open("r+b") as head:
                self._write_header(head, name, self.progress.kept)

    def _refuse_nothing(self, raw: Path) -> None:
        self._file(DROPPED).flush()
        with (self.out / DROPPED).open(newline="", encoding="utf-8") as file:
            first = next(csv.DictReader(file), None)
        if first is None:
            raise IbmaError(f"{raw}: no usable sample: check the files")
        raise IbmaError(f"{raw}: every sample was dropped, first reason: {first['reason']}")

    def _keep(self, sample: Sample, row: Row) -> None:
        label = _label_text(sample, self.card)
        self._check(row)
        before = self.progress.kept
        for name in self.card.modalities:
            if name in row:
                if name not in self.progress.arrays:
                    self._begin(name, row[name], before)
                self._append(name, row[name])
            else:
                self.progress.absent[name] = self.progress.absent.get(name, 0) + 1
                if name in self.progress.arrays:
                    shape, dtype = self.progress.arrays[name]
                    self._append(name, np.zeros(shape, dtype))
        line = (sample.id, sample.split, sample.group, label, sample.dialogue)
        self._file(INDEX).write(_line(line))
        self.progress.splits[sample.split] = self.progress.splits.get(sample.split, 0) + 1

    def _begin(self, name: str, row: NDArray[Any], before: int) -> None:
        """Open a modality's array; samples before its first one lacked it: zeros."""
        self.progress.arrays[name] = (list(row.shape), row.dtype.str)
        file = self._file(f"{name}.npy")
        self._write_header(file, name, 0)
        for _ in range(before):
            self._append(name, np.zeros_like(row))

    def _check(self, row: Row) -> None:
        """Refuse a row of another shape before anything of it is written."""
        for name in set(row) & set(self.progress.arrays):
            shape, dtype = self.progress.arrays[name]
            if (list(row[name].shape), row[name].dtype.str) != (list(shape), dtype):
                raise IbmaError(
                    f"{self.out}: '{name}': a feature of shape {row[name].shape}, expected "
                    f"{tuple(shape)}: check this modality's feature parameters"
                )

    def _append(self, name: str, row: NDArray[Any]) -> None:
        self._file(f"{name}.npy").write(np.ascontiguousarray(row).tobytes())

    def _write_header(self, file: IO[bytes], name: str, rows: int) -> None:
        """Numpy pads the header, so that the first axis may grow in place."""
        shape, dtype = self.progress.arrays[name]
        np.lib.format.write_array_header_1_0(
            file, {"descr": dtype, "fortran_order": False, "shape": (rows, *shape)}
        )

    def _file(self, name: str) -> IO[bytes]:
        """A file opened to append, cut to what is known to be right."""
        if name not in self._files:
            file = (self.out / name).open("ab")
            file.truncate(self.progress.sizes.get(name, 0))
            self._files[name] = file
        return self._files[name]

    def _save(self) -> None:
        for name, file in self._files.items():
            file.flush()
            self.progress.sizes[name] = os.fstat(file.fileno()).st_size
        write_json(self.out / PROGRESS, asdict(self.progress))


def _resumed(out: Path, key: str) -> Progress:
    """The progress left by an interrupted run under this key; else a fresh start."""
    try:
        progress = Progress(**json.loads((out / PROGRESS).read_text(encoding="utf-8")))
        whole = all((out / name).stat().st_size >= size for name, size in progress.sizes.items())
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        whole = False
    if whole and progress.key == key:
        print(f"{out}: going on after {progress.seen} samples", file=sys.stderr)
        return progress
    shutil.rmtree(out, ignore_errors=True)
    return Progress(key)


def _key(entry: Mapping[str, Any], key: str) -> str:
    """sha256 of what features depend on, this package's loaders and readers included."""
    digest = hashlib.sha256(json.dumps([entry, key], sort_keys=True).encode())
    package = Path(__file__).parent
    for path in sorted([*package.glob("*.py"), *package.glob("datasets/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest(folder: Path, names: Sequence[str]) -> str:
    """sha256 over the files in order: the data part of a record's key."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(bytes.fromhex(checksums.sha256(folder / name)))
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


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
