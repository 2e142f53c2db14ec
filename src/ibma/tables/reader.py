"""Turn the rows of a table into samples: labels, splits or folds, and what is predicted from."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ibma import paths
from ibma.datasets import Card, Counts, Dropped, ModalityKind, Part, Sample
from ibma.errors import IbmaError, one_line, tidy
from ibma.features.samples import LARGEST, SPLITS
from ibma.files import inside
from ibma.formats import checksums, tabular
from ibma.params import TAKEN, TableModality, TableParams
from ibma.tables import cells

KINDS: Mapping[str, ModalityKind] = {
    **{"image": "image", "audio": "audio", "video": "frames"},
    **{"text": "text", "numbers": "vector"},
}
BOUND = 3  # scores of kind sentiment are -3 .. 3, as those of CMU-MOSI
DROP = "drop"  # what `splits` says of rows that are left out
HOLE = "{}"  # in a folder: where a cell goes
FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")  # macOS writes names of files in either
LONGEST = 60  # characters of a modality's name


class Unusable(ValueError):
    """Why a row is no sample."""


@dataclass(frozen=True)
class Cells:
    """A row of the table.

    Args:
        line: of the file.
        id: the name of the sample.
        at: column -> text.
    """

    line: int
    id: str
    at: Mapping[str, str]


@dataclass(frozen=True)
class TableData:
    """A table as a data set, see `datasets.Dataset`.

    Args:
        name: of the data set.
        spec: its block of params.yaml.
    """

    name: str
    spec: TableParams

    FILES = ()

    @property
    def path(self) -> Path:
        """Return the file; a relative one lies below the project."""
        return paths.checkout() / self.spec.file

    @property
    def CARD(self) -> Card:  # noqa: N802  what every data set calls it
        """Say what is predicted from what."""
        return Card(
            title=self.name,
            kind=self.spec.kind,
            classes=self.classes,
            modalities={name: KINDS[one.kind] for name, one in self.spec.modalities.items()},
            licence="that of its owner",
            access="request",
            official=Counts(None, None),
            cite="",
            folds=self.spec.folds,
            how_to_get=f"put {self.spec.file} back, or correct tables.{self.name} of params.yaml",
            notes=self._notes(),
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the labels."""
        if self.spec.kind == "sentiment":
            return tuple(str(score) for score in range(-BOUND, BOUND + 1))
        return tuple(self.spec.classes or self.spec.label)

    def _notes(self) -> tuple[str, ...]:
        if self.spec.range is None:
            return ()
        low, high = self.spec.range
        return (
            f"{self.spec.label[0]} from {low:g} to {high:g} is learnt as scores from -{BOUND} to "
            f"{BOUND}; acc2 and f1 ask whether it is above {(low + high) / 2:g}.",
        )

    @property
    def columns(self) -> list[str]:
        """Return every column that is read, each once."""
        spec = self.spec
        inputs = [column for one in spec.modalities.values() for column in one.columns]
        named = [column for column in (spec.group, spec.split) if column is not None]
        return list(dict.fromkeys([*spec.label, *named, *inputs]))

    def samples(self, raw: Path, *, on_bad: str = "stop") -> Iterator[Sample | Dropped]:
        """Walk the rows in order.

        Args:
            raw: The table.
            on_bad: Whether a row that is no sample stops or is dropped.

        Raises:
            IbmaError: The file is no such table; no cell of a column names a file that is there; a
                split of another name; too few groups for the folds; a row that is no sample.
        """
        self.refuse_no_files(raw)
        folds = self._folds(raw) if self.spec.folds else {}
        for row in self.rows(raw, self.columns):
            try:
                if isinstance(row, Dropped):
                    raise Unusable(row.reason)
                split = folds.get(row.id) or self._split(row)
                if split == DROP:
                    yield Dropped(row.id, f"split '{row.at[self.spec.split or '']}': dropped")
                    continue
                name, group = _shown(self.spec.id, row.id), self._group(row)
                yield Sample(name, split, group, self.label(row), self.parts(row))
            except Unusable as error:
                if on_bad == "stop":
                    where = row.id if isinstance(row, Dropped) else f"line {row.line}"
                    advice = f"correct it, or set on_bad: drop in tasks.{self.name}"
                    raise IbmaError(f"{raw}: {where}: {error}: {advice}") from None
                yield Dropped(tidy(row.id), str(error))

    def rows(self, path: Path, columns: list[str]) -> Iterator[Cells | Dropped]:
        """Yield every row of a table like this one; one that cannot be read says why."""
        for line, found in cells.read(path, self.spec, columns):
            if isinstance(found, str):
                yield Dropped(f"line {line}", found)
            else:
                yield Cells(line, found[self.spec.id] if self.spec.id else f"row{line}", found)

    # --- what a row says ---------------------------------------------------------------------

    def _group(self, row: Cells) -> str:
        """Return the group of a row.

        Raises:
            Unusable: It is empty, or holds what cannot be shown.
        """
        if not (group := self._group_name(row)):
            raise Unusable(f"{self.spec.group} is empty: expected a group")
        return _shown(self.spec.group, group)

    def _group_name(self, row: Cells) -> str:
        return row.id if self.spec.group is None else tidy(row.at[self.spec.group])

    def label(self, row: Cells) -> int | float | tuple[int, ...]:
        """Return the label of a row.

        Raises:
            Unusable: It is empty, or none of the labels that params.yaml lists.
        """
        if self.spec.separator is not None:
            named = map(tidy, row.at[self.spec.label[0]].split(self.spec.separator))
            there = {self._class(name) for name in named if name}
            return tuple(int(place in there) for place in range(len(self.classes)))
        texts = [tidy(row.at[column]) for column in self.spec.label]
        if self.spec.kind == "multilabel":
            return self._values(texts)
        if not texts[0]:
            raise Unusable(f"{self.spec.label[0]} is empty: expected a label")
        if self.spec.kind == "sentiment":
            return self._score(texts[0])
        return self._class(texts[0])

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {tidy(name): place for place, name in enumerate(self.classes)}

    def _class(self, text: str) -> int:
        if text not in self._places:
            raise Unusable(
                f"{self.spec.label[0]} '{text[:60]}': expected one of {', '.join(self.classes)}"
            )
        return self._places[text]

    def _values(self, texts: list[str]) -> tuple[int, ...]:
        for column, text in zip(self.spec.label, texts, strict=True):
            if text not in ("0", "1"):
                raise Unusable(f"{column} '{text[:60]}': expected 0 or 1")
        return tuple(int(text) for text in texts)

    def _score(self, text: str) -> float:
        low, high = self.spec.range or (0.0, 0.0)
        value = tabular.number(text)
        if not low <= value <= high:
            raise Unusable(
                f"{self.spec.label[0]} '{text[:60]}': expected a number from {low:g} to {high:g}"
            )
        return BOUND * (2 * (value - low) / (high - low) - 1)

    def measured(self, score: float) -> float:
        """Return the number that a score from -3 to 3 stands for."""
        low, high = self.spec.range or (0.0, 0.0)
        return low + (score / BOUND + 1) * (high - low) / 2

    def _split(self, row: Cells) -> str:
        """Return what a row's split means: as `splits` says, else as publishers call it.

        Raises:
            IbmaError: It means nothing. A row is never trained on by mistake.
        """
        said = tidy(row.at[self.spec.split or ""])
        meant = self._meanings.get(split_name(said))
        if meant is None:
            raise IbmaError(
                f"{self.path}: line {row.line}: {self.spec.split} '{said[:60]}': expected train, "
                f"valid or test: say what it means in tables.{self.name}.splits"
            )
        return meant

    @cached_property
    def _meanings(self) -> Mapping[str, str]:
        """Return what each name of a split means, by `split_name`.

        Raises:
            IbmaError: One means two things.
        """
        found: dict[str, str] = {}
        for name, meant in self.spec.splits.items():
            if found.setdefault(split_name(name), meant) != meant:
                raise IbmaError(
                    f"{paths.PARAMS}: tables.{self.name}.splits: '{name}' means two things: "
                    "expected one, capitals do not count: remove the other"
                )
        return SPLITS | found

    def parts(self, row: Cells) -> dict[str, Part]:
        """Return what a row is predicted from; None for what is not there.

        Raises:
            Unusable: A file that is missing or lies outside its folder, or a cell that is no
                number.
        """
        return {
            name: self._part(one, [row.at.get(column, "") for column in one.columns])
            for name, one in self.spec.modalities.items()
        }

    def _part(self, modality: TableModality, texts: list[str]) -> Part:
        if not any(text.strip() for text in texts):
            return None
        if modality.kind == "text":
            return texts[0]
        if modality.kind == "numbers":
            return tuple(
                _number(column, text) for column, text in zip(modality.columns, texts, strict=True)
            )
        try:
            place = self.file(modality, texts[0])
        except IbmaError as error:
            raise Unusable(str(error)) from None
        if not os.path.isfile(place):
            raise Unusable(
                f"{one_line(place)[:200]}: no such file, named in column '{modality.columns[0]}'"
            )
        return place

    def file(self, modality: TableModality, text: str) -> Path:
        """Return the file that a cell names.

        Raises:
            IbmaError: It leads out of its folder.
        """
        folder, start, end = _around(modality.folder or "")
        root, name = paths.checkout() / folder, f"{start}{text.strip()}{end}"
        names = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in FORMS)))
        places = [inside(root, each) for each in names]
        return next(filter(os.path.isfile, places), places[0])

    # --- all rows together -------------------------------------------------------------------

    def refuse_no_files(self, path: Path) -> None:
        """Raise an error if a column of files names none that is there: a wrong folder or name.

        Raises:
            IbmaError: It shows the first name of the table and the first of the folder.
        """
        for one in self.spec.modalities.values():
            if one.folder is None:
                continue
            folder = paths.checkout() / _around(one.folder)[0]
            if not folder.is_dir():
                raise IbmaError(f"{folder}: no such folder: correct `folder` in tables.{self.name}")
            first = None
            for text in self._named(path, one):
                if _is_file(self, one, text):
                    break
                first = first or text
            else:
                if first is not None:
                    there = next((each.name for each in sorted(folder.iterdir())), "nothing")
                    raise IbmaError(
                        f"{path}: no file of column '{one.columns[0]}' is in {folder}: the first "
                        f"is '{first}', there the first is '{there}': correct `folder` in "
                        f"tables.{self.name}: 'folder/{HOLE}.png' completes names"
                    )

    def _named(self, path: Path, modality: TableModality) -> Iterator[str]:
        """Yield what the cells of a column of files hold, less those that are empty."""
        for row in self.rows(path, modality.columns):
            if isinstance(row, Cells) and (text := row.at[modality.columns[0]].strip()):
                yield text

    def _folds(self, path: Path) -> dict[str, str]:
        """Draw folds that keep groups whole and classes alike; return id -> fold.

        Raises:
            IbmaError: There are fewer groups than folds.
        """
        from sklearn.model_selection import StratifiedGroupKFold

        ids, groups, labels = [], [], []
        for row in self.rows(path, self.columns):
            if isinstance(row, Cells):
                ids.append(row.id)
                groups.append(self._group_name(row))
                labels.append(self._stratum(row))
        if len(set(groups)) < self.spec.folds:
            raise IbmaError(
                f"{path}: {len(set(groups))} groups for {self.spec.folds} folds: lower "
                f"tables.{self.name}.folds, or give a column of splits"
            )
        rare = {name for name, count in Counter(labels).items() if count < self.spec.folds}
        strata = ["" if label in rare else label for label in labels]
        splitter = StratifiedGroupKFold(
            self.spec.folds, shuffle=True, random_state=self.spec.fold_seed
        )
        drawn: dict[str, str] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of what is rare even when put together
            for fold, (_, held_out) in enumerate(splitter.split(ids, strata, groups)):
                drawn |= {ids[place]: f"fold{fold}" for place in held_out}
        return drawn

    def _stratum(self, row: Cells) -> str:
        try:
            label = self.label(row)
        except Unusable:
            return ""
        return str(round(label)) if isinstance(label, float) else str(label)

    def manifest(self, digest: str) -> dict[str, Any]:
        """List the files of the table, as `fetch.dataset` does of a raw folder.

        The table is known by its bytes. The files that it names are known by size and time, so that
        gigabytes need not be read at every run.

        Args:
            digest: of whatever else features depend on, such as the reader's code.

        Raises:
            IbmaError: The file is missing or no such table.
        """
        path, named = self.path, hashlib.sha256(f"{self.spec.model_dump_json()} {digest}".encode())
        for one in self.spec.modalities.values():
            for text in self._named(path, one) if one.folder is not None else ():
                named.update(_stamp(self, one, text))
        next(self.rows(path, self.columns))
        listed = [[self.spec.file, path.stat().st_size, checksums.sha256(path)]]
        found = {"source": "real", "missing": None, "served": [], "files": listed}
        return found | {"named": named.hexdigest()}


