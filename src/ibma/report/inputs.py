"""Read everything that a report is made of, once.

Nothing here depends on tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ibma import paths
from ibma.files import read_json
from ibma.paper import audit, published
from ibma.paper.audit import Check
from ibma.params import Params
from ibma.results import forms, records, significance
from ibma.results.claims import OURS, task_name
from ibma.results.records import Results
from ibma.results.significance import Test


@dataclass(frozen=True)
class Inputs:
    """What the stages wrote.

    Attributes:
        params: the profile.
        results: the records.
        paper: the published tables.
        features: task -> `meta.json` of its features.
        timing: what stage `timing` wrote, empty where it has not run; so are the next ones.
        logistic: task -> what stage `logistic` wrote.
        probe: rows of stage `probe`.
        gradcam: task -> what stage `gradcam` wrote.
        tests: what stage `significance` wrote.
        checks: what stage `audit` wrote.
        tracked: record file -> MLflow run.
    """

    params: Params
    results: Results
    paper: published.Published
    features: Mapping[str, Mapping[str, Any]]
    timing: Mapping[str, Any]
    logistic: Mapping[str, Mapping[str, Any]]
    probe: Sequence[Mapping[str, Any]]
    gradcam: Mapping[str, Mapping[str, Any]]
    tests: Sequence[Test]
    checks: Sequence[Check]
    tracked: Mapping[str, str]

    @property
    def own(self) -> bool:
        """Whether the profile is about the user's data alone, and not about the paper."""
        return not self.params.datasets

    @cached_property
    def beyond(self) -> list[str]:
        """Tasks that the paper does not have, of those with records."""
        known = significance.beyond(self.params, self.paper)
        return [task for task in known if self.results.of_task(task)]

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks with records."""
        return [task for task in self.params.tasks if self.results.of_task(task)]

    @cached_property
    def real(self) -> list[str]:
        """Tasks with records, none of which was made from generated data."""
        return [task for task in self.tasks if not self.results.is_twin(task)]

    @cached_property
    def best_forms(self) -> dict[str, str]:
        """Return task -> the form of MIB that stands for it."""
        return forms.best_forms(self.results)

    @cached_property
    def unchosen_forms(self) -> list[str]:
        """List the tasks on which nothing could choose among the forms of MIB."""
        return forms.unchosen_forms(self.results)

    def left_out(self, tasks: Iterable[str]) -> list[str]:
        """Say which runs no number counts, a line for each task that has such runs."""
        counted, seeds = self.results.counted, self.params.seeds
        return [
            f"{task_name(task)}: numbers are from the first {kept} runs of every method, so that "
            f"each test fold counts equally often. The other {seeds - kept} of {seeds} runs are "
            "left out; their records are kept."
            for task in tasks
            if (kept := counted.get(task, seeds)) < seeds
        ]

    def absent(self, task: str) -> str:
        """Return why a task has no features; empty when it has."""
        if task not in self.features:
            return "not run: no features"
        missing = self.features[task].get("missing")
        return f"not run: {missing}" if missing else ""


def load(params: Params, root: Path = Path(), *, check_keys: bool = True) -> Inputs:
    """Read what the stages wrote below `root`; see `records.load` for `check_keys`."""
    results = records.load(params, root, check_keys=check_keys)
    return Inputs(
        params=params,
        results=results,
        paper=published.load(),
        features={t: said for t in params.tasks if (said := read_json(root / paths.meta(t), {}))},
        timing=read_json(root / paths.TIMING, {}),
        logistic={task: read_json(root / paths.logistic(task), {}) for task in params.tasks},
        probe=read_json(root / paths.PROBE, []),
        gradcam=read_json(root / paths.GRADCAM, {}),
        tests=[test for test in significance.stored(root) if _has_runs(results, test)],
        checks=[Check(**check) for check in read_json(root / paths.AUDIT, [])],
        tracked=read_json(root / paths.TRACK, {}),
    )


def _has_runs(results: Results, test: Test) -> bool:
    """Return whether both sides of a stored test still have records."""
    task = test.compared.task
    return all(results.of(task, method) for method in (test.rival, OURS))


def rederive(inputs: Inputs) -> Inputs:
    """Make again from records what stages `significance` and `audit` make of them."""
    tests = significance.run(inputs.params, inputs.results, inputs.paper)
    return replace(inputs, tests=tests, checks=audit.run(inputs.paper))
