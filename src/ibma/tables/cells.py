"""Read the rows of a table file as text: CSV, TSV and Parquet alike.

Cells stay text, as in `formats.tabular`: an id such as `0012` or `NA` is no number and no gap.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from ibma.errors import IbmaError, tidy
from ibma.formats import raw, tabular
from ibma.formats.tabular import Table
from ibma.params import TableParams

ADVICE = "correct it, or the block of this table in params.yaml"
PARQUET = (".parquet", ".pq")
DELIMITERS = {".tsv": "\t", ".tab": "\t"}
BATCH = 8192  # rows of Parquet that are unpacked at once
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


def delimiter_of(path: Path, likely: str = ",", named: Collection[str] = ()) -> str:
    """Tell what separates the cells from the first line of a table.

    Args:
        likely: what it is taken for where others are no better.
        named: columns that should be there; else what makes the most columns is best.
    """
    suffix = path.suffix.lower()
    if suffix in DELIMITERS or suffix in PARQUET:
        return DELIMITERS.get(suffix, ",")
    fits: dict[str, tuple[int, int]] = {
        each: _fit(path, each, named) for each in (likely, *",;\t|")
    }
    return max(fits, key=lambda each: fits[each])


def _fit(path: Path, delimiter: str, named: Collection[str]) -> tuple[int, int]:
    """Return how many columns such a delimiter makes: of those that are named, and of any.

    Both are 0 where quotes do not fit between such delimiters.
    """
    try:
        names = tabular.header(path, Table({}, ADVICE, delimiter=delimiter, own=True))
    except IbmaError:
        return 0, 0
    return len(set(names) & set(named)), len(names)


def columns_of(
    path: Path, delimiter: str, named: Iterable[str] = (), advice: str = ADVICE
) -> list[str]:
    """Return the names of a table's columns.

    Args:
        named: columns that must be there, each once.
        advice: what to do about one that is not.

    Raises:
        IbmaError: The file is missing, no table, or lacks one of them.
    """
    table = Table(dict.fromkeys(named, tabular.TEXT), advice, delimiter=delimiter, own=True)
    if path.suffix.lower() in PARQUET:
        names = list(_opened(path).schema_arrow.names)
    else:
        names = tabular.header(path, table)
    tabular.check_columns(names, path, table)
    return names


def _opened(path: Path, columns: Iterable[str] = ()) -> Any:
    """Open a Parquet file; the texts of some columns are read with each repeated one held once.

    Raises:
        IbmaError: The file is missing, damaged, or larger than what `raw` allows.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    raw.present(path, ADVICE)
    try:
        file = parquet.ParquetFile(
            path, read_dictionary=list(columns), page_checksum_verification=True
        )
    except (arrow.ArrowException, OSError) as error:
        raise raw.unreadable(path, error) from None
    groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
    size, limit = sum(group.total_byte_size for group in groups), raw.unpacked_limit(path)
    if file.metadata.num_rows > raw.ROWS or size > limit:
        raise IbmaError(f"{path}: more than {raw.ROWS:,} rows or {limit:,} bytes: cut it in pieces")
    return file


def _parquet(path: Path, table: Table) -> Iterator[Entry]:
    schema = _opened(path).schema_arrow
    tabular.check_columns(list(schema.names), path, table)
    for name in table.columns:
        kind = schema.field(name).type
        if getattr(kind, "storage_type", kind).num_fields:  # an interval is stored as two values
            raise IbmaError(f"{path}: column '{name}' is of {kind}: expected one value: {ADVICE}")
    line, seen = 1, dict[str, int]()
    for values in _rows(path, list(table.columns)):
        line += 1
        try:
            cells = dict(zip(table.columns, map(_text, values), strict=True))
        except UnicodeDecodeError:
            told = "bytes that are no UTF-8 text, save it as UTF-8 text"
            raise IbmaError(f"{path}: line {line}: {told}: {ADVICE}") from None
        yield line, _wrong(cells, line, seen, table) or cells
    if line == 1:
        raise IbmaError(f"{path}: holds no row: {ADVICE}")


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[object, ...]]:
    """Yield the values of each row; damage shows where a piece of the file is unpacked."""
    import pyarrow as arrow

    file = _opened(path, columns)
    try:
        for batch in file.iter_batches(BATCH, columns=columns):
            yield from zip(*(_values(batch.column(name)) for name in columns), strict=True)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise raw.unreadable(path, error) from None


def _values(column: Any) -> list[object]:
    if not hasattr(column, "dictionary"):
        return list(column.to_pylist())
    known = column.dictionary.to_pylist()
    return [None if place is None else known[place] for place in column.indices.to_pylist()]


def _wrong(cells: dict[str, str], line: int, seen: dict[str, int], table: Table) -> str:
    """Return why the id of a row is none; empty if it is one."""
    for name in table.unique:
        if not (key := tidy(cells[name])):
            return f"{name} '': expected text"
        if seen.setdefault(key, line) != line:
            return f"'{key}' is already in line {seen[key]}"
    return ""


def _text(value: object) -> str:
    """Return a value of Parquet as a CSV file would hold it.

    Raises:
        UnicodeDecodeError: It is bytes of another encoding, or of no text.
    """
    if value is None or value != value:  # NaN, by which pandas marks a missing cell
        return ""
    if isinstance(value, bytes):  # text that its writer did not mark as such
        return value.decode()
    return str(int(value)) if isinstance(value, bool) else str(value)
