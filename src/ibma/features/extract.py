"""Compute the features of a data set and store them: in order, in parallel, in constant memory.

Samples are computed in blocks. A block is one process's work and ends as one part file, so an
interrupted extraction goes on with the parts that are there. When all parts are complete they are
joined, in order, to one array per modality, and the feature folder appears under its name at once.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ibma import datasets
from ibma.datasets import TWIN_MARKER, Card, Dataset, Dropped, Part, Sample
from ibma.engine import Processes
from ibma.errors import IbmaError, progress_bar, tell
from ibma.features import media
from ibma.features.samples import Entry, Tally, check_card, checked, too_large
from ibma.files import (
    atomic_folder,
    held,
    read_arrays,
    regular,
    remove,
    unpacked_limit,
    write_bytes,
    write_json,
)
from ibma.formats import checksums
from ibma.formats.raw import Unreadable
from ibma.machine import cores
from ibma.params import check_arguments
from ibma.paths import META

Compute = Callable[[str, Part, Mapping[str, Any]], NDArray[Any]]  # as `media.compute`
Shapes = dict[str, tuple[tuple[int, ...], str]]  # modality -> shape and dtype of one example
Block = tuple[int, list[Entry]]  # its number, and what is in it

BLOCK = 32  # entries of one part file
AHEAD = 2  # blocks in flight per process
INDEX, DROPPED = "index.csv", "dropped.csv"
HEADERS = {INDEX: ("id", "split", "group", "label", "dialogue", "lacks"), DROPPED: ("id", "reason")}


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
    reading: Mapping[str, Any] | None = None,
) -> None:
    """Compute and store the features of one task (stage `extract`).

    Args:
        task: Name of the task.
        entry: `tasks.<task>` of params.yaml: dataset, options, on_bad, features.
        dataset: The data set's module.
        raw: Folder of its raw files.
        out: Feature folder. What was there before is replaced when the new one is complete.
        compute: What makes a feature of a part of a sample; `workers` > 1 import it by name.
        key: Digest of everything beside `entry` that features depend on. An interrupted extraction
            goes on under the same key and starts anew under another.
        workers: Number of processes, None for one per core. The result does not depend on it.
        reading: What `ibma predict` must read alike, see `tables.reading`; kept in meta.json.

    Raises:
        IbmaError: A bad sample, unless the task says `on_bad: drop`; no usable sample; another
            extraction of this folder that has not ended.
    """
    source = "twin" if (raw / TWIN_MARKER).exists() else "real"
    card = datasets.card(dataset, entry.get("options", {}))
    check_card(card, entry["dataset"])
    features = entry.get("features", {})
    for name in features:
        if name not in card.modalities:
            raise IbmaError(
                f"params.yaml: tasks.{task}.features: no modality '{name}': expected one of "
                f"{', '.join(card.modalities)}"
            )
    parts = out.with_name(f".{out.name}.parts")
    on_bad = entry.get("on_bad", "stop")
    work = _Work(parts, compute, card.modalities, features, on_bad == "drop")
    with held(out):
        _keep_parts(parts, _key(entry, key))
        entries = checked(samples(dataset, raw, task, entry), card, on_bad)
        with _bar(task, card, source) as bar:
            complete, shapes = _compute_all(_blocks(entries), work, workers or cores(), bar)
        with atomic_folder(out) as folder:
            tally = _join(complete, shapes, folder)
            _check(tally, card, raw)
            meta = {"task": task, "dataset": entry["dataset"], "source": source}
            meta |= _describe(folder, card, features, shapes, tally)
            meta |= {"read": reading} if reading else {}
            write_json(folder / META, meta)
        shutil.rmtree(parts)


def absent(task: str, entry: Mapping[str, Any], why: str, out: Path) -> None:
    """Write a feature folder that only says why there are no features."""
    with held(out), atomic_folder(out) as folder:
        write_json(folder / META, {"task": task, "dataset": entry["dataset"], "missing": why})


def samples(dataset: Dataset, raw: Path, task: str, entry: Mapping[str, Any]) -> Iterator[Entry]:
    """Walk a data set under the options of a task.

    Raises:
        IbmaError: An option that the data set does not have, or a value of another type; nothing
            to walk.
    """
    options = {**entry.get("options", {}), "on_bad": entry.get("on_bad", "stop")}
    check_arguments(dataset.samples, options, f"tasks.{task}.options")
    found = dataset.samples(raw, **options)
    if not isinstance(found, Iterable):
        told = f"samples returns {type(found).__name__}: expected it to yield samples"
        raise IbmaError(f"data set {entry['dataset']}: {told}")
    return iter(found)


# --- blocks --------------------------------------------------------------------------------------


def _keep_parts(parts: Path, key: str) -> None:
    """Keep the parts that an interrupted extraction left under this key; remove any others."""
    note = parts / "key"
    if note.is_file() and note.read_bytes() == key.encode():
        done = len(list(parts.glob("*.npz")))
        tell(f"{parts}: going on, {done} parts of {BLOCK} samples are there")
        return
    remove(parts)
    write_bytes(note, key.encode())


def _key(entry: Mapping[str, Any], key: str) -> str:
    """Return a digest of what features depend on, the code that reads and computes included."""
    read = {name: entry.get(name) for name in ("dataset", "options", "on_bad", "features")}
    digest = hashlib.sha256(json.dumps([read, key], sort_keys=True).encode())
    package = Path(datasets.__file__).parents[1]
    for room in ("datasets", "features", "formats"):
        for path in sorted((package / room).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _blocks(entries: Iterator[Entry]) -> Iterator[Block]:
    return enumerate(iter(lambda: list(itertools.islice(entries, BLOCK)), []))


def _bar(task: str, card: Card, source: str) -> Any:
    """Return a progress bar; for real data the official counts say how much there is to do."""
    total = card.official.all if source == "real" else None
    return progress_bar(desc=f"extract {task}", total=total, unit="sample")


def _compute_all(
    blocks: Iterator[Block], work: _Work, processes: int, bar: Any
) -> tuple[list[Path], Shapes]:
    """Have every block computed; return the part files in order, and what an example looks like.

    Raises:
        IbmaError: The first bad sample, in order; the parts before it are kept.
    """
    complete: list[Path] = []
    shapes: Shapes = {}
    for (number, block), result in _results(blocks, work, processes):
        if isinstance(result, IbmaError):
            raise result
        _agree(shapes, result, block[0].id)
        complete.append(work.path(number))
        bar.update(len(block))
    return complete, shapes


def _results(
    blocks: Iterator[Block], work: _Work, processes: int
) -> Iterator[tuple[Block, Shapes | IbmaError]]:
    """Compute blocks and return them in order; few of them are ever held."""
    if processes == 1:
        yield from ((block, work(*block)) for block in blocks)
        return
    pending: deque[tuple[Block, Future[Shapes | IbmaError]]] = deque()
    with Processes(processes) as pool:
        for block in blocks:
            pending.append((block, pool.submit(work, *block)))
            if len(pending) >= AHEAD * processes:
                first, future = pending.popleft()
                yield first, future.result()
        for first, future in pending:
            yield first, future.result()


# --- parts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """Compute the features of a block and write them as one part file."""

    folder: Path
    compute: Compute
    modalities: Mapping[str, str]
    features: Mapping[str, Any]
    dropping: bool

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    def __call__(self, number: int, block: Sequence[Entry]) -> Shapes | IbmaError:
        """Return what the block's examples look like, or the error that stops the extraction.

        A part file that holds this block already is kept.
        """
        path = self.path(number)
        part = _Part.read(path)
        if part is None or part.ids != [entry.id for entry in block]:
            part = _Part()
            try:
                for entry in block:
                    self._add(entry, part)
            except IbmaError as error:
                return error
            part.write(path)
        return part.shapes

    def _add(self, entry: Entry, part: _Part) -> None:
        if isinstance(entry, Sample):
            try:
                features = self._features(entry)
            except IbmaError as error:
                if not self.dropping:
                    raise
                entry = Dropped(entry.id, str(error))
        if isinstance(entry, Dropped):
            part.rows.append([entry.id, entry.reason])
        else:
            part.keep(entry, features)

    def _features(self, sample: Sample) -> dict[str, NDArray[Any]]:
        """Return modality -> feature, without the modalities that the sample lacks."""
        return {
            name: self._feature(sample, name, kind)
            for name, kind in self.modalities.items()
            if sample.parts[name] is not None
        }

    def _feature(self, sample: Sample, name: str, kind: str) -> NDArray[Any]:
        part = sample.parts[name]
        try:
            value = self.compute(kind, part, self.features.get(name) or {})
        except Unreadable as error:
            if isinstance(part, Path) and str(error).startswith(str(part)):
                raise  # it names the file, which excerpts of many samples share
            raise IbmaError(f"sample {sample.id}: '{name}': {error}") from None
        if why := too_large(value):
            advice = "correct the data or set on_bad: drop"
            raise IbmaError(f"sample {sample.id}: '{name}' {why}: {advice}")
        return value


@dataclass
class _Part:
    """What one part file holds.

    Attributes:
        rows: Lines of index.csv (six cells) and of dropped.csv (two), in the order of the samples.
        values: Modality -> an example for each kept sample that has this modality.
        places: Modality -> the places of these samples among the kept ones.
    """

    rows: list[list[str]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _Part | None:
        """Read a part file; return None where there is none, or a damaged one."""
        try:
            stored = read_arrays(path, unpacked_limit(regular(path).stat().st_size))
            rows, places = json.loads(stored["rows"].item())
            return cls(rows, {name: stored[f"values_{name}"] for name in places}, places)
        except FileNotFoundError:
            return None
        except (IbmaError, KeyError, ValueError, TypeError):
            remove(path)
            return None

    def write(self, path: Path) -> None:
        stacked: dict[str, Any] = {f"values_{name}": np.stack(v) for name, v in self.values.items()}
        file = io.BytesIO()
        np.savez(file, rows=np.array(json.dumps([self.rows, self.places])), **stacked)
        write_bytes(path, file.getvalue())

    def keep(self, sample: Sample, features: Mapping[str, NDArray[Any]]) -> None:
        """Append a sample.

        Raises:
            IbmaError: A feature of another shape or type than those before it.
        """
        for name, value in features.items():
            values = self.values.setdefault(name, [])
            values.append(value)
            _agree({name: _look(values[0])}, {name: _look(value)}, sample.id)
            self.places.setdefault(name, []).append(len(self.kept))
        label = sample.label if isinstance(sample.label, tuple) else (sample.label,)
        words = " ".join(str(value) for value in label)
        lacks = " ".join(name for name, part in sample.parts.items() if part is None)
        self.rows.append([sample.id, sample.split, sample.group, words, sample.dialogue, lacks])

    @property
    def ids(self) -> list[str]:
        return [row[0] for row in self.rows]

    @property
    def kept(self) -> list[list[str]]:
        return [row for row in self.rows if len(row) == len(HEADERS[INDEX])]

    @property
    def dropped(self) -> list[list[str]]:
        return [row for row in self.rows if len(row) == len(HEADERS[DROPPED])]

    @property
    def shapes(self) -> Shapes:
        return {name: _look(values[0]) for name, values in self.values.items()}

    def count(self, tally: Tally, modalities: Collection[str]) -> None:
        """Add the samples of this part to what was kept and dropped before it."""
        for _, split, group, label, _, lacks in self.kept:
            there = (name for name in modalities if name not in lacks.split(" "))
            tally.keep(split, group, label, there)
        for _, reason in self.dropped:
            tally.drop(reason)
        for name in modalities:
            tally.absent[name] += len(self.kept) - len(self.places.get(name, []))

    def filled(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return a modality of every kept sample: zeros where a sample lacks it."""
        rows = np.zeros((len(self.kept), *shape), dtype)
        if name in self.values:
            rows[self.places[name]] = self.values[name]
        return rows


