"""Check that committed reports say what the records say (`ibma verify`).

A profile with committed evidence is checked against it, so that a clone is enough. Another profile
is checked against the records under runs/. Records are checked first: their digests, their metrics
against their predictions, their settings against what was chosen. Then every file of the report is
made again. Numbers are compared as numbers, figures by what is drawn, everything else as text.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ibma import paths
from ibma.errors import IbmaError
from ibma.evidence import archive, consistency
from ibma.files import parse_json, read_bytes, regular
from ibma.params import load
from ibma.report import inputs as report_inputs
from ibma.report import numbers, page, pictures, results_page
from ibma.report.inputs import Inputs
from ibma.report.numbers import Numbers
from ibma.report.table import Scalar
from ibma.results import records
from ibma.training.cell import Setting, varied
from ibma.training.record import Record

EQUAL = 1e-8  # relative; files hold ten digits, and processors differ beyond them
DRAWN = 1e-3  # of coordinates in a figure, which end in more digits than anyone sees
SEEN = 64  # of 255, how far a pixel may be from the figure drawn again: edges are rounded
FIGURES = "figures"
CHECKED_APART = ("evidence", FIGURES)  # of the folder of a report, in which nothing else may be
PAGE, LOCAL = "index.html", "runs.csv"  # the second is of one machine, not in git
LONG = 240  # characters of a line that are shown
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
_VERSION = r"[a-z-]+ [\w.+!-]+"
PACKAGES = re.compile(rf"<dt>{page.PACKAGES_LINE}</dt><dd>{_VERSION}(?:, {_VERSION})*</dd>")

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

    source: `evidence` or `records`. runs: records read. predicted: those whose metrics were
    computed again from predictions. compared: cells of CSV files, entries of JSON files and lines
    of the others.
    """

    source: str
    runs: int
    predicted: int
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
    places = list(_compare_records(inputs))
    if all(place.committed == place.recomputed for place in places):  # else nothing follows
        places += compare(report_inputs.rederive(inputs), root)
    apart = [place for place in places if place.committed != place.recomputed]
    counts = len(results.all()), len(results.predictions), len(places)
    return Outcome(source, *counts, (*missing, *apart))


def compare(inputs: Inputs, root: Path) -> Iterator[Difference]:
    """Make a report again and yield every place of its files on either side."""
    committed, made = root / paths.REPORTS / inputs.params.profile, numbers.build(inputs)
    yield from _compare(committed, made)
    with TemporaryDirectory() as scratch:
        drawn = pictures.draw(inputs, Path(scratch) / "figures")
        yield from _compare_figures(committed, Path(scratch))
    yield from _compare_page(committed / PAGE, page.html(inputs, root, made, drawn))
    if inputs.params.profile == results_page.PROFILE:
        tables = {Path(name).stem: rows for name, rows in made.rows.items()}
        yield from compare_results(root, tables)


def compare_results(root: Path, tables: Mapping[str, results_page.Rows]) -> Iterator[Difference]:
    """Yield every line of docs/results.md below `root`, filled from tables again."""
    text = results_page.page(tables)
    yield from _places(str(results_page.PATH), _compare_lines(root / results_page.PATH, text))


def _compare_records(inputs: Inputs) -> Iterator[Difference]:
    """Yield every metric of records beside that of their predictions, and every setting.

    Then come the places in which evidence says the same twice.
    """
    from ibma.features.store import label_tensor

    results = inputs.results
    for run in results.all():
        name = run.id.record.as_posix()
        said = results.predictions.get(run.id)
        if said and (why := consistency.why_not_judged(results.problems[run.task], said)):
            yield Difference(name, "predictions", why, "")
        elif said:
            task = results.problems[run.task]
            y = label_tensor(task.kind, said.labels)
            again = task.judge(said.scores, y, said.groups)
            yield from _places(name, _compare_values(run.metrics, again))
            matrix = str(run.confusion), str(task.confusion(said.scores, y))
            yield Difference(name, "confusion", *matrix)
        chosen = _chosen(inputs, run)
        yield from _places(name, _compare_values({n: run.params.get(n) for n in chosen}, chosen))
    for file, place, told, right in consistency.pairs(inputs):
        pair = (repr(told), repr(told if told == right else right))
        yield Difference(file, place, *_apart(*pair))


