"""Do the committed reports say what the records say? How a stranger checks us (`ibma verify`).

A profile with committed evidence is checked against it: nothing but the clone is needed, and every
printed digit must come out again. Another profile is checked against the records under runs/, which
may come from another kind of machine: there a number may differ by one unit of its last digit.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

from ibma.errors import IbmaError
from ibma.evidence import archive
from ibma.files import write_json
from ibma.paper import audit, published
from ibma.params import Params, load
from ibma.report import page
from ibma.results import records, significance

_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Difference:
    """One place of a committed file that the records do not bear out."""

    file: str
    place: str
    committed: str
    recomputed: str


@dataclass(frozen=True)
class Outcome:
    """What the check of one profile found.

    source: `evidence` or `records`. runs: records read. compared: cells of CSV files and lines of
    the others.
    """

    profile: str
    source: str
    runs: int
    compared: int
    differences: tuple[Difference, ...]


def profiles(root: Path) -> list[str]:
    """Profiles that can be checked here: those with evidence, and the one whose records are here.

    Raises IbmaError where there is none.
    """
    found = [path.parent.parent.name for path in root.glob(f"reports/*/evidence/{archive.SUMS}")]
    if (root / "params.yaml").exists():
        here = load(root / "params.yaml")
        reported = (root / "reports" / here.profile / "tables").exists()
        if reported and any(records.cells(here, root).values()):
            found.append(here.profile)
    if not found:
        raise IbmaError(
            f"{root.resolve()}: neither reports/<profile>/evidence/ nor records under runs/: run "
            "this in the repository, or `make repro` first"
        )
    return sorted(set(found))


def unchecked(root: Path, names: Sequence[str]) -> list[str]:
    """Profiles that have a report, and are not among `names`."""
    return sorted({path.parent.name for path in root.glob("reports/*/tables")} - set(names))


def verify(profile: str, root: Path) -> Outcome:
    """Recompute every number of reports/<profile>/ and compare it with the committed files.

    Statistics start from the records: nothing that a stage derived from them is trusted.

    Raises IbmaError when the profile has neither evidence nor records here.
    """
    with TemporaryDirectory() as scratch:
        work, held = Path(scratch) / "root", archive.folder(root, profile)
        committed = held.exists()
        params = lay_out(profile, root, work)
        differences = [
            Difference("evidence", name, "sha256 of another content", "") for name in _altered(held)
        ]
        differences += [
            Difference("evidence" if committed else "runs", name, "missing", "")
            for name in archive.missing(params, work)
        ]
        _derive(params, work)
        page.write_numbers(params, work, Path(scratch) / "again")
        places = list(_places(root / "reports" / profile, Path(scratch) / "again"))
        differences += [one for one in places if not _agree(one, exact=committed)]
        runs = sum(len(list(work.glob(f"runs/{t}/{m}/*"))) for t, m in params.names())
    source = "evidence" if committed else "records"
    return Outcome(profile, source, runs, len(places), tuple(differences))


def lay_out(profile: str, root: Path, work: Path) -> Params:
    """Lay a profile's evidence, or else its records under `root`, out in the folder `work`.

    Raises IbmaError when there is neither.
    """
    held = archive.folder(root, profile)
    if held.exists():
        archive.unpack(held, work)
        return load(work / "params.yaml")
    params = load(root / "params.yaml")
    if params.profile != profile:
        raise IbmaError(
            f"{held}: no evidence of profile '{profile}' is committed, and params.yaml is profile "
            f"'{params.profile}': `ibma profile {profile}` and `make repro`"
        )
    archive.pack(params, root, work / "evidence")
    archive.unpack(work / "evidence", work)
    return params


def _altered(held: Path) -> list[str]:
    return archive.altered(held) if held.exists() else []


def _derive(params: Params, work: Path) -> None:
    """What stages `significance` and `audit` make of records and of published.yaml."""
    paper = published.load()
    tests = significance.run(params, records.cells(params, work), paper)
    write_json(work / "data/significance.json", tests)
    write_json(work / "data/audit.json", [asdict(check) for check in audit.run(paper)])


def _places(committed: Path, again: Path) -> Iterator[Difference]:
    """Every place of the files that are on either side; empty where one side lacks it."""
    tables = {path.relative_to(committed) for path in committed.glob("tables/*")}
    names = tables | {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    for name in sorted(names):
        sides = [_content(folder / name) for folder in (committed, again)]
        for place in dict.fromkeys(key for side in sides for key in side):
            yield Difference(str(name), place, *(side.get(place, "") for side in sides))


def _content(path: Path) -> dict[str, str]:
    """Place -> text: cells of a CSV file, lines of any other, one empty place of a missing one."""
    if not path.exists():
        return {"the file": ""}
    if path.suffix != ".csv":
        lines = path.read_text(encoding="utf-8").splitlines()
        return {f"line {number}": line for number, line in enumerate(lines, 1)}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if not row[0].startswith("# ")]  # a table's title
    return {
        f"row {number}, {column}": cell
        for number, row in enumerate(rows[1:], 1)
        for column, cell in zip_longest(rows[0], row, fillvalue="")
    }


def _agree(one: Difference, *, exact: bool) -> bool:
    """Whether both sides are equal; not exact: up to a unit of the last digit of each number."""
    if exact or one.committed == one.recomputed:
        return one.committed == one.recomputed
    if _NUMBER.sub("#", one.committed) != _NUMBER.sub("#", one.recomputed):
        return False
    pairs = zip(_NUMBER.findall(one.committed), _NUMBER.findall(one.recomputed), strict=True)
    return all(abs(_value(a) - _value(b)) <= 1.001 * max(_unit(a), _unit(b)) for a, b in pairs)


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def _unit(text: str) -> float:
    """One unit of the last printed digit; 0 for whole numbers, which are counts."""
    mantissa, _, exponent = text.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) if decimals or exponent else 0.0
