"""Check whether the numbers that the paper prints agree with each other.

From `published.yaml` alone, but for Table 1, whose counts are compared with those of the official
releases (data set cards). Knows nothing of our results. A printed number means every value that
rounds to it; a check fails only if no such values fit.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ibma import datasets
from ibma.paper.published import Cell, Column, Published, Row, Table

RUNS = 10  # of every mean and p-value (paper, captions and C.4)
DECIMALS = {"percent": 1, "fraction": 3, "minutes": 1, "nats": 3, "count": 0}
LOWER_IS_BETTER = ("ib/", "minutes")  # beginnings of metrics
COMPARED = (2, 3, 4, 7)  # tables of methods that significance tables refer to
TESTS = (10, 11, 12, 13, 14, 15)
HOLDS, FAILS, OPEN = "holds", "fails", "cannot be checked"
EPSILON = 1e-9  # of sums of decimals in binary
HIGH = 0.99  # CHOICE: runs of two methods that are correlated more differ by a constant alone
VERY_HIGH = 0.9  # CHOICE: worth naming
STEPS = 101  # of a printed sd within its rounding
SEVERITY = {  # kind of check -> how bad a failure is, worst first
    "possible number": "impossible",
    "same number twice": "contradiction",
    "mean": "contradiction",
    "statement": "contradiction",
    "tested baseline": "contradiction",
    "p-value": "implausible",
    "count": "other count",
    "best and second": "wrong mark",
}


MARKS: dict[str, Callable[[Cell], bool]] = {
    "bold": lambda cell: cell.best,
    "underlined": lambda cell: cell.second,
}


@dataclass(frozen=True)
class Check:
    """One check, as it is printed everywhere.

    Attributes:
        verdict: holds, fails, or cannot be checked.
        severity: of a failure, empty otherwise.
        kind: see `SEVERITY`.
        where: table, row and column, or section.
        claim: what the paper prints.
        found: what follows from its other numbers.
    """

    verdict: str
    severity: str
    kind: str
    where: str
    claim: str
    found: str


COLUMNS = ("Verdict", "Severity", "Kind", "Where", "The paper prints", "What follows")


def run(paper: Published) -> list[Check]:
    """Make every check; failures come first, the worst of them on top."""
    checks = [
        *_possible(paper),
        *_counted(paper),
        *_repeated(paper),
        *_means(paper),
        *_marks(paper),
        *_tested(paper),
        *_p_values(paper),
        *_statements(paper),
    ]
    order = {FAILS: 0, OPEN: 1, HOLDS: 2}
    kinds = list(SEVERITY)
    return sorted(checks, key=lambda check: (order[check.verdict], kinds.index(check.kind)))


def summary(checks: Sequence[Check]) -> str:
    """Say how many checks there are and how many hold."""
    count = Counter(check.verdict for check in checks)
    return (
        f"{len(checks)} checks: {count[HOLDS]} hold, {count[FAILS]} fail, {count[OPEN]} cannot be "
        "checked from the tables."
    )


def _check(kind: str, where: str, claim: str, found: str, holds: bool) -> Check:
    severity = "" if holds else SEVERITY[kind]
    return Check(HOLDS if holds else FAILS, severity, kind, where, claim, found)


# --- printed numbers -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """The values that a printed number, or a result of some, may mean."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Range) -> Range:
        return Range(self.low - other.high, self.high - other.low)

    def over(self, other: Range) -> Range:
        """Divide by another range; both are positive."""
        return Range(self.low / other.high, self.high / other.low)

    def times(self, factor: float) -> Range:
        """Multiply by a positive number."""
        return Range(self.low * factor, self.high * factor)

    def meets(self, other: Range) -> bool:
        """Return whether some value is in both."""
        return self.low <= other.high + EPSILON and other.low <= self.high + EPSILON