def _chosen(inputs: Inputs, run: Record) -> dict[str, Scalar]:
    """Return the setting that stage `tune` chose for a run; nothing where it did not say."""
    variant = inputs.params.trained_as(run.stage, run.task, run.method)
    if not inputs.results.choices.get((run.task, variant.method), {}).get("choices"):
        return {}
    return varied(variant, lambda method: _choice(inputs, run, method))._asdict()


def _choice(inputs: Inputs, run: Record, method: str) -> Setting:
    """Return what evidence says was chosen for a method; what it lacks is None, and differs."""
    choices = inputs.results.choices.get((run.task, method), {}).get("choices") or [{}]
    choice = choices[run.seed % len(choices)]  # in turn, as `training.cell.chosen` has it
    return Setting(*map(choice.get, Setting._fields))


def read(profile: str, root: Path) -> tuple[Inputs, str]:
    """Read the evidence of a profile, or else its records below `root`.

    Returns:
        What a report is made of, and `evidence` or `records`.

    Raises:
        IbmaError: there is neither, or the evidence was changed.
    """
    held = root / paths.evidence(profile)
    if held.exists():
        with TemporaryDirectory() as scratch:
            try:
                archive.unpack(held, Path(scratch))
                params = load(Path(scratch) / paths.PARAMS)
                return report_inputs.load(params, Path(scratch), check_keys=False), "evidence"
            except IbmaError as error:  # a folder that is gone when this is read helps nobody
                raise IbmaError(str(error).replace(scratch, str(held))) from None
    params = load(root / paths.PARAMS)
    if params.profile != profile:
        raise IbmaError(
            f"{held}: no evidence of profile '{profile}' is committed, and params.yaml is profile "
            f"'{params.profile}': `ibma profile {profile}` and `make repro`"
        )
    inputs = report_inputs.load(params, root)
    if not inputs.results.all():
        raise IbmaError(
            f"{root / paths.RUNS}: no records of profile '{profile}', nor evidence in {held}: run "
            "`make repro` first"
        )
    return inputs, "records"


def _compare(committed: Path, made: Numbers) -> Iterator[Difference]:
    """Yield every place of tables, metrics and texts, and each file that belongs to none."""
    for name, rows in made.rows.items():
        yield from _places(name, _compare_rows(committed / name, rows))
    for name, metrics in made.metrics.items():
        yield from _places(name, _compare_values(_metrics(committed / name), metrics))
    for name, text in made.texts.items():
        yield from _places(name, _compare_lines(committed / name, text))
    known = {*made.rows, *made.metrics, *made.texts, PAGE, LOCAL}
    names = (path.relative_to(committed) for path in committed.rglob("*"))
    yield from _unknown([name for name in names if name.parts[0] not in CHECKED_APART], known)


def _unknown(names: Iterable[Path], known: Collection[str]) -> Iterator[Difference]:
    """Yield what belongs to no report: a file, a link, or a folder that holds no known file."""
    folders = {parent.as_posix() for name in known for parent in Path(name).parents}
    for name in sorted(each.as_posix() for each in names):
        if name not in known and name not in folders:
            yield Difference(name, "the file", "is there", "belongs to no table or task")


def _compare_figures(committed: Path, drawn: Path) -> Iterator[Difference]:
    """Yield every figure, drawn again."""
    names = sorted(path.relative_to(drawn).as_posix() for path in (drawn / FIGURES).glob("*"))
    there = (path.relative_to(committed) for path in (committed / FIGURES).rglob("*"))
    yield from _unknown(there, names)
    for name in names:
        old, new = committed / name, drawn / name
        if not old.exists():
            yield Difference(name, "the file", "is not there", "is drawn")
        elif name.endswith(".png"):
            same = _same_pixels(old, new)
            yield Difference(name, "pixels", "as drawn" if same else "others", "as drawn")
        else:
            yield from _places(name, _compare_drawn(_read(old), _read(new)))


