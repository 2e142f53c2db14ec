"""Predict the rows of a table with a trained network, and write what each prediction rests on."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ibma
from ibma import params, paths, tables
from ibma.commands import profiles
from ibma.datasets import Dropped, Part
from ibma.errors import IbmaError, one_line, progress_bar
from ibma.features import media
from ibma.features.samples import too_large
from ibma.files import atomic_file
from ibma.params import Params, TaskParams
from ibma.tables import cells
from ibma.tables.reader import Cells, TableData, Unusable
from ibma.training import record
from ibma.training.cell import Cell, expected_key
from ibma.training.record import Record

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ibma.features.store import Features
    from ibma.network.method import Method
    from ibma.network.tasks import Task

BLOCK = 256  # rows that are held at once
SUFFIX = ".safetensors"


@dataclass
class Row:
    """A row of the input: what it is predicted from, or why it is not predicted.

    Args:
        id: the name of the sample.
        features: modality -> feature, of those that it has.
        reason: empty where it can be predicted.
    """

    id: str
    features: dict[str, NDArray[Any]] = field(default_factory=dict)
    reason: str = ""


def write(weights: Path, table: Path, output: Path, folders: Sequence[str]) -> str:
    """Predict every row of a table and write a row for each; return what to tell the user.

    Args:
        weights: `models/<stage>/<task>/<method>/seed_<k>`.
        table: CSV, TSV or Parquet with the columns of the training table; labels are not needed.
        output: a CSV file; a link is followed.
        folders: `<modality>=<folder>` of files that lie elsewhere than those of training.

    Raises:
        IbmaError: no such network, one of other parameters, data or code than the present, no such
            table, or one without the column of ids; an output that is no file, or one that is
            read.
    """
    network = Network.load(weights)
    reader = Reader.of(network, table, folders)
    _refuse_to_overwrite(output, chain([table], network.files(), reader.files()))
    counts: Counter[bool] = Counter()
    with atomic_file(Path(os.path.realpath(output))) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(network.header)
        with progress_bar(desc="predict", unit="row", delay=1.0) as bar:
            rows = reader.rows()
            for block in iter(lambda: list(islice(rows, BLOCK)), []):
                writer.writerows(network.predict(block))
                counts.update(not row.reason for row in block)
                bar.update(len(block))
        text.detach()
    lines = [*reader.remarks(), f"{output}: {counts[True]} rows predicted, {counts[False]} not"]
    if counts[False]:
        lines[-1] += ": column `reason` says why"
    return "\n".join(lines)


def _refuse_to_overwrite(output: Path, inputs: Iterable[Path]) -> None:
    if not output.exists():
        return
    if not output.is_file():
        raise IbmaError(f"{output}: is a folder, pipe or device: name the CSV file to write")
    if any(path.exists() and path.samefile(output) for path in inputs):
        raise IbmaError(f"{output}: is an input, it would be lost: name another file to write")


# --- the network ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """A trained network with what it was trained on."""

    record: Record
    model: Method
    problem: Task
    trained: Features
    table: TableData
    entry: TaskParams
    device: torch.device

    @classmethod
    def load(cls, weights: Path) -> Network:
        """Load a run's network.

        Raises:
            IbmaError: it is not there, or its record is not of the present parameters, data and
                code.
        """
        from ibma.experiments.probe import restore
        from ibma.training.loop import configure_torch, select_device

        one = record.read(_record(weights))
        profile = _profile(one)
        entry = profile.task(one.task)
        if entry.dataset not in profile.tables:
            raise IbmaError(
                f"{weights}: task '{one.task}' is made of the published data set "
                f"'{entry.dataset}': expected one of a table of your own"
            )
        if one.key != expected_key(profile, one) or not tables.reads_alike(profile, one.task):
            raise IbmaError(
                f"{weights}: stale, parameters, data or code are others now: run `dvc repro "
                f"{one.stage}@{one.task}`"
            )
        configure_torch(profile.threads, compiled=False)
        device, cell = select_device(profile.device), Cell.of(profile, one.task, one.method)
        model = restore(cell, one, one.id.weights, device)
        table = TableData(entry.dataset, profile.tables[entry.dataset])
        return cls(one, model, cell.problem(), cell.open(), table, entry, device)

    def files(self) -> Iterator[Path]:
        """Yield every file of the project that a prediction rests on."""
        one = self.record
        yield from (paths.PARAMS, one.id.record, one.id.weights, self.table.path)
        yield paths.choice(one.task, one.method)
        for folder in (paths.PROFILES, paths.FEATURES / one.task, paths.CENTROIDS / one.task):
            yield from folder.glob("*")

    @property
    def header(self) -> list[str]:
        """Return the names of the output's columns."""
        chances = [f"p({name})" for name in self.problem.classes]
        return ["id", "predicted", *chances, "reason", "record", "ibma"]

    def predict(self, rows: Sequence[Row]) -> Iterator[list[str]]:
        """Yield a line of the output for each row."""
        usable = [row for row in rows if not row.reason]
        chances: Iterator[NDArray[np.float64]]
        chances = iter(self._probabilities(usable) if usable else ())
        for row in rows:
            known = [""] * (1 + len(self.problem.classes))
            if not row.reason:
                chance = next(chances)
                known = [self._answer(chance), *(f"{value:.6f}" for value in chance)]
            yield [row.id, *known, row.reason, self.record.key, ibma.__version__]

    def _answer(self, chance: NDArray[np.float64]) -> str:
        """Return the prediction as a cell of the label's column says it."""
        from ibma.estimators.trained import SEPARATOR
        from ibma.network.tasks import LIKELY

        if self.problem.kind == "multilabel":
            likely = zip(self.problem.classes, chance, strict=True)
            separator = self.table.spec.separator or SEPARATOR
            return separator.join(name for name, value in likely if value >= LIKELY)
        if self.problem.kind == "sentiment":
            scores = [float(name) for name in self.problem.classes]
            return f"{self.table.measured(float(chance @ np.array(scores))):g}"
        return self.problem.classes[int(chance.argmax())]

    def _probabilities(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Return the probability of each class or label, [n, C]."""
        from ibma.network.tasks import per_class
        from ibma.training.loop import predict

        logits, _ = predict(self.model, self._features(rows).everything(), self.device)
        chances: NDArray[np.float64] = (
            per_class(self.problem, self.problem.log_probabilities(logits)).double().exp().numpy()
        )
        return chances

    def _features(self, rows: Sequence[Row]) -> Features:
        """Return rows as the store would hold them: zeros where a modality is missing."""
        from ibma.features.store import Features

        arrays, present = {}, {}
        for name, stored in self.trained.modalities.items():
            known = np.array([name in row.features for row in rows])
            arrays[name] = np.zeros((len(rows), *stored.shape), stored.dtype)
            if known.any():
                arrays[name][known] = [row.features[name] for row in rows if name in row.features]
            if not known.all():
                present[name] = known
        nothing = np.array([""] * len(rows))
        return Features(
            meta=self.trained.meta,
            modalities=self.trained.modalities,
            arrays=arrays,
            labels=np.zeros((len(rows), self.trained.labels.shape[1])),
            ids=[row.id for row in rows],
            groups=nothing,
            splits=nothing,
            dialogues=nothing,
            present=present,
        )


def _record(weights: Path) -> Path:
    """Return the record that belongs to weights.

    Raises:
        IbmaError: the path is not one of a trained network, or there is no record.
    """
    parts = weights.parts
    stem = parts[-1].removesuffix(SUFFIX) if parts else ""
    if len(parts) < 4 or not stem.removeprefix("seed_").isdecimal() or stem.isdecimal():
        raise IbmaError(
            f"{weights}: expected {paths.MODELS}/<stage>/<task>/<method>/seed_<k>, for example "
            f"{paths.MODELS}/train_ibma/<task>/ibma/seed_0"
        )
    stage, task, method = parts[-4:-1]
    seed = int(stem.removeprefix("seed_"))
    own, found = paths.weights(stage, task, method, seed), paths.record(stage, task, method, seed)
    if weights.with_name(own.name).resolve() != own.resolve():
        raise IbmaError(f"{weights}: not of the project in this folder: run this in its project")
    if not found.exists():
        raise IbmaError(f"{found}: missing, the record of {weights}: run `dvc repro` first")
    return found


def _profile(one: Record) -> Params:
    """Return the profile that a run belongs to: the present one, else the one of its name."""
    if paths.PARAMS.exists():
        present = params.load(paths.PARAMS)
        if present.profile == one.profile:
            return present
    return params.load(profiles.find(one.profile))


# --- the input -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """The rows of a table, each with its features or the reason why it has none.

    Args:
        absent: columns of modalities that the table does not have.
        unknown: labels of the table that the network does not know -> how many rows.
    """

    network: Network
    table: TableData
    path: Path
    columns: list[str]
    absent: list[str]
    unknown: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, network: Network, path: Path, folders: Sequence[str]) -> Reader:
        """Find the columns of a table that the network reads.

        Raises:
            IbmaError: the column of ids is missing, or every modality's.
        """
        spec = network.table.spec
        delimiter = cells.delimiter_of(path, spec.delimiter)
        there = cells.columns_of(path, delimiter)
        inputs = [column for one in spec.modalities.values() for column in one.columns]
        absent = [column for column in inputs if column not in there]
        if spec.id is not None and spec.id not in there:
            raise IbmaError(f"{path}: no column '{spec.id}', the ids: {_list(there)}")
        usable = {
            name: one
            for name, one in _moved(network.table, folders).items()
            if not set(one.columns) & set(absent)
        }
        if not usable:
            raise IbmaError(f"{path}: none of the columns {_list(inputs)}: it has {_list(there)}")
        table = TableData(
            network.table.name,
            spec.model_copy(update={"delimiter": delimiter, "modalities": usable}),
        )
        columns = [name for name in (*inputs, *spec.label) if name in there]
        return cls(network, table, path, list(dict.fromkeys(columns)), absent)

    def rows(self) -> Iterator[Row]:
        """Yield every row of the table, in order."""
        return map(self._row, self.table.rows(self.path, self.columns))

    def files(self) -> Iterator[Path]:
        """Yield every file that the table names."""
        for found in self.table.rows(self.path, self.columns):
            with suppress(Unusable):
                parts = self.table.parts(found) if isinstance(found, Cells) else {}
                yield from (part for part in parts.values() if isinstance(part, Path))

    def _row(self, found: Cells | Dropped) -> Row:
        if isinstance(found, Dropped):
            return Row(found.id, reason=found.reason)
        self._count_label(found)
        row = Row(found.id)
        try:
            parts = self.table.parts(found)
            row.features = {
                name: self._feature(name, part) for name, part in parts.items() if part is not None
            }
        except (Unusable, IbmaError) as error:
            row.reason = one_line(error)
        if not row.features and not row.reason:
            row.reason = "no modality is there"
        return row

    def _feature(self, name: str, part: Part) -> NDArray[Any]:
        given = self.network.entry.features.get(name)
        kind = self.table.CARD.modalities[name]
        made = media.compute(kind, part, {} if given is None else given.as_dict())
        if why := too_large(made):
            raise Unusable(f"'{name}' {why}")
        return made

    def _count_label(self, found: Cells) -> None:
        """Count a label that is there and that the network does not know."""
        texts = [found.at.get(column, "") for column in self.table.spec.label]
        if all(text.strip() for text in texts):
            try:
                self.table.label(found)
            except Unusable as error:
                self.unknown[str(error)] += 1

    def remarks(self) -> Iterator[str]:
        """Yield a line for each thing that is not as in training."""
        known = self.network.table.spec.modalities
        for column in self.absent:
            without = [name for name, one in known.items() if column in one.columns]
            yield f"{self.path}: no column '{column}': every row is predicted without {without[0]}"
        for why, count in self.unknown.most_common(5):
            yield f"{self.path}: {count} rows with a label that was not learnt: {why}"


def _moved(table: TableData, folders: Sequence[str]) -> Mapping[str, Any]:
    """Return the modalities of a table, some with another folder."""
    found = dict(table.spec.modalities)
    for given in folders:
        name, equals, folder = given.partition("=")
        if not equals or name not in found or found[name].folder is None:
            files = _list(name for name, one in found.items() if one.folder is not None)
            raise IbmaError(f"--folder {given}: expected MODALITY=FOLDER of {files}")
        found[name] = found[name].model_copy(update={"folder": folder})
    return found


def _list(names: Any) -> str:
    return ", ".join(list(names)[:20]) or "nothing"