def rounded(value: float, decimals: int) -> Range:
    """Return the values that round to `value` at this many decimals."""
    half = 0.5 * 10.0**-decimals
    return Range(value - half, value + half)


def _of(cell: Cell, unit: str) -> Range:
    return rounded(cell.value, DECIMALS[unit])


def _text(value: float, unit: str) -> str:
    return f"{value:.{DECIMALS[unit]}f}"


def _shown(cell: Cell, unit: str) -> str:
    sd = "" if cell.sd is None else f" ± {_text(cell.sd, unit)}"
    return _text(cell.value, unit) + sd


def _place(table: Table, row: Row, column: Column | None = None) -> str:
    label = "" if column is None else f", {column.label}"
    return f"Table {table.number}, {row.label}{label}"


def _cells(table: Table) -> Iterator[tuple[Row, Column, Cell]]:
    for row in table.rows:
        for column in table.columns:
            if column.key in row.cells:
                yield row, column, row.cells[column.key]


# --- numbers that cannot be, and counts ----------------------------------------------------------


def _possible(paper: Published) -> Iterator[Check]:
    """Check of each table that its numbers are some that their units can have."""
    for table in paper.tables.values():
        wrong = [
            f"{_place(table, row, column)}: {cell.value:g}"
            + ("" if cell.sd is None else f" ± {cell.sd:g}")
            for row, column, cell in _cells(table)
            if not _can_be(cell, column)
        ]
        yield _check(
            "possible number",
            f"Table {table.number}",
            "numbers in their units, sds above 0, p-values between 0 and 1",
            "; ".join(wrong) or "all of them can be",
            not wrong,
        )


def _can_be(cell: Cell, column: Column) -> bool:
    """Return whether a quantity can have a printed value; the IB losses of Table 5 have no sign."""
    if cell.sd is not None and cell.sd <= 0:
        return False
    match column.unit:
        case "percent":
            return 0 <= cell.value <= 100
        case "fraction":
            return 0 <= cell.value <= 1
        case "p":
            return 0 < cell.value < 1
        case "count":
            return cell.value >= 1 and cell.value == int(cell.value)
        case "minutes":
            return cell.value > 0
        case _:
            return True


def _counted(paper: Published) -> Iterator[Check]:
    """Check Table 1 against the classes and sizes of the official releases."""
    table = paper.table(1)
    for row in table.rows:
        card = datasets.load(row.key).CARD
        known = {"classes": len(card.classes), **asdict(card.official)}
        for column in table.columns:
            printed, official = row.cells[column.key].value, known[column.key]
            where, claim = _place(table, row, column), f"{printed:,.0f}"
            if official is None:
                yield Check(OPEN, "", "count", where, claim, "the official release states none")
            else:
                found = f"the official release has {official:,}"
                yield _check("count", where, claim, found, printed == official)


# --- numbers that are printed more than once -----------------------------------------------------


def _repeated(paper: Published) -> Iterator[Check]:
    """Check that a number which several tables print is the same in all of them."""
    seen: dict[tuple[str, str, str], list[tuple[str, Cell, str]]] = {}
    for table in paper.tables.values():
        for row, column, cell in _cells(table):
            target = table.target(row.key, column.key)
            if target.task and target.method and target.metric and target.eta is None:
                key = (target.task, target.method, target.metric)
                seen.setdefault(key, []).append((_place(table, row, column), cell, column.unit))
    for places in seen.values():
        for (first, one, unit), (second, other, _) in itertools.pairwise(places):
            sds = one.sd is None or other.sd is None or one.sd == other.sd
            yield _check(
                "same number twice",
                f"{first} and {second}",
                f"{_shown(one, unit)} and {_shown(other, unit)}",
                "the same quantity",
                one.value == other.value and sds,
            )


# --- means ---------------------------------------------------------------------------------------