def _look(value: NDArray[Any]) -> tuple[tuple[int, ...], str]:
    return value.shape, value.dtype.str


def _agree(shapes: Shapes, others: Shapes, where: object) -> None:
    """Add the shapes that are new.

    Raises:
        IbmaError: A modality has two shapes or types.
    """
    for name, found in others.items():
        if shapes.setdefault(name, found) != found:
            raise IbmaError(
                f"{where}: '{name}': a feature of shape {found[0]} and type {found[1]}, expected "
                f"{shapes[name][0]} and {shapes[name][1]}: check this modality's feature parameters"
            )


# --- the feature folder --------------------------------------------------------------------------


def _join(parts: Sequence[Path], shapes: Shapes, folder: Path) -> Tally:
    """Append the parts, in order, to the files of a feature folder; one part is held at a time."""
    tally = Tally()
    with ExitStack() as stack:
        writers = {}
        for name, header in HEADERS.items():
            table = (folder / name).open("w", newline="", encoding="utf-8")
            writers[name] = csv.writer(stack.enter_context(table), lineterminator="\n")
            writers[name].writerow(header)
        arrays = {name: stack.enter_context((folder / f"{name}.npy").open("wb")) for name in shapes}
        for name, file in arrays.items():
            _write_header(file, 0, *shapes[name])
        for path in parts:
            part = _Part.read(path)
            if part is None:
                raise IbmaError(f"{path}: damaged while it was in use: run again to go on")
            writers[INDEX].writerows(part.kept)
            writers[DROPPED].writerows(part.dropped)
            for name, file in arrays.items():
                file.write(part.filled(name, *shapes[name]).data)
            part.count(tally, shapes)
        for name, file in arrays.items():
            file.seek(0)
            _write_header(file, tally.splits.total(), *shapes[name])
    return tally


