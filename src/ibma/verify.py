"""Do the committed reports say what the records say? How a stranger checks us (`ibma verify`)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ibma import tables
from ibma.errors import IbmaError
from ibma.params import Params

_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Difference:
    """One cell of a table that the records do not bear out."""

    table: str
    place: str
    committed: str
    recomputed: str


def verify(params: Params, root: Path) -> tuple[int, list[Difference]]:
    """Recompute every table from the records and compare it with reports/<profile>/tables/*.csv.

    Returns the number of cells compared and those that differ: in words, or in a number by more
    than one unit of its last printed digit (records of another kind of machine may round the other
    way).

    Raises IbmaError when a committed table is missing.
    """
    compared, differences = 0, []
    for table in tables.build(params, root):
        path = root / "reports" / params.profile / "tables" / f"{table.name}.csv"
        if not path.exists():
            raise IbmaError(f"{path}: missing: `dvc repro report`, or `git checkout` it")
        found = [tables.cells_of(line) for line in table.lines]
        for place, committed, recomputed in _cells(path, table.columns, found):
            compared += 1
            if not _agree(committed, recomputed):
                differences.append(Difference(path.stem, place, committed, recomputed))
    return compared, differences


def _cells(
    path: Path, columns: tuple[str, ...], found: list[tuple[str, ...]]
) -> Iterator[tuple[str, str, str]]:
    """(place, committed, recomputed) of every cell; a line that one side lacks is empty there."""
    with path.open(newline="", encoding="utf-8") as file:
        committed = [tuple(row) for row in csv.reader(file)][2:]  # title, column names
    for number in range(max(len(committed), len(found))):
        empty = ("",) * len(columns)
        ours = found[number] if number < len(found) else empty
        theirs = committed[number] if number < len(committed) else empty
        where = ", ".join((theirs if any(theirs) else ours)[:2])
        for column, one, other in zip(columns, theirs, ours, strict=True):
            yield f"{where}, {column}", one, other


def _agree(one: str, other: str) -> bool:
    """Whether two cells have the same words, and numbers that differ by a last digit at most."""
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(abs(_value(a) - _value(b)) <= 1.001 * max(_unit(a), _unit(b)) for a, b in pairs)


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def _unit(text: str) -> float:
    """One unit of the last printed digit; 0 for whole numbers, which are counts."""
    mantissa, _, exponent = text.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) if decimals or exponent else 0.0