def _means(paper: Published) -> Iterator[Check]:
    """Check the means over slides of Table 7, which also prints the slides."""
    table = paper.table(7)
    for row in table.rows:
        for metric in ("auc", "f1"):
            slides = [
                _of(row.cells[column.key], column.unit)
                for column in table.columns
                if (column.metric or "").startswith(f"{metric}/10x")
            ]
            column = next(c for c in table.columns if c.metric == f"{metric}/mean")
            mean = sum(slides[1:], slides[0]).times(1 / len(slides))
            printed = row.cells[column.key]
            yield _check(
                "mean",
                _place(table, row, column),
                _text(printed.value, column.unit),
                f"the mean of its {len(slides)} slides is {mean.low:.4f} to {mean.high:.4f}",
                _of(printed, column.unit).meets(mean),
            )


# --- bold and underlined -------------------------------------------------------------------------


def _marks(paper: Published) -> Iterator[Check]:
    """Check that bold is the best of its column (data set in Table 5), underlined the next.

    Where a table marks some column so, it is to mark every column of that unit, and nothing else.
    """
    for table in paper.tables.values():
        for mark, has in MARKS.items():
            units = {column.unit for _, column, cell in _cells(table) if has(cell)}
            for column in (column for column in table.columns if column.unit in units):
                for rows in _rivals(table, column):
                    yield from _marks_of(table, column, rows, mark)
    table = paper.table(8)
    cells = {column.label: table.rows[0].cells[column.key] for column in table.columns}
    best = max(cells, key=lambda label: cells[label].value)
    for mark, has in MARKS.items():
        marked = [label for label, cell in cells.items() if has(cell)]
        right = [best] if mark == "bold" else []
        yield _check(
            "best and second",
            "Table 8",
            f"{mark}: {', '.join(marked) or 'none'}",
            ", ".join(right) or "none in its one row",
            marked == right,
        )


def _rivals(table: Table, column: Column) -> Iterator[list[Row]]:
    """Return the rows that a mark compares: a table's, but of one data set where rows name it."""
    tasks = dict.fromkeys(table.target(row.key, column.key).task for row in table.rows)
    for task in tasks:
        rows = [r for r in table.rows if table.target(r.key, column.key).task == task]
        yield [row for row in rows if column.key in row.cells]


def _marks_of(table: Table, column: Column, rows: Sequence[Row], mark: str) -> Iterator[Check]:
    """Check one mark of a column in both directions: who has it, and who should."""
    lower = (column.metric or "").startswith(LOWER_IS_BETTER)
    ranked = sorted({row.cells[column.key].value for row in rows}, reverse=not lower)
    place = list(MARKS).index(mark)
    if len(ranked) <= max(place, 1):  # with one value there is nothing to tell apart
        return
    marked = [row.label for row in rows if MARKS[mark](row.cells[column.key])]
    right = [row.label for row in rows if row.cells[column.key].value == ranked[place]]
    yield _check(
        "best and second",
        f"Table {table.number}, {column.label}",
        f"{mark}: {', '.join(marked) or 'none'}",
        f"{'best' if place == 0 else 'second best'} is "
        f"{_text(ranked[place], column.unit)}: {', '.join(right)}",
        marked == right,
    )


# --- significance tables -------------------------------------------------------------------------


def tested_opponent(paper: Published, table: Table, row: Row) -> str:
    """Name the method with the mean that a significance table tests IBMA against."""
    tested, values = row.cells["baseline"].value, _opponents(paper, table, row)
    names = [label.partition(" (")[0] for label, value in values.items() if value == tested]
    return " or ".join(names) or "not named"


def _opponents(paper: Published, table: Table, row: Row) -> dict[str, float]:
    """Return label -> mean of the methods that a row of a significance table may test."""
    compared = paper.table(table.compares or table.number)
    metric = row.metric or table.column("baseline").metric
    return {
        other.label: cell.value
        for other, column, cell in _cells(compared)
        if (target := compared.target(other.key, column.key)).task == row.task
        and target.metric == metric
        and target.method != "ibma"
        and (table.number != 15 or target.method == "ibma_no_align")  # it tests that alone
    }


