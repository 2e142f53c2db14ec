"""Check that committed reports say what the records say (`ibma verify`).

A profile with committed evidence is checked against it, so that a clone is enough. Another profile
is checked against the records under runs/. Numbers are compared as numbers, everything else as
text.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ibma import paths
from ibma.errors import IbmaError
from ibma.evidence import archive
from ibma.files import read_json
from ibma.params import load
from ibma.report import inputs as report_inputs
from ibma.report import numbers
from ibma.report.inputs import Inputs
from ibma.report.numbers import Numbers
from ibma.report.table import Scalar
from ibma.results import records

EQUAL = 1e-8  # relative; files hold ten digits, and processors differ beyond them
CHECKED = ("tables", "metrics")  # folders in which no other file may be

Place = tuple[str, str, str]  # where, committed, recomputed; both are equal where they agree


@dataclass(frozen=True)
class Difference:
    """One place of a committed file that the records do not confirm."""

    file: str
    place: str
    committed: str
    recomputed: str


@dataclass(frozen=True)
class Outcome:
    """What the check of one profile gives.

    source: `evidence` or `records`. runs: records read. compared: cells of CSV files, entries of
    JSON files and lines of the others.
    """

    profile: str
    source: str
    runs: int
    compared: int
    differences: tuple[Difference, ...]


def profiles(root: Path) -> list[str]:
    """List the profiles that can be checked: those with evidence, and the one with records.

    Raises:
        IbmaError: there is none.
    """
    reports = root / paths.REPORTS
    names = [path.parent.parent.name for path in reports.glob(f"*/evidence/{archive.SUMS}")]
    if (root / paths.PARAMS).exists():
        params = load(root / paths.PARAMS)
        if (reports / params.profile / "tables").exists() and records.load(params, root).all():
            names.append(params.profile)
    if not names:
        raise IbmaError(
            f"{root.resolve()}: neither reports/<profile>/evidence/ nor records under runs/: run "
            "this in the repository, or `make repro` first"
        )
    return sorted(set(names))


def unchecked(root: Path, names: Sequence[str]) -> list[str]:
    """List the profiles that have a report and are not among `names`."""
    reported = {path.parent.name for path in (root / paths.REPORTS).glob("*/tables")}
    return sorted(reported - set(names))


def verify(profile: str, root: Path) -> Outcome:
    """Recompute every number of reports/<profile>/ and compare it with the committed files.

    Statistics start from the records: nothing that a stage derived from them is trusted.

    Raises:
        IbmaError: the profile has neither evidence nor records, or its evidence was changed.
    """
    inputs, source = read(profile, root)
    results = inputs.results
    missing = [Difference(source, "/".join(cell), why, "") for cell, why in results.gaps.items()]
    made = numbers.build(report_inputs.rederive(inputs))
    places = list(_compare(root / paths.REPORTS / profile, made))
    apart = [place for place in places if place.committed != place.recomputed]
    return Outcome(profile, source, len(results.all()), len(places), (*missing, *apart))


def read(profile: str, root: Path) -> tuple[Inputs, str]:
    """Read the evidence of a profile, or else its records below `root`.

    Returns:
        What a report is made of, and `evidence` or `records`.

    Raises:
        IbmaError: there is neither, or the evidence was changed.
    """
    held = archive.folder(root, profile)
    if held.exists():
        with TemporaryDirectory() as scratch:
            archive.unpack(held, Path(scratch))
            params = load(Path(scratch) / paths.PARAMS)
            return report_inputs.load(params, Path(scratch), check_keys=False), "evidence"
    params = load(root / paths.PARAMS)
    if params.profile != profile:
        raise IbmaError(
            f"{held}: no evidence of profile '{profile}' is committed, and params.yaml is profile "
            f"'{params.profile}': `ibma profile {profile}` and `make repro`"
        )
    return report_inputs.load(params, root), "records"


def _compare(committed: Path, made: Numbers) -> Iterator[Difference]:
    """Yield every place of the files on either side."""
    for name, rows in made.rows.items():
        yield from _places(name, _compare_rows(committed / name, rows))
    for name, metrics in made.metrics.items():
        yield from _places(name, _compare_values(read_json(committed / name, {}), metrics))
    for name, text in made.texts.items():
        yield from _places(name, _compare_lines(committed / name, text))
    known = {*made.rows, *made.metrics, *made.texts}
    for folder in CHECKED:
        for path in sorted((committed / folder).glob("*")):
            if (name := path.relative_to(committed).as_posix()) not in known:
                yield Difference(name, "the file", "is there", "belongs to no table or task")


def _places(file: str, places: Iterator[Place]) -> Iterator[Difference]:
    return (Difference(file, *place) for place in places)


def _compare_rows(path: Path, rows: Sequence[Mapping[str, Scalar]]) -> Iterator[Place]:
    """Yield every cell of a CSV file."""
    committed: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            committed = list(csv.DictReader(file, restkey="more", restval=""))
    nothing: Mapping[str, Any] = {}
    pairs = zip_longest(committed, rows, fillvalue=nothing)
    for number, (held, row) in enumerate(pairs, 1):
        for where, text, recomputed in _compare_values(held, row):
            yield f"row {number}, {where}", text, recomputed


def _compare_values(held: Mapping[str, object], row: Mapping[str, Scalar]) -> Iterator[Place]:
    """Yield every value of two mappings; a missing one is empty."""
    for name in dict.fromkeys((*held, *row)):
        text, value = _text(held.get(name)), row.get(name)
        yield name, text, text if _agree(text, value) else _text(value)


def _compare_lines(path: Path, text: str) -> Iterator[Place]:
    """Yield every line of a text."""
    committed = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = zip_longest(committed.splitlines(), text.splitlines(), fillvalue="")
    return ((f"line {number}", *pair) for number, pair in enumerate(lines, 1))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _agree(text: str, value: Scalar) -> bool:
    """Return whether a committed text is a recomputed value, as a number where it is one."""
    if not isinstance(value, float):
        return text == _text(value)
    try:
        return math.isclose(float(text), value, rel_tol=EQUAL, abs_tol=EQUAL)
    except ValueError:
        return False
