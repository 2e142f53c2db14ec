"""Read the records of a profile once, and return numbers from them.

A record counts only if its key fits the present parameters, data and code. A method on a task
without a record has a reason instead. Where a task has test folds, numbers are from whole cycles of
them (`Results.counted`). Nothing here depends on tables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibma import paths
from ibma.errors import IbmaError
from ibma.files import read_json
from ibma.params import Params
from ibma.results import stats
from ibma.results.claims import JUDGED_BY
from ibma.training import predictions, record
from ibma.training.cell import expected_key, why_not_run
from ibma.training.predictions import Predictions
from ibma.training.record import Record, RunId

if TYPE_CHECKING:
    from ibma.network.tasks import Task

SENSITIVITY = "sensitivity"
SWEEPS = ("regimes", "noise")  # hundreds of cells a task, of which only metrics are compared
SCALES = {"percent": 100.0}  # a metric's factor in a unit; 1 in any other
RANGES = {"percent": (0.0, 100.0), "fraction": (0.0, 1.0)}  # of a metric's mean in a unit
NO_RECORD = "not run: no record"
STALE = "stale: made under other parameters, data or code"

Cell = tuple[str, str, str]  # stage, task, method


@dataclass(frozen=True)
class Results:
    """All records of a profile that count.

    Attributes:
        params: the profile.
        runs: (stage, task, method) -> records by seed, for every cell of the profile. Numbers come
            from `of`, `at_eta` and `of_study`, which leave out a cycle of folds that is not whole.
        absent: task -> why it has no data.
        gaps: cell of a task with data -> why it has fewer records than the profile has seeds.
        predictions: run -> what its network says of the test rows, where its record has them;
            none of stages regimes and noise.
        problems: task -> how it is judged, for tasks with predictions.
        choices: (task, method) -> what stage `tune` tried and chose.
    """

    params: Params
    runs: Mapping[Cell, Sequence[Record]]
    absent: Mapping[str, str]
    gaps: Mapping[Cell, str]
    predictions: Mapping[RunId, Predictions] = field(default_factory=dict)
    problems: Mapping[str, Task] = field(default_factory=dict)
    choices: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def counted(self) -> dict[str, int]:
        """Return task -> how many runs of each method count, for tasks with test folds.

        Run k tests on fold k mod folds. Only whole cycles of folds count, so that each fold counts
        equally often; with fewer runs than folds all count.
        """
        folds: dict[str, int] = {}
        for run in self.all():
            if run.fold is not None:
                folds[run.task] = max(folds.get(run.task, 0), run.fold + 1)
        return {task: self.params.seeds - self.params.seeds % n for task, n in folds.items()}

    def _counted(self, stage: str, task: str, name: str) -> Sequence[Record]:
        """Return the records of a cell that count."""
        runs = self.runs.get((stage, task, name), ())
        if task not in self.counted:
            return runs
        return [run for run in runs if run.seed < self.counted[task]]

    def of(self, task: str | None, method: str | None) -> Sequence[Record]:
        """Return the records of a task and method; none for names that the profile lacks."""
        if task is None or method is None or method not in self._stages:
            return ()
        return self._counted(self._stages[method], task, method)

    @cached_property
    def _stages(self) -> dict[str, str]:
        """Return method -> the stage that trains it; a report asks tens of thousands of times."""
        stages = self.params.stages_of_methods().items()
        return {method: stage for stage, methods in stages for method in methods}

    def at_eta(self, method: str, eta: float) -> Sequence[Record]:
        """Return the records of stage `sensitivity` of a method at one eta."""
        at = self.params.sensitivity
        return self._counted(SENSITIVITY, at.task, at.name(method, eta))

    def at_etas(self, method: str) -> dict[float, Sequence[Record]]:
        """Return eta -> records of stage `sensitivity`, for each eta that has any."""
        etas = self.params.sensitivity.etas
        return {eta: runs for eta in etas if (runs := self.at_eta(method, eta))}

    def of_study(self, stage: str, task: str) -> dict[str, Sequence[Record]]:
        """Return name -> records of a study on a task, for each name that has any."""
        names = self.params.variants(stage, task)
        return {name: runs for name in names if (runs := self._counted(stage, task, name))}

    def of_task(self, task: str | None) -> dict[str, Sequence[Record]]:
        """Return method -> records of a task, for each method that has any."""
        by_method = {method: self.of(task, method) for method in self._stages}
        return {method: runs for method, runs in by_method.items() if runs}

    def all(self) -> list[Record]:
        """Return every record, those that are left out of numbers too."""
        return [run for runs in self.runs.values() for run in runs]

    def is_twin(self, *tasks: str | None) -> bool:
        """Return whether any record of some tasks was made from generated data."""
        cells = [runs for task in tasks for runs in self.of_task(task).values()]
        return any(run.source == "twin" for runs in cells for run in runs)

    def headline(self, task: str | None) -> str:
        """Return the metric that a task is judged by."""
        runs = next(iter(self.of_task(task).values()), ())
        metrics = runs[0].metrics if runs else {}
        return next((name for name in JUDGED_BY if name in metrics), JUDGED_BY[0])

    def why(self, task: str, method: str, eta: float | None = None) -> str:
        """Return why a cell has no record."""
        if method not in self._stages:
            return f"not run: no method {method} in this profile"
        cell = (self._stages[method], task, method)
        if eta is not None:
            cell = (SENSITIVITY, task, self.params.sensitivity.name(method, eta))
        absent = self.absent.get(task)
        return f"not run: {absent}" if absent else self.gaps.get(cell, NO_RECORD)


def load(params: Params, root: Path = Path(), *, check_keys: bool = True) -> Results:
    """Read all records of a profile.

    Args:
        check_keys: leave out records whose key does not fit the present parameters, data and code.
            Committed evidence is checked by its checksums instead.

    Raises:
        IbmaError: a file is not a record, or it, its predictions or a choice of stage `tune` were
            changed after they were written.
    """
    runs: dict[Cell, Sequence[Record]] = {}
    gaps: dict[Cell, str] = {}
    absent = {task: why for task in params.tasks if (why := why_not_run(task, root))}
    for cell in params.cells():
        runs[cell] = ()
        if cell[1] not in absent:
            runs[cell], gap = _load_cell(params, root, cell, check_keys)
            gaps |= {cell: gap} if gap else {}
    said = {
        run.id: predictions.read(root / run.id.predictions, run.predictions)
        for each in runs.values()
        for run in each
        if run.predictions and run.stage not in SWEEPS
    }
    problems = {task: _problem(root / paths.meta(task)) for task in {run.task for run in said}}
    choices = {
        (task, method): choice
        for task in params.tasks
        for method in params.methods
        if (choice := read_json(root / paths.choice(task, method), {}))
    }
    return Results(params, runs, absent, gaps, said, problems, choices)


def _problem(path: Path) -> Task:
    """Return what the predictions of a task are judged by."""
    from ibma.network import tasks  # torch, which a report without predictions does not need

    meta = read_json(path, {})
    try:
        return tasks.build(meta["kind"], meta["classes"])
    except KeyError:
        raise IbmaError(
            f"{path}: says neither kind nor classes, by which predictions are "
            "judged: run `dvc repro extract`"
        ) from None


def _load_cell(
    params: Params, root: Path, cell: Cell, check_keys: bool
) -> tuple[Sequence[Record], str]:
    """Return the records of a cell that count, and why some do not."""
    files = [root / paths.record(*cell, seed) for seed in range(params.seeds)]
    # a link that leads nowhere is there, too: it is refused
    there = [file for file in files if os.path.lexists(file)]
    read = [record.read(file, with_predictions=False) for file in there]  # `load` reads them
    own = [run for run in read if run.profile == params.profile]
    current = [run for run in own if not check_keys or is_current(params, root, run)]
    if len(current) == params.seeds:
        return current, ""
    why = STALE if len(current) < len(own) else NO_RECORD
    missing = params.seeds - len(current)
    return current, f"{missing} of {params.seeds} runs {why}" if current else why


def is_current(params: Params, root: Path, run: Record) -> bool:
    """Return whether a record's key fits the present parameters, data and code."""
    try:
        return run.key == expected_key(params, run, root)
    except IbmaError:  # features or choices are gone, so that nothing says what made the record
        return False