def _tested(paper: Published) -> Iterator[Check]:
    """Check that the "best baseline" that is tested is that of the table it refers to."""
    for number in TESTS:
        table = paper.table(number)
        if table.compares is None:
            continue
        for row in table.rows:
            values = _opponents(paper, table, row)
            best = max(values, key=lambda label: values[label])
            tested = row.cells["baseline"].value
            yield _check(
                "tested baseline",
                _place(table, row),
                f"best baseline {_text(tested, table.unit)}",
                f"Table {table.compares}: the best is {_text(values[best], table.unit)} ({best})",
                tested == values[best],
            )


def _p_values(paper: Published) -> Iterator[Check]:
    """Check that paired runs can give the printed p-values, and say how they must be correlated."""
    for number in TESTS:
        table = paper.table(number)
        for row in table.rows:
            baseline, ours = row.cells["baseline"], row.cells["ours"]
            printed = row.cells["p_value"].value
            if baseline.sd is None or ours.sd is None:
                yield Check(OPEN, "", "p-value", _place(table, row), f"p = {printed:.1e}", "no sd")
                continue
            found, holds = _needed(ours, baseline, printed, table.unit)
            yield _check(
                "p-value",
                _place(table, row),
                f"{_shown(ours, table.unit)} against {_shown(baseline, table.unit)}, "
                f"p = {printed:.1e}",
                found,
                holds,
            )


def _needed(ours: Cell, baseline: Cell, p: float, unit: str) -> tuple[str, bool]:
    """Say which correlation of paired runs gives p, and whether there can be one."""
    if not 0 < p < 1:
        return "no test has this p-value", False
    needed, apart = correlations(ours, baseline, p, unit), p_range(ours, baseline, unit, 0.0)
    said = (
        f"runs correlated at {max(needed.low, -1):.2f} to {min(needed.high, 1):.2f} give it; "
        f"uncorrelated ones p = {apart.low:.1e} to {apart.high:.1e}"
    )
    if needed.high < -1 or needed.low > 1:
        return f"no correlation gives it (needed: {needed.low:.2f} to {needed.high:.2f})", False
    if needed.low > HIGH:
        return f"{said}: more than {HIGH}, runs that differ by a constant alone", False
    if needed.high < 0:
        said += ": a negative correlation"
    elif needed.low > VERY_HIGH:
        said += ": a very high correlation"
    return said, True


def correlations(ours: Cell, baseline: Cell, p: float, unit: str) -> Range:
    """Return every correlation of paired runs that gives p, over the rounding of all numbers.

    Of differences with standard deviation D = gap sqrt(n) / t the correlation is
    (s1^2 + s2^2 - D^2) / (2 s1 s2). It falls with D; sds are tried in steps of their rounding.
    """
    from scipy.stats import t

    half = 0.05 * 10.0 ** math.floor(math.log10(p))  # two digits are printed
    gap = _gap(ours, baseline, unit)
    ends = [
        end * math.sqrt(RUNS) / float(t.isf(min(q, 1.0) / 2, RUNS - 1))
        for end, q in ((gap.low, p - half), (gap.high, p + half))
    ]
    one, two = np.meshgrid(*(_steps(cell.sd, unit) for cell in (ours, baseline)))
    high, low = ((one**2 + two**2 - spread**2) / (2 * one * two) for spread in ends)
    return Range(float(low.min()), float(high.max()))


def p_range(ours: Cell, baseline: Cell, unit: str, correlation: float) -> Range:
    """Return the two-sided p that runs correlated so give, over the rounding of all numbers."""
    from scipy.stats import t

    gap = _gap(ours, baseline, unit)
    one, two = np.meshgrid(*(_steps(cell.sd, unit) for cell in (ours, baseline)))
    spread = np.sqrt(one**2 + two**2 - 2 * correlation * one * two)
    with np.errstate(divide="ignore"):
        low, high = (
            2 * t.sf(end * math.sqrt(RUNS) / spread, RUNS - 1) for end in (gap.high, gap.low)
        )
    return Range(float(low.min()), float(high.max()))


