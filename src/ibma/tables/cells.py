"""Read the rows of a table file as text: CSV, TSV and Parquet alike.

Cells stay text, as in `formats.tabular`: an id such as `0012` or `NA` is no number and no gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ibma.errors import IbmaError
from ibma.formats import raw, tabular
from ibma.formats.tabular import Table
from ibma.params import TableParams

ADVICE = "correct it, or the block of this table in params.yaml"
PARQUET = (".parquet", ".pq")
Entry = tuple[int, dict[str, str] | str]  # line, and its cells or why they cannot be read


def read(path: Path, spec: TableParams, columns: list[str]) -> Iterator[Entry]:
    """Yield the line of each row with its cells, column -> text, or with what is wrong with it.

    A row of Parquet has the number that it would have in a CSV file: the first is 2.

    Raises:
        IbmaError: The file is missing or damaged, lacks a column, or holds no row.
    """
    wanted = dict.fromkeys(columns, tabular.TEXT)
    unique = []
    if spec.id is not None:
        wanted[spec.id], unique = tabular.NAME, [spec.id]
    table = Table(wanted, ADVICE, unique, spec.delimiter, own=True)
    if path.suffix.lower() in PARQUET:
        yield from _parquet(path, table)
        return
    for line, found in tabular.entries(path, table):
        yield line, str(found) if isinstance(found, Exception) else found


def columns_of(path: Path, delimiter: str) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        IbmaError: The file is missing, or no table.
    """
    if path.suffix.lower() in PARQUET:
        return list(_opened(path).schema_arrow.names)
    return tabular.header(path, Table({}, ADVICE, delimiter=delimiter, own=True))


def _opened(path: Path) -> Any:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    raw.present(path, ADVICE)
    try:
        return parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError) as error:
        raise raw.unreadable(path, error) from None


def _parquet(path: Path, table: Table) -> Iterator[Entry]:
    file = _opened(path)
    tabular.check_columns(list(file.schema_arrow.names), path, table)
    line, seen = 1, dict[str, int]()
    for batch in file.iter_batches(columns=list(table.columns)):
        for row in batch.to_pylist():
            line += 1
            cells = {name: _text(value) for name, value in row.items()}
            yield line, _wrong(cells, line, seen, table) or cells
    if line == 1:
        raise IbmaError(f"{path}: holds no row: {ADVICE}")


def _wrong(cells: dict[str, str], line: int, seen: dict[str, int], table: Table) -> str:
    """Return why the id of a row is none; empty if it is one."""
    for name in table.unique:
        if not cells[name].strip():
            return f"{name} '': expected text"
        key = cells[name].strip()
        if seen.setdefault(key, line) != line:
            return f"'{key}' is already in line {seen[key]}"
    return ""


def _text(value: object) -> str:
    """Return a value of Parquet as a CSV file would hold it."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)
