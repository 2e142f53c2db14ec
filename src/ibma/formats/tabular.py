"""Read the tables that data sets come with, and refuse by name whatever is not as it should be.

Cells stay text: an id such as `0012`, `NA` or `None` is no number and no gap.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from ibma.errors import IbmaError, tidy
from ibma.formats import raw
from ibma.formats.archives import DAMAGE

DIGITS = 18  # of a whole number; 64 bits hold them


@dataclass(frozen=True)
class Column:
    """What the cells of a column may hold.

    Attributes:
        kind: `text`; `name`: text that is not empty; `integer`: up to DIGITS digits; `number`: a
            finite number; `measure`: one that may be missing, see `measure`.
        values: All texts that are allowed; None allows any.
        low: The smallest number that is allowed.
        high: The largest one.
    """

    kind: Literal["text", "name", "integer", "number", "measure"] = "text"
    values: Collection[str] | None = None
    low: float = -math.inf
    high: float = math.inf

    def expects(self, cell: str) -> str:
        """Return what was expected in place of a cell; empty if the cell is right."""
        if self.values is not None:
            return "" if cell in self.values else f"one of {', '.join(map(repr, self.values))}"
        if self.kind == "name":
            return "" if cell.strip() else "text"
        if self.kind == "integer":
            whole = cell.isascii() and cell.isdecimal() and len(cell) <= DIGITS
            return "" if whole else f"a whole number of at most {DIGITS} digits"
        value = number(cell)
        if self.kind == "number" and not (self.low <= value <= self.high and math.isfinite(value)):
            bounded = math.isfinite(self.low)
            return f"a number from {self.low:g} to {self.high:g}" if bounded else "a finite number"
        if self.kind == "measure" and not math.isfinite(value) and cell.lower() not in MISSING:
            return "a finite number, or nothing"
        return ""


MISSING = ("", "nan", "na")
TEXT, NAME, INTEGER = Column(), Column("name"), Column("integer")
NUMBER, MEASURE = Column("number"), Column("measure")


@dataclass(frozen=True)
class Table:
    """How a table of a publisher looks.

    Attributes:
        columns: The columns that are read. Others may be there, in any order.
        advice: How a user gets the file.
        unique: Columns that together name a row; no two rows may agree in them.
        delimiter: What separates cells.
        header: Whether the first line names the columns. Without one the columns are these, in
            this order, and no others.
        own: Whether the user made it, who can mend it.
    """

    columns: Mapping[str, Column]
    advice: str
    unique: Sequence[str] = ()
    delimiter: str = ","
    header: bool = True
    own: bool = False

    @property
    def remedy(self) -> str:
        """Return what a user does about a wrong file."""
        return self.advice if self.own else f"use the original file: {self.advice}"


def rows(path: Path, table: Table) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, column -> cell) of a UTF-8 table, plain or gzipped.

    A byte-order mark and blank lines are harmless; line breaks inside quotes are part of a cell.

    Raises:
        IbmaError: In one line that names the file, and the line or column: the file is missing,
            damaged, not UTF-8 or holds a NUL; a column is missing or there twice; a row has too
            many or too few cells, a quote that is not closed, a cell that is not what its column
            asks for, or names the same thing as another row; there is no row; there are too many.
    """
    for line, found in entries(path, table):
        if isinstance(found, Exception):
            raise _error(path, line, found, table)
        yield line, found


def entries(path: Path, table: Table) -> Iterator[tuple[int, dict[str, str] | Exception]]:
    """Yield what `rows` does, and for a wrong row what is wrong with it; then go on.

    After a quote that is not closed it goes on with the line below the one that opens it.

    Raises:
        IbmaError: The file as a whole is not readable, or lacks a column or any row.
    """
    csv.field_size_limit(raw.LINE)
    seen: dict[tuple[str, ...], int] = {}
    count, line, before = 0, 0, list[str]()
    try:
        with _opened(path, table) as lines:
            reader = csv.reader(lines, delimiter=table.delimiter, strict=True)
            names = _header(reader, table)
            check_columns(names, path, table)
            while True:
                try:
                    lines.begin()
                    cells = next(reader)
                    line = lines.number
                    if not cells:
                        continue
                    _check_quotes(lines.record, cells, before, table.delimiter)
                    count, before = count + 1, cells
                    found = _row(names, cells, table)
                    _check_unique(found, line, seen, table)
                except StopIteration:
                    break
                except csv.Error as error:
                    count, line = count + 1, lines.again()
                    yield line, _Wrong(f"a quote is not closed, or not doubled inside ({error})")
                except _Wrong as error:
                    yield line, error
                else:
                    yield line, found
                if count > raw.ROWS:
                    raise _Wrong(f"more than {raw.ROWS:,} rows")
    except (_Wrong, csv.Error, *DAMAGE) as error:
        raise _error(path, line, error, table) from None
    if not count:
        raise IbmaError(f"{path}: holds no row: {table.remedy}")


@contextmanager
def _opened(path: Path, table: Table) -> Iterator[_Lines]:
    """Open a table, plain or gzipped; bytes that are no UTF-8 become halves of characters."""
    raw.present(path, table.advice)
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        yield _Lines(raw.lines(file, path))