def _gap(ours: Cell, baseline: Cell, unit: str) -> Range:
    """Return how far apart two means may be, without a sign."""
    gap = _of(ours, unit) - _of(baseline, unit)
    if gap.low <= 0 <= gap.high:
        return Range(0.0, max(-gap.low, gap.high))
    return Range(*sorted((abs(gap.low), abs(gap.high))))


def _steps(sd: float | None, unit: str) -> NDArray[np.float64]:
    """Return values of a printed sd within its rounding, ends included; all are above 0."""
    assert sd is not None
    found = rounded(sd, DECIMALS[unit])
    smallest = 0.01 * 10.0 ** -DECIMALS[unit]
    return np.linspace(max(found.low, smallest), max(found.high, smallest), STEPS)


# --- sentences -----------------------------------------------------------------------------------


NOT_IN_TABLES = (
    ("B.2", "512 dimensions, 8 heads, 500 epochs, grids of learning rate and weight decay"),
    ("C.3", "centroids of the input features take 16.7 seconds once, on CREMA-D"),
    ("C.3", "centroids of the learnt features take 2.1 seconds an epoch, on CREMA-D"),
)


def _statements(paper: Published) -> Iterator[Check]:
    yield from _from_cells(paper)
    yield from _counts(paper)
    for section, claim in NOT_IN_TABLES:
        yield Check(OPEN, "", "statement", f"section {section}", claim, "no table holds it")


def _stated(section: str, claim: str, printed: Range, follows: Range, unit: str) -> Check:
    """Check a number that a sentence states against what follows from the tables."""
    found = f"the tables give {_text(follows.low, unit)} to {_text(follows.high, unit)}"
    return _check("statement", f"section {section}", claim, found, printed.meets(follows))


