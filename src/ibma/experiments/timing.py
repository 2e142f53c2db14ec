"""Seconds per epoch of every method, side by side (stage `timing`; Tables 6 and 9).

One process trains all methods in turn, an epoch each, round after round, so that whatever else the
machine does falls on all of them alike. Training logs are not used: cells run at different times.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ibma.files import write_json
from ibma.training.loop import Cell, Fit, Setting, volatile

WARM_UP = 1  # rounds that are not counted: caches fill, OMIB's and DCLF's first phases end
EPOCHS = 2  # what the networks are told, so that every phase of a method has begun after warm-up


def seconds(
    cells: Mapping[str, Cell], settings: Mapping[str, Setting], rounds: int
) -> dict[str, list[float]]:
    """Method -> seconds of each counted epoch, refreshes of centroids and Q included."""
    fits = {}
    for method, cell in cells.items():
        setting = settings[method]
        fits[method] = Fit(
            cell.build(0, setting, EPOCHS, seed=0),
            cell.features.training(0),
            setting,
            seed=0,
            epochs=0,
            batch_size=cell.batch_size,
            device=cell.device,
        )
    for done in range(WARM_UP + rounds):
        for method, fit in fits.items():
            fit.epochs = done + 1
            fit.run(f"timing {method} round {done + 1}")
    return {method: fit.seconds[WARM_UP:] for method, fit in fits.items()}


def write(
    cells: Mapping[str, Cell], settings: Mapping[str, Setting], rounds: int, path: Path
) -> None:
    """Measure and write medians with quartiles, and the machine they were taken on."""
    found = seconds(cells, settings, rounds)
    first = next(iter(cells.values()))
    machine = volatile(first.device, [], "")
    content: dict[str, Any] = {
        "task": first.task_name,
        "source": first.features.meta["source"],
        "device": machine["device"],
        "torch": machine["torch"],
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "methods": {method: summary(values) for method, values in found.items()},
    }
    write_json(path, content)


def summary(values: list[float]) -> dict[str, Any]:
    """Median and quartiles of some seconds."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": statistics.median(values),
        "low": low,
        "high": high,
        "seconds": [round(value, 4) for value in values],
    }
