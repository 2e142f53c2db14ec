"""Measure seconds per epoch of every method in turn (stage `timing`; Tables 6 and 9).

One process trains all methods in turn, an epoch each, round after round, so that whatever else the
machine does falls on all of them alike. Training logs are not used: runs train at different times.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from typing import Any

import torch

from ibma import methods, paths
from ibma.errors import progress_bar
from ibma.files import write_json
from ibma.params import Params
from ibma.training.cell import Cell, Setting, skipped
from ibma.training.loop import Fit, configure_torch, select_device
from ibma.training.run import provenance

WARM_UP = 1  # rounds that are not counted: caches fill, OMIB's and DCLF's first phases end
EPOCHS = 2  # what the networks are told, so that every phase of a method has begun after warm-up


def time_methods(params: Params) -> None:
    """Measure every method on one task; write medians with quartiles, and the machine."""
    task = params.timing.task
    if skipped(task):
        return write_json(paths.TIMING, {})
    cells = {method: Cell.of(params, task, method) for method in params.methods_of(task)}
    grid = params.tune.grid
    settings = {
        method: Setting(
            grid.lr[0],
            grid.weight_decay[0],
            grid.eta[0] if methods.find(cell.method_file).reads_eta else None,
        )
        for method, cell in cells.items()
    }
    found = seconds(cells, settings, params.timing.rounds)
    device = select_device(params.device)
    machine = provenance(device, [], "")
    content: dict[str, Any] = {
        "task": task,
        "source": cells[next(iter(cells))].meta["source"],
        "device": machine["device"],
        "processor": machine["processor"],
        "torch": machine["torch"],
        "threads": torch.get_num_threads(),
        "rounds": params.timing.rounds,
        "methods": {method: summary(values) for method, values in found.items()},
    }
    write_json(paths.TIMING, content)


def seconds(
    cells: Mapping[str, Cell], settings: Mapping[str, Setting], rounds: int
) -> dict[str, list[float]]:
    """Return method -> seconds of each counted epoch, refreshes of centroids and Q included."""
    fits = {}
    for method, cell in cells.items():
        configure_torch(cell.threads, cell.compile)
        setting, device = settings[method], select_device(cell.device)
        fits[method] = Fit(
            cell.build(0, setting, EPOCHS, seed=0, on=device),
            cell.training(0, device),
            setting,
            seed=0,
            epochs=0,
            batch_size=cell.batch_size,
            device=device,
            quiet=True,
        )
    turns = list(itertools.product(range(WARM_UP + rounds), fits.items()))
    for done, (method, fit) in progress_bar(turns, desc="timing", total=len(turns), unit="epoch"):
        fit.epochs = done + 1
        fit.run(f"timing {method} round {done + 1}")
    return {method: fit.seconds[WARM_UP:] for method, fit in fits.items()}


def summary(values: list[float]) -> dict[str, Any]:
    """Median and quartiles of some seconds."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": statistics.median(values),
        "low": low,
        "high": high,
        "seconds": [round(value, 4) for value in values],
    }
