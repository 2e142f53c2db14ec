"""Paired tests over seeds: which comparisons there are, and which belong to one family.

A family is one table of the paper with one opponent; Holm's correction runs inside it. On tasks
that the paper does not have (key `real_data`) a family is one opponent over all those tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ibma.files import read_json
from ibma.paper import published
from ibma.params import Params
from ibma.results import records, stats
from ibma.results.records import Cells

TABLES = (10, 11, 12, 13, 14, 15)
OURS, ABLATION, CONTROL = "ibma", "ibma_no_align", "ce3"
BASELINE, BOUND = "best baseline", "best other bound"
BOUNDS = ("ibma_vib", "ibma_apib", "ibma_club")  # the paper's rivals of IBB
OPPONENTS = {14: BOUND, 15: ABLATION}  # of a table; else the best baseline
BEYOND = "real_data"
RIVALS = (ABLATION, *BOUNDS, BOUND, "ibma_plugin", CONTROL, BASELINE, "ibma_code", "omib")


@dataclass(frozen=True)
class Compared:
    """One test that is wanted: a row of a table (the task itself beyond the paper)."""

    row: str
    task: str
    metric: str


def run(params: Params, here: Cells, paper: published.Published) -> list[dict[str, Any]]:
    """Every test of every family: its `table`, `opponent`, `row`, and what `stats.Paired` holds.

    The best baseline is the one with the best mean among `methods` without the control: the
    comparison that the paper makes, which favours the baseline.
    """
    rows = []
    for table, opponent, unit, family in _families(params, here, paper):
        tests = []
        for compared in family:
            ours = here.get((compared.task, OURS), ())
            baseline = _opponent(params, here, compared, opponent)
            pairs = records.pairs(
                ours, here.get((compared.task, baseline), ()), compared.metric, unit
            )
            if pairs:
                test = stats.paired([a for a, _ in pairs], [b for _, b in pairs])
                who = {"table": table, "opponent": opponent, "baseline": baseline}
                tests.append(who | asdict(compared) | asdict(test))
        _add_holm(tests)
        rows += tests
    return rows


def _add_holm(tests: Sequence[dict[str, Any]]) -> None:
    defined = [test for test in tests if test["p"] is not None]
    if defined:
        adjusted = stats.holm([test["p"] for test in defined])
        for test, p in zip(defined, adjusted, strict=True):
            test["holm"] = p


def _families(
    params: Params, here: Cells, paper: published.Published
) -> Iterator[tuple[str, str, str, list[Compared]]]:
    """(table, opponent, unit, tests) of every family."""
    for number in TABLES:
        table = paper.table(number)
        metric = table.column("baseline").metric
        family = [
            Compared(row.key, str(row.task), str(row.metric or metric))
            for row in table.rows
            if row.task in params.tasks
        ]
        for opponent in dict.fromkeys((OPPONENTS.get(number, BASELINE), CONTROL)):
            yield f"{number:02d}", opponent, table.unit, family
    family = [
        Compared(task, task, records.selection(here.get((task, OURS), ())))
        for task in beyond(params, paper)
    ]
    for opponent in RIVALS:
        yield BEYOND, opponent, "percent", family


def beyond(params: Params, paper: published.Published) -> list[str]:
    """Tasks of the profile that the paper does not have."""
    theirs = {row.task for number in TABLES for row in paper.table(number).rows}
    return [task for task in params.tasks if task not in theirs]


def _opponent(params: Params, here: Cells, compared: Compared, opponent: str) -> str:
    """The method behind a name such as `best baseline`; empty where there is no record."""
    if opponent not in (BASELINE, BOUND):
        return opponent
    rivals = BOUNDS if opponent == BOUND else [m for m in params.methods if m != CONTROL]
    means = {
        method: stats.summary(found).mean
        for method in rivals
        if (found := records.values(here.get((compared.task, method), ()), compared.metric, ""))
    }
    return max(means, key=lambda method: means[method]) if means else ""


def stored(root: Path) -> list[dict[str, Any]]:
    """What stage `significance` wrote; empty when it has not run."""
    return list(read_json(root / "data/significance.json", []))
