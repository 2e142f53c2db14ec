"""Paired tests over seeds: which comparisons there are, and which belong to one family.

A family is one table of the paper with one opponent. Holm's correction runs inside it, once for
differences and once for equivalence. On tasks
that the paper does not have (key `real_data`) a family is one opponent over all those tasks. A
second correction runs over all comparisons of the page, those on generated data apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ibma import paths
from ibma.files import read_json
from ibma.paper import audit, published
from ibma.params import Params
from ibma.results import claims, fairness, forms, records, stats
from ibma.results.claims import ABLATION, BASELINE, BOUND, CONTROL, OURS
from ibma.results.records import Results
from ibma.results.resampling import Resampled
from ibma.results.stats import Paired, Total
from ibma.training.record import Record

TABLES = audit.TESTS
OPPONENTS = {14: BOUND, 15: ABLATION}  # of a table; else the best baseline
BEYOND = "real_data"
ALPHA = 0.05  # below which a p-value after Holm's correction shows something
MARGIN = 1.0  # CHOICE, stated before: points of percent within which two methods are equivalent


@dataclass(frozen=True)
class Compared:
    """One comparison to be tested: a row of a table (the task itself beyond the paper)."""

    row: str
    task: str
    metric: str
    unit: str


@dataclass(frozen=True)
class Test:
    """IBMA against an opponent on one row of a table.

    Attributes:
        table: two digits for a table of the paper, else `BEYOND`.
        opponent: as claims.yaml names it.
        rival: the method that it means.
        compared: row, task, metric and unit.
        paired: the test over runs alone.
        total: the test that a claim rests on, over runs and test rows.
        holm: its p-value after Holm's correction, None where the test is undefined.
        page: the same over all comparisons of the page.
        equivalent: p-value of equivalence (TOST) after Holm's correction in the same family.
    """

    __test__ = False  # pytest: not a class of tests

    table: str
    opponent: str
    rival: str
    compared: Compared
    paired: Paired
    total: Total | None = None
    holm: float | None = None
    page: float | None = None
    equivalent: float | None = None

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The 95 % interval of the difference that a claim rests on."""
        return (self.total.low, self.total.high) if self.total else (None, None)


def run(params: Params, results: Results, paper: published.Published) -> list[Test]:
    """Make every test of every family.

    A best baseline is the one of its `candidates` with the best mean on test, which favours it.
    """
    tests: list[Test] = []
    resampled = Resampled(results)
    for table, opponent, family in _families(params, results, paper):
        made = [_test(results, paper, resampled, table, opponent, compared) for compared in family]
        known = [test for test in made if test]
        corrected = zip(
            known, _corrected(known, "p"), _corrected(known, "equivalent_p"), strict=True
        )
        tests += [replace(test, holm=p, equivalent=same) for test, p, same in corrected]
    twins = {test.compared.task: results.is_twin(test.compared.task) for test in tests}
    for twin in (False, True):
        own = [place for place, test in enumerate(tests) if twins[test.compared.task] is twin]
        for place, p in zip(own, _corrected([tests[place] for place in own], "p"), strict=True):
            tests[place] = replace(tests[place], page=p)
    return tests


def _test(
    results: Results,
    paper: published.Published,
    resampled: Resampled,
    table: str,
    opponent: str,
    compared: Compared,
) -> Test | None:
    """Make one test; None where no seed has both sides, or the two may not be compared."""
    other = rival(results, paper, compared, opponent)
    mine, others = (results.of(compared.task, method) for method in (OURS, other))
    found = compare(resampled, mine, others, compared.metric, compared.unit)
    return Test(table, opponent, other, compared, *found) if found else None


