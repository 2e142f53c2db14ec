"""The paper's Tables 1-16, as printed, addressed by (table, row, column).

`published.yaml` in this folder is the source. Numbers keep the paper's units: percent, fraction,
minutes (per epoch), nats, count, or p (a p-value); records hold fractions, so a reader of both
multiplies by 100 where the unit is percent. Citations in row labels follow the paper's reference
list, not the misspelt names inside some of its tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import yaml
from pydantic import (
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from ibma.errors import IbmaError, one_line

PATH = Path(__file__).with_name("published.yaml")
KNOWN_KEYS = ConfigDict(extra="forbid")

Text = Annotated[str, Strict()]
Switch = Annotated[bool, Strict()]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Unit = Literal["percent", "fraction", "minutes", "nats", "count", "p"]


@dataclass(frozen=True, config=KNOWN_KEYS)
class Cell:
    """One printed number, its standard deviation, and whether it is bold or underlined."""

    value: Finite
    sd: Finite | None = None
    best: Switch = False
    second: Switch = False


@dataclass(frozen=True, config=KNOWN_KEYS)
class Column:
    """A column: what it measures, in which unit; `eta` only where the column fixes it."""

    key: Text
    label: Text
    unit: Unit
    task: Text | None = None
    method: Text | None = None
    metric: Text | None = None
    eta: Finite | None = None


@dataclass(frozen=True, config=KNOWN_KEYS)
class Row:
    """A row and its cells by column key; a cell the paper leaves empty is absent."""

    key: Text
    label: Text
    cells: dict[str, Cell]
    task: Text | None = None
    method: Text | None = None
    metric: Text | None = None


Keyed = TypeVar("Keyed", Row, Column)


@dataclass(frozen=True)
class Target:
    """What a cell measures, by the keys of our records; None where the table names nothing."""

    task: str | None
    method: str | None
    metric: str | None
    eta: float | None


@dataclass(frozen=True, config=KNOWN_KEYS)
class Table:
    """One table; `compares` is the number of the table whose rows a significance table tests."""

    number: int
    title: Text
    caption: Text
    row_header: Text
    unit: Unit
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    compares: int | None = None

    @field_validator("columns", mode="before")
    @classmethod
    def _have_a_unit(cls, columns: object, info: ValidationInfo) -> object:
        """Give columns that name no unit that of the table."""
        if not isinstance(columns, list):
            return columns
        return [_with(column, unit=info.data.get("unit")) for column in columns]

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        columns = [column.key for column in self.columns]
        for keys in (columns, [row.key for row in self.rows]):
            for place, key in enumerate(keys):
                if key in keys[:place]:
                    raise PydanticCustomError("twice", "key {key} is there twice", {"key": key})
        for row in self.rows:
            for key in row.cells.keys() - columns:
                told = {"row": row.key, "key": key}
                raise PydanticCustomError("column", "row {row}: no column has key {key}", told)
        return self

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


@dataclass(frozen=True, config=KNOWN_KEYS)
class Published:
    """Every table by number."""

    tables: dict[int, Table]

    @field_validator("tables", mode="before")
    @classmethod
    def _know_their_number(cls, tables: object) -> object:
        if not isinstance(tables, dict):
            return tables
        return {number: _with(table, number=number) for number, table in tables.items()}

    @model_validator(mode="after")
    def _compare_with_known_ones(self) -> Self:
        for number, table in self.tables.items():
            if table.compares not in (None, *self.tables):
                told = {"number": number, "other": table.compares}
                raise PydanticCustomError("table", "{number}: compares: no table {other}", told)
        return self

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
        IbmaError: in one line, the file, the place at fault, what was expected and found.
    """
    try:
        return TypeAdapter(Published).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise IbmaError(
            f"{path}: cannot be read as YAML ({one_line(error)}): restore the file"
        ) from None
    except ValidationError as caught:
        first = caught.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        found = "" if isinstance(first["input"], dict) else f", found {first['input']!r}"
        raise IbmaError(f"{path}: {place}: {first['msg']}{found}: correct it") from None


def _with(entry: object, **defaults: object) -> object:
    """Add defaults to a mapping; whatever else stands in its place is refused by its type."""
    return defaults | entry if isinstance(entry, dict) else entry


def _find(items: tuple[Keyed, ...], key: str, what: str) -> Keyed:
    for item in items:
        if item.key == key:
            return item
    raise IbmaError(f"{what} {key} does not exist: use one of {', '.join(i.key for i in items)}")
