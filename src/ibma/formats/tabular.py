"""One reader for the tables that data sets come with."""

from __future__ import annotations

import csv
import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ibma.errors import IbmaError


def rows(
    path: Path, columns: Sequence[str], advice: str, *, delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a UTF-8 table with a header, plain or gzipped.

    columns: names that the header must have. advice: how a user gets the file. A byte-order mark is
    harmless; line breaks inside quotes are part of a cell.

    Raises IbmaError naming the file, and the column or line: no such file, a column that is
    missing, a row with too few cells, bytes that are not UTF-8, a damaged gzip.
    """
    if not path.exists():
        raise IbmaError(f"{path}: missing: {advice}")
    remedy = f"use the original file (UTF-8): {advice}"
    csv.field_size_limit(sys.maxsize)  # a radiology report is longer than csv's default of 128 KiB
    opened = gzip.open if path.suffix == ".gz" else open
    line = 0
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise IbmaError(f"{path}: column '{missing[0]}' is missing: {remedy}")
            for row in reader:
                line = reader.line_num
                if None in row.values():
                    raise IbmaError(f"{path}: line {line}: too few cells: {remedy}")
                yield line, {name: cell for name, cell in row.items() if name is not None}
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IbmaError(f"{path}: after line {line}: {error}: {remedy}") from None
