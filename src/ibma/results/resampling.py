"""Metrics of runs under resampled test rows: what another test set of the same groups would give.

Rows are drawn with replacement within their group (speaker, video, patient), so that each group
keeps its size: an interval says what other rows of these groups would show, not other groups.
CHOICE: rows that are alone in their group form one group together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ibma.results.records import Results
from ibma.training.predictions import Predictions
from ibma.training.record import Record, RunId

if TYPE_CHECKING:
    from ibma.network.tasks import Task

RESAMPLES = 1000
RNG_SEED = 0  # CHOICE: fixed, so that the same predictions give the same interval

Array = NDArray[np.float64]


class Resampled:
    """Test rows of all tasks, drawn again `RESAMPLES` times; what was computed once is kept.

    All runs of a task meet the same draws, and each run those of its own rows, so that a
    difference between two methods is paired by row.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self._draws = cache(self._draw)
        self.of = cache(self._of)

    def difference(
        self, ours: Sequence[Record], theirs: Sequence[Record], metric: str
    ) -> Array | None:
        """Return the mean difference of two methods under each draw, [RESAMPLES].

        Returns:
            None where some run has no predictions, or the metric is not one that can be resampled.
        """
        by_seed = {run.seed: run for run in theirs}
        gaps = []
        for one in ours:
            if one.seed in by_seed:
                pair = [self.of(run.id, metric) for run in (one, by_seed[one.seed])]
                if pair[0] is None or pair[1] is None:
                    return None
                gaps.append(pair[0] - pair[1])
        return np.mean(gaps, axis=0) if gaps else None

    def _of(self, run: RunId, metric: str) -> Array | None:
        """Return a metric of one run under each draw; NaN where a draw leaves it undefined."""
        said = self._results.predictions.get(run)
        if said is None:
            return None
        places, weights = self._draws(run.task)
        rows = [places[name] for name in said.ids.tolist()]
        return weighted(self._results.problems[run.task], said, metric, weights[:, rows])

    def _draw(self, task: str) -> tuple[dict[str, int], Array]:
        """Return sample id -> column, and how often each draw has each sample, [RESAMPLES, n]."""
        groups: dict[str, str] = {}
        for run, said in self._results.predictions.items():
            if run.task == task:
                groups |= zip(said.ids.tolist(), said.groups.tolist(), strict=True)
        ids = sorted(groups)
        return dict(zip(ids, range(len(ids)), strict=True)), draws([groups[name] for name in ids])


def draws(groups: Sequence[str]) -> Array:
    """Draw rows with replacement within their groups.

    Args:
        groups: of each row, [n].

    Returns:
        How often each draw has each row, [RESAMPLES, n].
    """
    rng = np.random.default_rng(RNG_SEED)
    names, place, sizes = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    place = np.where(sizes[place] == 1, len(names), place)
    counts = np.empty((RESAMPLES, len(groups)))
    for group in np.unique(place):
        rows = np.flatnonzero(place == group)
        counts[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
    return counts


def weighted(task: Task, said: Predictions, metric: str, weights: Array) -> Array | None:
    """Return a metric of `Task.judge` with rows counted as often as weights say.

    Args:
        weights: [R, n].

    Returns:
        [R], NaN where undefined; None for a metric that is not resampled: macro averages, MAE,
        correlation and the F1 of slices, by none of which a task is judged.
    """
    from ibma.features.store import label_tensor
    from ibma.network.tasks import Classify, MultiLabel, Sentiment

    y = label_tensor(task.kind, said.labels)
    scores, kind, part = said.scores.astype(np.float64), *metric.partition("/")[::2]
    match task:
        case Sentiment():
            if metric == f"acc{task.outputs}":
                return _mean(task.target(y).numpy() == scores[:, 0], weights)
            name, _, suffix = metric.partition("_")
            rows = np.ones(len(y), dtype=bool) if suffix else y.numpy() != 0
            sides = y.numpy()[rows] >= 0, scores[rows, 1] >= 0
            if name == "acc2":
                return _mean(sides[0] == sides[1], weights[:, rows])
            return _f1(*sides, weights[:, rows]) if name == "f1" else None
        case Classify():
            truth = task.target(y).numpy()
            if metric == "accuracy":
                return _mean(truth == scores.argmax(1), weights)
            return _auc(truth, scores[:, 1] - scores[:, 0], weights) if metric == "auc" else None
        case MultiLabel():
            each = {
                name: (y[:, place].numpy(), scores[:, place], weights)
                for place, name in enumerate(task.classes)
                if metric in ("mauc", f"auc/{name}")
            }
        case _:  # one-class
            each = {
                name: (y.numpy()[rows], scores[rows, 0], weights[:, rows])
                for name in sorted(set(said.groups))
                if kind == "auc" and part in ("mean", name)
                for rows in [said.groups == name]
            }
    defined = [_auc(*one) for one in each.values() if 0 < one[0].sum() < len(one[0])]
    return np.mean(defined, axis=0) if defined else None


def _mean(right: NDArray[np.bool_], weights: Array) -> Array:
    return _over(weights @ right.astype(float), weights.sum(1))


def _auc(truth: NDArray[np.generic], score: Array, weights: Array) -> Array:
    """Return the share of pairs of a positive and a negative row in the right order, [R]."""
    order = np.argsort(score)
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])  # of equal scores
    positive, negative = (
        np.add.reduceat(weights[:, order] * side[order], starts, axis=1)
        for side in (truth == 1, truth != 1)
    )
    below = negative.cumsum(1) - negative / 2  # ties count half
    return _over((positive * below).sum(1), positive.sum(1) * negative.sum(1))


def _f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], weights: Array) -> Array:
    """Return the F1 of both sides, weighted by how many rows each truly has, [R]."""
    result = np.zeros(len(weights))
    for side in (truth, ~truth):
        chosen = predicted if side is truth else ~predicted
        hits, has, said = (weights @ one.astype(float) for one in (side & chosen, side, chosen))
        result += has * np.nan_to_num(_over(2 * hits, has + said))
    return _over(result, weights.sum(1))


def _over(above: Array, below: Array) -> Array:
    """Divide; NaN where nothing was drawn, 0 / 0."""
    with np.errstate(invalid="ignore"):
        result: Array = above / below
    return result
