"""Compute the differences that the studies of regimes and noise show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ibma.results import fairness, records, regime, stats
from ibma.results.records import Results
from ibma.results.significance import ALPHA, MARGIN, overlap
from ibma.training.record import Record


@dataclass(frozen=True)
class Point:
    """One regime of phi on a task, at one eta.

    Attributes:
        share: of the alignment's gradient, see `regime.alignment_share`; mean over runs.
        apart: rival -> run -> IBMA minus the rival, in percent.
        overlap: of the runs' training rows, see `stats.total`.
    """

    phi: str
    beta: float
    eta: float
    share: float
    apart: Mapping[str, Mapping[int, float]]
    overlap: float

    @property
    def band(self) -> str:
        """Return how hard the alignment pulled, see `regime.band`."""
        return regime.band(self.share)


def points(results: Results, task: str) -> list[Point]:
    """Return every regime of a task: the first form of the study against the others and control."""
    study, runs = results.params.regimes, results.of_study("regimes", task)
    metric, found = results.headline(task), []
    form, *others = study.forms
    for place in study.points():
        own = runs.get(study.name(form, *place), ())
        rivals = {other: runs.get(study.name(other, *place), ()) for other in others}
        rivals[study.control] = runs.get(study.control, ())
        shares = [share for run in own if (share := regime.alignment_share(run)) is not None]
        if shares:
            apart = {name: differences(own, theirs, metric) for name, theirs in rivals.items()}
            found.append(Point(*place, sum(shares) / len(shares), apart, overlap(own)))
    return found


def differences(ours: Sequence[Record], theirs: Sequence[Record], metric: str) -> dict[int, float]:
    """Return run -> ours minus theirs in percent, for runs of both; none if it would be unfair."""
    if fairness.unfair(ours, theirs):
        return {}
    return {
        run.seed: a - b for run in ours for a, b in records.pairs([run], theirs, metric, "percent")
    }


def mean_apart(some: Sequence[Point], rival: str) -> stats.Summary | None:
    """Summarise over runs the mean difference to a rival over some regimes.

    The mean over regimes comes first: to show the best of them would favour IBMA.
    """
    by_run: dict[int, list[float]] = {}
    for one in some:
        for run, difference in one.apart.get(rival, {}).items():
            by_run.setdefault(run, []).append(difference)
    means = [sum(values) / len(values) for values in by_run.values()]
    return over_runs(means, some[0].overlap) if means else None


def apart(ours: Sequence[Record], theirs: Sequence[Record], metric: str) -> stats.Summary | None:
    """Return the mean of paired differences with its interval over runs; None without a pair."""
    values = list(differences(ours, theirs, metric).values())
    return over_runs(values, overlap(ours)) if values else None


def over_runs(apart: Sequence[float], shared: float) -> stats.Summary:
    """Summarise paired differences, one a run, with the interval over runs of `stats.total`.

    Args:
        shared: overlap of their training rows.
    """
    one, total = stats.summary(apart), _total(apart, shared)
    return replace(one, low=total.low, high=total.high) if total else one


def _total(apart: Sequence[float], shared: float) -> stats.Total | None:
    return stats.total(apart, [0.0] * len(apart), None, MARGIN, shared)


def counts(some: Sequence[Point], rival: str) -> tuple[int, int]:
    """Count the regimes where IBMA is better and worse than a rival, after Holm over them."""
    values = [list(one.apart[rival].values()) for one in some]
    tests = [
        _total(own, one.overlap) if own else None for own, one in zip(values, some, strict=True)
    ]
    tested = [(sum(own), test.p) for own, test in zip(values, tests, strict=True) if test]
    adjusted = stats.holm([p for _, p in tested])
    shown = [gain for (gain, _), p in zip(tested, adjusted, strict=True) if p < ALPHA]
    return sum(one > 0 for one in shown), sum(one < 0 for one in shown)


PLACES = ("train", "test", "both")  # where noise is


def levels(results: Results, task: str) -> dict[str, dict[float, dict[str, Sequence[Record]]]]:
    """Return place of the noise -> level -> method -> records, clean runs as level 0 of each."""
    study, runs = results.params.noise, results.of_study("noise", task)
    found: dict[str, dict[float, dict[str, Sequence[Record]]]] = {}
    for place, level in product(PLACES, (0.0, *study.levels)):
        pair = (level if place != "test" else 0.0, level if place != "train" else 0.0)
        named = {method: runs.get(study.name(method, *pair), ()) for method in study.methods}
        found.setdefault(place, {})[level] = {m: own for m, own in named.items() if own}
    return found