class _Lines:
    """The lines of a table; after a broken row those below its first one are read once more.

    Attributes:
        record: the lines of the present row.
        number: of the last one of these, from 1.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._waiting = lines, deque[str]()
        self.record, self.number = list[str](), 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self.record.append(line)
        self.number += 1
        try:
            line.encode()
        except UnicodeEncodeError:
            raise _NoText(self.number) from None
        return line

    def begin(self) -> None:
        """Begin a row."""
        self.record.clear()

    def again(self) -> int:
        """Give back all lines of the present row but the first; return the number of that one."""
        self._waiting.extendleft(reversed(self.record[1:]))
        self.number -= max(0, len(self.record) - 1)
        return self.number


def _check_quotes(
    record: Sequence[str], cells: Sequence[str], before: Sequence[str], delimiter: str
) -> None:
    """Refuse a cell that holds rows, since its quote was closed some rows later.

    Text may have line breaks. CHOICE: a line is taken for a row if it has as many cells as one and
    shares one with this row or the one before, such as the split.
    """
    if len(record) == 1:
        return
    broken = max((place for place, cell in enumerate(cells) if "\n" in cell), default=0)
    for place, line in enumerate(record[1:], 2):
        parts = next(csv.reader([line], delimiter=delimiter), [])
        if len(parts) != len(cells):
            continue
        own = broken if place == len(record) else len(cells)  # the last line ends with this row
        for row in (cells, before):
            if any(a.strip() and a == b for a, b in zip(parts[:own], row, strict=False)):
                raise csv.Error("its cell goes on over other rows")


def _error(path: Path, line: int, error: Exception, table: Table) -> IbmaError:
    where = f"line {line}" if isinstance(error, _Wrong) else f"after line {line}"
    where = f"line {error.line}" if isinstance(error, _NoText) else where
    return IbmaError(f"{path}: {where}: {error}: {table.remedy}")


def _check_unique(
    row: Mapping[str, str], line: int, seen: dict[tuple[str, ...], int], table: Table
) -> None:
    key = tuple(tidy(row[name]) for name in table.unique)
    if key and seen.setdefault(key, line) != line:
        raise _Wrong(f"'{' '.join(key)}' is already in line {seen[key]}")


class _Wrong(Exception):
    """What is wrong with a line."""


class _NoText(ValueError):
    """A line is no UTF-8, as in a table of another encoding or in a file that is no table."""

    def __init__(self, line: int) -> None:
        super().__init__("no UTF-8 text, save it as UTF-8 text")
        self.line = line


def header(path: Path, table: Table) -> list[str]:
    """Return the names of a table's columns as they stand there, whatever they are.

    Raises:
        IbmaError: The file is missing, no text, or its first line is damaged.
    """
    try:
        with _opened(path, table) as lines:
            return _header(csv.reader(lines, delimiter=table.delimiter, strict=True), table)
    except (csv.Error, *DAMAGE) as error:
        raise _error(path, 0, error, table) from None


def _header(reader: Iterator[list[str]], table: Table) -> list[str]:
    return next(reader, []) if table.header else list(table.columns)


def check_columns(names: Sequence[str], path: Path, table: Table) -> None:
    """Raise an error unless every column of a table is there, and none twice.

    Columns without a name that nobody reads may be there any number of times: spreadsheets add
    them.

    Raises:
        IbmaError: It names the column.
    """
    for name in table.columns:
        if name not in names:
            found = listed(names)
            raise IbmaError(
                f"{path}: column '{name}' is missing, its columns are {found}: {table.remedy}"
            )
    for name in names:
        if names.count(name) > 1 and (name or name in table.columns):
            raise IbmaError(f"{path}: column '{name}' is there twice: {table.remedy}")


def listed(names: Iterable[str]) -> str:
    """Return names for an error: in quotes, so that blanks around them are seen."""
    return ", ".join(f"'{name}'" for name in islice(names, 20))[:300] or "nothing"


def _row(header: Sequence[str], cells: Sequence[str], table: Table) -> dict[str, str]:
    if len(cells) != len(header):
        raise _Wrong(f"{len(cells)} cells, expected {len(header)}")
    found = dict(zip(header, cells, strict=True))
    for name, column in table.columns.items():
        if expected := column.expects(found[name]):
            raise _Wrong(f"{name} '{found[name][:60]}': expected {expected}")
    return {name: found[name] for name in table.columns}


def seen(text: str) -> str:
    """Return a text whose hidden characters are escaped, as Python and YAML read them."""
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)


def measure(cell: str) -> float:
    """Return a number that may be missing; NaN then, so that extraction names the sample."""
    return math.nan if cell.lower() in MISSING else float(cell)


def number(cell: str) -> float:
    """Return a cell as a number, NaN if it is none; Python's own `1_000` is none."""
    try:
        return math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan


def refuse_no_match(
    left: Iterable[str], right: Collection[str], names: tuple[object, object], advice: str
) -> None:
    """Raise an error if two sides of a join have nothing in common.

    Args:
        left: Keys of the one side; read up to the first that matches.
        right: Keys of the other side.
        names: What the two sides are called.
        advice: What to do.

    Raises:
        IbmaError: Nothing matches; it shows the first key of each side.
    """
    first = None
    for key in left:
        if key in right:
            return
        first = key if first is None else first
    if first is not None:
        other = f"'{next(iter(right))}'" if right else "nothing"
        raise IbmaError(
            f"{names[1]}: nothing in it matches {names[0]}: there the first is '{first}', here "
            f"{other}: {advice}"
        )