def _write_header(file: IO[bytes], rows: int, shape: tuple[int, ...], dtype: str) -> None:
    """Write the head of an .npy file; numpy pads it, so its length does not depend on `rows`."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype, "fortran_order": False, "shape": (rows, *shape)}
    )


def _check(tally: Tally, card: Card, raw: Path) -> None:
    """Refuse a data set that no method can learn from; report groups that train and test share."""
    try:
        tally.check(card)
    except IbmaError as error:
        raise IbmaError(f"{raw}: {error}") from None
    if tally.shared_groups:
        tell(f"{raw}: {tally.shared_groups} groups (speakers, patients) are in train and in test")


def _describe(
    folder: Path, card: Card, features: Mapping[str, Any], shapes: Shapes, tally: Tally
) -> dict[str, Any]:
    """Return what meta.json says of the files beside it.

    `digest` is the data part of a record's key: the sha256 over those of all arrays and the index.
    """
    arrays = {name: f"{name}.npy" for name in card.modalities}
    sums = {name: checksums.sha256(folder / name) for name in (*arrays.values(), INDEX, DROPPED)}
    read = b"".join(bytes.fromhex(sums[name]) for name in (*arrays.values(), INDEX))
    modalities = {}
    for name, kind in card.modalities.items():
        shape, dtype = shapes[name]
        modalities[name] = {
            "kind": media.stored_kind(kind, features.get(name) or {}),
            "shape": list(shape),
            "dtype": str(np.dtype(dtype)),
            "file": arrays[name],
        }
    return {
        "digest": hashlib.sha256(read).hexdigest(),
        "sha256": sums,
        "kind": card.kind,
        "classes": list(card.classes),
        "folds": card.folds,
        "modalities": modalities,
        "counts": dict(sorted(tally.splits.items())),
        "dropped": tally.dropped,
        "groups_in_train_and_test": tally.shared_groups,
        "absent": {name: tally.absent[name] for name in card.modalities},
    }