def compare(
    resampled: Resampled, mine: Sequence[Record], others: Sequence[Record], metric: str, unit: str
) -> tuple[Paired, Total | None] | None:
    """Test two methods over runs alone, and over runs and test rows.

    Returns:
        None where no seed has both sides, or the two may not be compared.
    """
    if fairness.unfair(mine, others):
        return None
    pairs = records.pairs(mine, others, metric, unit)
    if not pairs:
        return None
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    drawn, scale = resampled.difference(mine, others, metric), records.SCALES.get(unit, 1.0)
    margin = MARGIN * scale / records.SCALES["percent"]
    scaled = None if drawn is None else scale * drawn
    total = stats.total(ours, theirs, scaled, margin, overlap(mine))
    return stats.paired(ours, theirs), total


def overlap(runs: Sequence[Record]) -> float:
    """Return test samples per training sample where runs on several folds share these, else 0."""
    if runs[0].fold is None:
        return 0.0
    return sum(run.n_test / run.n_train for run in runs) / len(runs)


def _corrected(family: Sequence[Test], name: str) -> list[float | None]:
    """Return a p-value of `Total` of a family after Holm's correction, None for undefined tests."""
    adjusted = iter(stats.holm([getattr(test.total, name) for test in family if test.total]))
    return [next(adjusted) if test.total else None for test in family]


def _families(
    params: Params, results: Results, paper: published.Published
) -> Iterator[tuple[str, str, list[Compared]]]:
    """Yield table, opponent and comparisons of every family."""
    for number in TABLES:
        table = paper.table(number)
        metric = table.column("baseline").metric
        family = [
            Compared(row.key, str(row.task), str(row.metric or metric), table.unit)
            for row in table.rows
            if row.task in params.tasks
        ]
        for opponent in dict.fromkeys((OPPONENTS.get(number, BASELINE), CONTROL)):
            yield f"{number:02d}", opponent, family
    family = [
        Compared(task, task, results.headline(task), "percent") for task in beyond(params, paper)
    ]
    for claim in claims.CLAIMS:
        yield BEYOND, claim.opponent, family


def beyond(params: Params, paper: published.Published) -> list[str]:
    """List the tasks of a profile that the paper does not have."""
    theirs = {row.task for number in TABLES for row in paper.table(number).rows}
    return [task for task in params.tasks if task not in theirs]


def candidates(results: Results, paper: published.Published, task: str, opponent: str) -> list[str]:
    """List the methods that an opponent may be on a task.

    On a task of the paper the best baseline is one of the table that its test refers to (the
    paper's C.4), so no method added here. MIB is its chosen form. CHOICE: where nothing chose, any
    form may be, as the paper prints the best of them. On other tasks it is any baseline.
    """
    named = claims.candidates(opponent, results.params)
    tests = [paper.table(number) for number in TABLES if number not in OPPONENTS]
    compared = {
        row.method
        for test in tests
        if task in {row.task for row in test.rows}
        for row in paper.table(test.compares or test.number).rows
    }
    if opponent != BASELINE or not compared:
        return named
    if forms.MIB in compared:
        best = forms.best_forms(results).get(task)
        compared |= {best} if best else {*forms.MIB_FORMS}
    return [method for method in named if method in compared]


def rival(results: Results, paper: published.Published, compared: Compared, opponent: str) -> str:
    """Return the method that an opponent means on a task; empty where none has a record."""
    means = {
        method: stats.summary(numbers).mean
        for method in candidates(results, paper, compared.task, opponent)
        if (numbers := records.values(results.of(compared.task, method), compared.metric, ""))
    }
    return max(means, key=lambda method: means[method]) if means else ""


def to_json(tests: Sequence[Test]) -> list[dict[str, Any]]:
    """Return what stage `significance` writes."""
    return [asdict(test) for test in tests]


def from_json(content: object) -> list[Test]:
    """Return the tests that `to_json` wrote out."""
    return TypeAdapter(list[Test]).validate_python(content)


def stored(root: Path) -> list[Test]:
    """Read what stage `significance` wrote; empty when it has not run."""
    return from_json(read_json(root / paths.SIGNIFICANCE, []))