def _is_file(table: TableData, modality: TableModality, text: str) -> bool:
    try:
        return os.path.isfile(table.file(modality, text))
    except IbmaError:  # it leads out of its folder
        return False


def _stamp(table: TableData, modality: TableModality, text: str) -> bytes:
    """Return what changes when the file does that a cell names."""
    if not _is_file(table, modality, text):
        return f"{text} missing ".encode()
    state = table.file(modality, text).stat()
    return f"{text} {state.st_size} {state.st_mtime_ns} ".encode()


def _around(folder: str) -> tuple[str, str, str]:
    """Return the folder of `pictures/x{}.png`, and what stands before and after a cell's text."""
    before, hole, end = folder.partition(HOLE)
    if not hole:
        return folder, "", ""
    root, slash, start = before.rpartition("/")
    return root or slash, start, end


def _number(column: str, text: str) -> float:
    value = tabular.number(text.strip())
    if not abs(value) <= LARGEST:
        raise Unusable(f"{column} '{text[:60]}': expected a number up to {LARGEST:g}")
    return value


def _shown(column: str | None, name: str) -> str:
    """Return a name that a line of text can hold.

    Raises:
        Unusable: It holds line breaks, or characters that cannot be seen.
    """
    if not name.isprintable():
        raise Unusable(
            f"{column} {name[:60]!r}: expected text without line breaks and hidden characters"
        )
    return name


def split_name(text: str) -> str:
    """Return a name of a split as it is compared with others: capitals do not count."""
    return tidy(text).casefold()


def modality_name(column: str, taken: Container[str] = ()) -> str:
    """Return a column's name as a modality may be called.

    Args:
        taken: what others are called, in lower case: file systems may not tell cases apart.
    """
    name = re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_")
    name = (name if name[:1].isalpha() else f"x_{name}")[:LONGEST].rstrip("_")
    free = (f"{name}_{count}" if count > 1 else name for count in range(1, 1000))
    return next(one for one in free if one.lower() not in taken and one not in TAKEN)
