"""The records of a profile, and their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ibma.params import Params
from ibma.training import record
from ibma.training.record import Record

JUDGED_BY = ("accuracy", "mauc", "acc2", "auc/mean")  # the headline metric of each kind of task
SCALES = {"percent": 100.0}  # a metric's factor in a unit; 1 in any other

Cells = Mapping[tuple[str, str], Sequence[Record]]


def cells(params: Params, root: Path) -> Cells:
    """The records of the profile's cells and seeds; those of another profile are left out."""
    return {
        (task, method): _records(params, root, task, method)
        for task in params.tasks
        for method in (*params.methods, *params.variants)
    }


def at_etas(params: Params, root: Path, variant: str | None = None) -> dict[float, list[Record]]:
    """Return eta -> the records of stage `sensitivity` of a variant (None: its first one)."""
    at = params.sensitivity
    variant = variant or at.variants[0]
    return {eta: _records(params, root, at.task, at.name(variant, eta)) for eta in at.etas}


def _records(params: Params, root: Path, task: str, method: str) -> list[Record]:
    folder = root / "runs" / task / method
    paths = (folder / f"seed_{k}.json" for k in range(params.seeds))
    mine = [record.read(path) for path in paths if path.exists()]
    return [r for r in mine if r.profile == params.profile]


def of_task(here: Cells, task: str | None) -> list[Record]:
    """All records of a task."""
    return [r for (name, _), records in here.items() if name == task for r in records]


def value(one: Record, metric: str) -> float | None:
    """A metric (fraction), or `ib/<modality>`, `ib_before/<modality>` (nats); None if undefined."""
    kind, _, name = metric.partition("/")
    losses = {"ib": one.ib, "ib_before": one.ib_before}
    return losses[kind].get(name) if kind in losses else one.metrics.get(metric)


def values(records: Sequence[Record], metric: str, unit: str) -> list[float]:
    """The metric over seeds in the unit of a table."""
    scale = SCALES.get(unit, 1.0)
    return [scale * v for one in records if (v := value(one, metric)) is not None]


def pairs(
    ours: Sequence[Record], theirs: Sequence[Record], metric: str, unit: str
) -> list[tuple[float, float]]:
    """The metric of the seeds that both have, in the unit of a table."""
    scale = SCALES.get(unit, 1.0)
    other = {one.seed: value(one, metric) for one in theirs}
    return [
        (scale * a, scale * b)
        for one in ours
        if (a := value(one, metric)) is not None and (b := other.get(one.seed)) is not None
    ]


def selection(records: Sequence[Record]) -> str:
    """The metric a task is judged by."""
    found = records[0].metrics if records else {}
    return next((name for name in JUDGED_BY if name in found), "accuracy")
