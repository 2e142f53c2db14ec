"""The numbers that `dvc plots` draws, as rows of CSV files below `plots/`.

`dvc.yaml` names each file with its title, and `.dvc/plots/` says how it is drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from ibma.report.inputs import Inputs
from ibma.report.table import Rows, Scalar
from ibma.results import records, regime
from ibma.results.claims import OURS, method_name, task_name
from ibma.results.stats import Summary


def build(inputs: Inputs) -> dict[str, Rows]:
    """Return name of a CSV file -> its rows."""
    return {
        "plots/metrics.csv": list(_cells(inputs)),
        "plots/eta.csv": list(_etas(inputs)),
        "plots/regime.csv": list(_regimes(inputs)),
        "plots/confusion.csv": list(_confusions(inputs)),
    }


def _cells(inputs: Inputs) -> Iterator[dict[str, Scalar]]:
    """Yield the mean of every method on every task with its 95 % interval."""
    for task in inputs.tasks:
        metric = inputs.results.headline(task)
        for method, runs in inputs.results.of_task(task).items():
            if summary := records.summary(runs, metric, "percent"):
                yield {"cell": f"{task}/{method}", **_interval(summary)}


def _etas(inputs: Inputs) -> Iterator[dict[str, Scalar]]:
    """Yield the mean of every method at every fixed eta with its 95 % interval."""
    study = inputs.params.sensitivity
    metric = inputs.results.headline(study.task)
    for method in study.methods:
        for eta, runs in inputs.results.at_etas(method).items():
            if summary := records.summary(runs, metric, "percent"):
                curve = f"{method_name(method)}, {task_name(study.task)}"
                yield {"curve": curve, "eta": eta, **_interval(summary)}


def _interval(summary: Summary) -> dict[str, Scalar]:
    """Return a mean and the ends of its interval, in thousandths of a percent."""
    numbers = {"percent": summary.mean, "low": summary.low, "high": summary.high}
    return {name: None if one is None else round(one, 3) for name, one in numbers.items()}


def _regimes(inputs: Inputs) -> Iterator[dict[str, Scalar]]:
    """Yield how hard IBMA's bound pulled in every epoch, the mean over runs, of every task."""
    for task in inputs.tasks:
        by_run = [own for run in inputs.results.of(task, OURS) if (own := regime.shares(run))]
        for epoch, share in enumerate(np.mean(by_run, axis=0) if by_run else (), 1):
            yield {"curve": task_name(task), "epoch": epoch, "share": float(f"{share:.3g}")}


def _confusions(inputs: Inputs) -> Iterator[dict[str, Scalar]]:
    """Yield how often IBMA took one class for another, all runs together, of every task."""
    for task in inputs.tasks:
        meta = inputs.features.get(task, {})
        if meta.get("kind") == "multilabel":  # of a label it has other columns
            continue
        classes, counts = meta.get("classes", []), Counter[tuple[str, str]]()
        for run in inputs.results.of(task, OURS):
            for truth, row in zip(classes, run.confusion, strict=False):
                counts.update({(truth, said): n for said, n in zip(classes, row, strict=True)})
        for (truth, said), count in counts.items():
            yield {"task": task_name(task), "truth": truth, "predicted": said, "count": count}
