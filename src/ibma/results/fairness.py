"""Decide which runs may be compared: those whose lr and weight decay come from one rule."""

from __future__ import annotations

from collections.abc import Sequence

from ibma.training.record import Record

Point = tuple[float, float]


def unfair(ours: Sequence[Record], theirs: Sequence[Record]) -> bool:
    """Tell whether two cells may not be compared.

    Their learning rates and weight decays must be chosen by the same rule from the same points.
    Where training data shows nothing to choose by, the runs of a pair must be at equal points.
    """
    runs = [*ours, *theirs]
    if any(run.tuned != runs[0].tuned for run in runs):
        return True
    if any(list(point(run)) not in run.tuned["points"] for run in runs):
        return True
    pairs = {run.seed: point(run) for run in theirs} if points_in_turn(runs) else {}
    return any(pairs.get(run.seed, point(run)) != point(run) for run in ours)


def points_in_turn(runs: Sequence[Record]) -> list[Point]:
    """Return the points that runs take in turn; none where training data shows what to choose."""
    return sorted({point(run) for run in runs if run.tuned.get("by", "") is None})


def point(run: Record) -> Point:
    """Return the learning rate and weight decay of a run."""
    return run.params["lr"], run.params["weight_decay"]
