"""The paper's Tables 1-16, as printed, addressed by (table, row, column).

`published.yaml` in this folder is the source. Numbers keep the paper's units: percent, fraction,
minutes (per epoch), nats, count, or p (a p-value); records hold fractions, so a reader of both
multiplies by 100 where the unit is percent. Citations in row labels follow the paper's reference
list, not the misspelt names inside some of its tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from ibma.errors import IbmaError, one_line

PATH = Path(__file__).with_name("published.yaml")
UNITS = ("percent", "fraction", "minutes", "nats", "count", "p")
KINDS = {"str": "text", "bool": "true or false", "int": "a whole number", "float": "a number"}


@dataclass(frozen=True)
class Cell:
    """One printed number, its standard deviation, and whether it is bold or underlined."""

    value: float
    sd: float | None = None
    best: bool = False
    second: bool = False


@dataclass(frozen=True)
class Column:
    """A column: what it measures, in which unit; `eta` only where the column fixes it."""

    key: str
    label: str
    unit: str
    task: str | None = None
    method: str | None = None
    metric: str | None = None
    eta: float | None = None


@dataclass(frozen=True)
class Row:
    """A row and its cells by column key; a cell the paper leaves empty is absent."""

    key: str
    label: str
    cells: Mapping[str, Cell]
    task: str | None = None
    method: str | None = None
    metric: str | None = None


T = TypeVar("T")
Keyed = TypeVar("Keyed", Row, Column)


@dataclass(frozen=True)
class Target:
    """What a cell measures, by the keys of our records; None where the table names nothing."""

    task: str | None
    method: str | None
    metric: str | None
    eta: float | None


@dataclass(frozen=True)
class Table:
    """One table; `compares` is the number of the table whose rows a significance table tests."""

    number: int
    title: str
    caption: str
    row_header: str
    unit: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    compares: int | None = None

    def row(self, key: str) -> Row:
        """Return a row by its key.

        Raises:
            IbmaError: there is none; the message names those there are.
        """
        return _find(self.rows, key, f"table {self.number}: row")

    def column(self, key: str) -> Column:
        """Return a column by its key.

        Raises:
            IbmaError: there is none; the message names those there are.
        """
        return _find(self.columns, key, f"table {self.number}: column")

    def cell(self, row: str, column: str) -> Cell:
        """Return the cell of a row and a column.

        Raises:
            IbmaError: the paper has no number there.
        """
        cells = self.row(row).cells
        if self.column(column).key not in cells:
            raise IbmaError(
                f"table {self.number}: row {row}: the paper prints nothing in column {column}: "
                "ask for another cell"
            )
        return cells[column]

    def target(self, row: str, column: str) -> Target:
        """Return what a cell measures; where row and column both say it, the column does."""
        r, c = self.row(row), self.column(column)
        return Target(c.task or r.task, c.method or r.method, c.metric or r.metric, c.eta)


@dataclass(frozen=True)
class Published:
    """Every table by number."""

    tables: Mapping[int, Table]

    def table(self, number: int) -> Table:
        """Return a table by its number.

        Raises:
            IbmaError: the paper has no such table.
        """
        if number not in self.tables:
            known = ", ".join(map(str, self.tables))
            raise IbmaError(f"table {number} is not in published.yaml: use one of {known}")
        return self.tables[number]

    def cell(self, table: int, row: str, column: str) -> Cell:
        """Return one cell.

        Raises:
            IbmaError: the table, row or column does not exist.
        """
        return self.table(table).cell(row, column)


def load(path: Path = PATH) -> Published:
    """Read and check a file of published tables.

    Raises:
        IbmaError: in one line, the file and the table, row, column or key at fault.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise IbmaError(
            f"{path}: cannot be read as YAML ({one_line(error)}): restore the file"
        ) from None
    tables = raw.get("tables") if isinstance(raw, dict) else None
    if not isinstance(tables, dict) or list(raw) != ["tables"]:
        raise IbmaError(f"{path}: expected one mapping `tables` of number: table: restore the file")
    made = {
        number: _table(number, body, f"{path}: table {number}") for number, body in tables.items()
    }
    for number, table in made.items():
        if table.compares is not None and table.compares not in made:
            raise IbmaError(
                f"{path}: table {number}: compares: expected the number of another table, "
                f"found {table.compares}: correct it"
            )
    return Published(made)


def _table(number: object, body: object, where: str) -> Table:
    entries = _mapping(body, where)
    columns = tuple(
        _make(Column, {"unit": entries.get("unit"), **_mapping(column, at)}, at)
        for column, at in _items(entries, "columns", where)
    )
    rows = tuple(_row(row, columns, at) for row, at in _items(entries, "rows", where))
    table = _make(Table, {**entries, "number": number}, where, columns=columns, rows=rows)
    _check_unit(table.unit, where)
    for column in columns:
        _check_unit(column.unit, f"{where}: column {column.key}")
    return table


def _check_unit(unit: str, where: str) -> None:
    if unit not in UNITS:
        raise IbmaError(
            f"{where}: unit: expected one of {', '.join(UNITS)}, found {unit}: correct it"
        )


def _row(body: object, columns: tuple[Column, ...], where: str) -> Row:
    entries = _mapping(body, where)
    cells = {}
    for key, cell in _mapping(entries.get("cells"), f"{where}: cells").items():
        at = f"{where}: cell {key}"
        if key not in {column.key for column in columns}:
            raise IbmaError(f"{at}: expected the key of a column of this table: correct it")
        cells[key] = _make(Cell, _mapping(cell, at), at)
    return _make(Row, entries, where, cells=cells)


def _items(entries: Mapping[str, Any], name: str, where: str) -> list[tuple[object, str]]:
    """List each entry of a list with its place, which is its key; keys differ."""
    items = entries.get(name)
    if not isinstance(items, list) or not items:
        raise IbmaError(f"{where}: {name}: expected a list, found {items!r}: correct it")
    keys = [item.get("key") if isinstance(item, dict) else None for item in items]
    for position, key in enumerate(keys):
        if key in keys[:position]:
            raise IbmaError(f"{where}: {name}: key {key} is there twice: rename or remove one")
    return [(item, f"{where}: {name[:-1]} {key}") for item, key in zip(items, keys, strict=True)]


def _mapping(body: object, where: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise IbmaError(f"{where}: expected a mapping, found {body!r}: correct it")
    return body


def _make(cls: type[T], entries: Mapping[str, Any], where: str, **parts: object) -> T:
    """Build `cls` from scalars checked against its annotations, and `parts` that are built."""
    expected = {field.name: field for field in fields(cast(Any, cls))}
    for key in entries:
        if key not in expected:
            raise IbmaError(f"{where}: {key}: unknown key: use {', '.join(expected)}")
    for name, field in expected.items():
        if name in parts:
            continue
        kind = str(field.type).removesuffix(" | None")
        right = _is(kind, entries[name]) if name in entries else field.default is not MISSING
        if not right:
            found = repr(entries[name]) if name in entries else "nothing"
            raise IbmaError(f"{where}: {name}: expected {KINDS[kind]}, found {found}: correct it")
    return cls(**{**entries, **parts})


def _is(kind: str, value: object) -> bool:
    match kind:
        case "str":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case _:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and math.isfinite(cast(float, value))


def _find(items: tuple[Keyed, ...], key: str, what: str) -> Keyed:
    for item in items:
        if item.key == key:
            return item
    raise IbmaError(f"{what} {key} does not exist: use one of {', '.join(i.key for i in items)}")