def folder(runs: Sequence[Record]) -> str:
    """Return the folder of a cell's records; empty where it has none."""
    if not runs:
        return ""
    return runs[0].id.record.parent.as_posix()


def unit_of(metric: str) -> str:
    """Return the unit that a metric is printed in."""
    return "score" if metric in ("mae", "corr") else "percent"


def value(run: Record, metric: str) -> float | None:
    """Return one number of a record.

    Args:
        run: the record.
        metric: a metric of `Task.judge`, or `ib/<modality>` (nats).

    Returns:
        None where the metric is undefined.
    """
    kind, _, name = metric.partition("/")
    return run.ib.get(name) if kind == "ib" else run.metrics.get(metric)


def values(runs: Sequence[Record], metric: str, unit: str) -> list[float]:
    """Return a metric of every run that defines it, in the unit of a table."""
    scale = SCALES.get(unit, 1.0)
    return [scale * number for run in runs if (number := value(run, metric)) is not None]


def summary(runs: Sequence[Record], metric: str, unit: str) -> stats.Summary | None:
    """Summarise a metric over runs in the unit of a table; None where no run defines it."""
    numbers = values(runs, metric, unit)
    return stats.summary(numbers, RANGES.get(unit, stats.UNBOUNDED)) if numbers else None


def pairs(
    ours: Sequence[Record], theirs: Sequence[Record], metric: str, unit: str
) -> list[tuple[float, float]]:
    """Return a metric of two methods for every seed that both have, in the unit of a table."""
    scale = SCALES.get(unit, 1.0)
    by_seed = {run.seed: value(run, metric) for run in theirs}
    return [
        (scale * a, scale * b)
        for run in ours
        if (a := value(run, metric)) is not None and (b := by_seed.get(run.seed)) is not None
    ]