def _from_cells(paper: Published) -> Iterator[Check]:
    """Check the sentences that state a difference or a ratio of two printed numbers."""

    def cell(table: int, row: str, column: str) -> Range:
        return _of(paper.cell(table, row, column), paper.table(table).column(column).unit)

    def best(table: int, column: str) -> Range:
        rows = [r for r in paper.table(table).rows if r.method != "ibma" and column in r.cells]
        return max((cell(table, row.key, column) for row in rows), key=lambda found: found.low)

    def gain(section: str, who: str, printed: float, ours: Range, theirs: Range) -> Check:
        claim = f"{who}: {printed:g} % higher"
        decimals = 0 if float(printed).is_integer() else 1
        return _stated(section, claim, rounded(printed, decimals), ours - theirs, "percent")

    def ratio(section: str, claim: str, printed: float, ours: Range, theirs: Range) -> Check:
        share = ours.over(theirs).times(100)
        return _stated(section, claim, rounded(printed, 1), share, "percent")

    def lower(who: str, printed: float, ours: Range, theirs: Range) -> Check:
        claim = f"IB loss of IBMA on {who}: {printed:g} lower than without alignment"
        return _stated("4.5", claim, rounded(printed, 3), theirs - ours, "nats")

    crema, minutes, mauc = "crema_d.accuracy", "crema_d.minutes_per_epoch", "chexpert.mauc"
    auc, sentiment = "tissue.auc/mean", ("meld_sentiment.f1", "meld_sentiment.acc2")
    full, bare = "chexpert/ibma", "chexpert/ibma_no_align"
    yield gain(
        "4.2", "IBMA, strongest baseline, CREMA-D", 1.8, cell(2, "ibma", crema), best(2, crema)
    )
    for column, name, printed in zip(sentiment, ("F1", "Acc-2"), (1.4, 1.5), strict=True):
        ours = cell(3, "ibma", column)
        yield gain("4.3", f"IBMA, strongest baseline, MELD {name}", printed, ours, best(3, column))
    yield gain("4.4", "IBMA, OMIB, CheXpert", 1.4, cell(4, "ibma", mauc), cell(4, "omib", mauc))
    for name, printed in (("image", 0.022), ("text", 0.013)):
        yield lower(name, printed, cell(5, full, f"ib/{name}"), cell(5, bare, f"ib/{name}"))
    yield gain(
        "4.5", "IBMA, no alignment, CheXpert", 1, cell(5, full, "mauc"), cell(5, bare, "mauc")
    )
    for rival, name, printed in (("ibma_vib", "VIB", 1.5), ("ibma_club", "CLUB", 1.3)):
        yield gain("4.6", f"IBB, {name}", printed, cell(6, "ibma", crema), cell(6, rival, crema))
    times = {row: cell(6, row, minutes) for row in ("ibma", "ibma_vib", "ibma_club")}
    claim = "IBB takes 105.3 % of VIB's time"
    yield ratio("4.6", claim, 105.3, times["ibma"], times["ibma_vib"])
    yield ratio("4.6", "IBB takes 52.6 % of CLUB's time", 52.6, times["ibma"], times["ibma_club"])
    points = [
        Range(100 * found.low, 100 * found.high)
        for found in (cell(7, "ibma", auc), cell(7, "omib", auc), best(7, auc))
    ]
    yield gain("C.1", "IBMA, OMIB, mean AUC over slides", 2, points[0], points[1])
    yield gain("C.1", "IBMA, strongest baseline, mean AUC", 2, points[0], points[2])
    etas = [cell(8, "ibma", column.key) for column in paper.table(8).columns]
    spread = max(etas, key=lambda e: e.low) - min(etas, key=lambda e: e.low)
    yield _stated("C.2", "accuracy varies by at most 0.4 %", rounded(0.4, 1), spread, "percent")
    ours, omib = cell(9, "ibma", minutes), cell(9, "omib", minutes)
    yield ratio("C.3", "IBMA takes 105.3 % of OMIB's time", 105.3, ours, omib)
    yield gain("C.3", "IBMA, OMIB, CREMA-D", 1.8, cell(9, "ibma", crema), cell(9, "omib", crema))
    for column, name, printed in (
        ("chexpert.mauc/image", "image", 1.2),
        ("chexpert.mauc/text", "text", 1.5),
        ("chexpert.mauc", "both", 1.4),
    ):
        ours, theirs = cell(16, "ibma", column), cell(16, "omib", column)
        yield gain("C.5", f"IBMA, OMIB, {name} encoder(s)", printed, ours, theirs)


def _counts(paper: Published) -> Iterator[Check]:
    """Check the sentences that count, or name the largest of several."""
    slides = [c for c in paper.table(7).columns if (c.metric or "").startswith("auc/10x")]
    yield _check(
        "statement",
        "section C.1",
        "eight human breast cancer data sets (10x-hBC-A-D)",
        f"Table 7 has {len(slides)}",
        len(slides) == 8,
    )
    p_values = {
        _place(table, row): row.cells["p_value"].value
        for table in (paper.table(number) for number in (10, 11, 12, 13))
        for row in table.rows
    }
    largest = max(p_values, key=lambda place: p_values[place])
    yield _check(
        "statement",
        "section C.4",
        "the largest p-value of Tables 10 to 13 is 3.6e-05, MELD, emotion recognition",
        f"{p_values[largest]:.1e} ({largest})",
        largest == "Table 10, MELD" and p_values[largest] == 3.6e-5,
    )
    tests = paper.table(14).rows
    yield _check(
        "statement",
        "section C.4",
        "Table 14 shows that IBB beats VIB, APIB and CLUB significantly: three comparisons",
        f"Table 14 prints {len(tests)} p-value{'s' * (len(tests) != 1)}",
        len(tests) == 3,
    )