def _same_pixels(old: Path, new: Path) -> bool:
    """Return whether two pictures look alike; a file that is no picture does not."""
    from PIL import Image

    try:
        with Image.open(regular(old)) as one, Image.open(new) as other:
            if one.size != other.size:  # before anything is decoded
                return False
            pair = [np.asarray(each.convert("RGBA"), dtype=np.int16) for each in (one, other)]
    except Exception:  # whatever Pillow and zlib make of damage
        return False
    return int(np.abs(pair[0] - pair[1]).max()) <= SEEN


def _compare_drawn(old: str, new: str) -> Iterator[Place]:
    """Yield every line of an SVG; coordinates may differ by rounding."""
    for number, pair in enumerate(zip_longest(old.splitlines(), new.splitlines(), fillvalue=""), 1):
        yield f"line {number}", pair[0], pair[0] if _same_drawing(*pair) else pair[1]


def _same_drawing(old: str, new: str) -> bool:
    if old == new:
        return True
    numbers_of = [[float(found) for found in NUMBER.findall(line)] for line in (old, new)]
    return NUMBER.sub("", old) == NUMBER.sub("", new) and all(
        math.isclose(*pair, rel_tol=DRAWN, abs_tol=DRAWN) for pair in zip(*numbers_of, strict=True)
    )


def _compare_page(path: Path, text: str) -> Iterator[Difference]:
    """Yield every line of the page but that of this machine's packages."""
    for one in _places(PAGE, _compare_lines(path, text)):
        if not (PACKAGES.fullmatch(one.committed) and PACKAGES.fullmatch(one.recomputed)):
            yield one


def _places(file: str, places: Iterator[Place]) -> Iterator[Difference]:
    return (Difference(file, *place) for place in places)


def _compare_rows(path: Path, rows: Sequence[Mapping[str, Scalar]]) -> Iterator[Place]:
    """Yield every cell of a CSV file."""
    reader = csv.DictReader(io.StringIO(_read(path)), restkey="more", restval="")
    try:
        committed = list(reader)
    except csv.Error as error:
        committed = [{"the file": f"no table ({error})"}]
    columns = list(rows[0]) if rows else []
    yield "columns", ", ".join(reader.fieldnames or ()), ", ".join(columns)
    nothing: Mapping[str, Any] = {}
    pairs = zip_longest(committed, rows, fillvalue=nothing)
    for number, (held, row) in enumerate(pairs, 1):
        for where, text, recomputed in _compare_values(held, row):
            yield f"row {number}, {where}", text, recomputed


def _read(path: Path) -> str:
    """Return the text of a committed file, empty if there is none; damage shows as it differs.

    Raises:
        IbmaError: it is a folder, pipe or device.
    """
    try:
        return read_bytes(path, "`git checkout` it").decode(errors="replace")
    except FileNotFoundError:
        return ""


def _metrics(path: Path) -> Mapping[str, object]:
    """Return what a committed JSON file holds; one that is damaged shows as it differs."""
    try:
        found = parse_json(_read(path) or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"the file": "no JSON object"}


def _compare_values(held: Mapping[str, object], row: Mapping[str, Scalar]) -> Iterator[Place]:
    """Yield every value of two mappings; a missing one is empty."""
    for name in dict.fromkeys((*held, *row)):
        text, value = _text(held.get(name)), row.get(name)
        yield name, text, text if _agree(text, value) else _text(value)


def _compare_lines(path: Path, text: str) -> Iterator[Place]:
    """Yield every line of a text."""
    committed = _read(path)
    lines = zip_longest(committed.splitlines(), text.splitlines(), fillvalue="")
    return ((f"line {number}", *_apart(*pair)) for number, pair in enumerate(lines, 1))


def _apart(old: str, new: str) -> tuple[str, str]:
    """Cut two lines that differ to what a reader can take in: where they part."""
    if old == new or max(len(old), len(new)) <= LONG:
        return old, new
    start = next(place for place, pair in enumerate(zip_longest(old, new)) if pair[0] != pair[1])
    part = slice(max(0, start - LONG // 2), start + LONG // 2)
    return old[part], new[part]


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
