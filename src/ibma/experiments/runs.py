"""Train every run of a stage on a task; finished runs are kept and never trained twice.

A store of finished runs, addressed by the keys of their records, lies outside of DVC. A stage's
folders are made anew from it each time, so that nothing stale stays in them, and a killed stage
loses nothing. `rm -r data/store` empties it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ibma import paths
from ibma.errors import IbmaError, tell
from ibma.experiments.progress import run_all
from ibma.files import copy_file, held, link_file, remove, verified, write_bytes
from ibma.params import Params
from ibma.training import record, run
from ibma.training.cell import Cell, Setting, setting_of, skipped
from ibma.training.checkpoint import Checkpoint
from ibma.training.record import Record, RunId


class Watcher(Protocol):
    """Receive the progress and the results of the runs that a stage trains."""

    def running(self, record: Record) -> None:
        """Take what is known of a run that still trains: its epochs so far, no metrics."""

    def finished(self, record: Record) -> None:
        """Take the record of a run that was trained, once it is stored."""

    def failed(self, run_id: RunId) -> None:
        """Take which run failed."""


@dataclass(frozen=True, eq=False)  # its identity is a key
class Wanted:
    """One run that a stage is to have, and its place in the store."""

    cell: Cell
    seed: int
    setting: Setting
    key: str
    keeps_weights: bool  # later stages and people read the trained network

    @property
    def id(self) -> RunId:
        """Return which run this is."""
        return RunId(self.cell.stage, self.cell.task, self.cell.method, self.seed)

    @property
    def record(self) -> Path:
        """Return where the store holds its record."""
        return paths.kept(self.key)

    @property
    def predictions(self) -> Path:
        """Return where the store holds what its network says of the test rows."""
        return self.record.with_suffix(record.PREDICTIONS)

    @property
    def weights(self) -> Path:
        """Return where the store holds its trained network."""
        return self.record.with_suffix(".safetensors")


def train_stage(
    params: Params, stage: str, task: str, only: str | None = None, watcher: Watcher | None = None
) -> None:
    """Train the methods of stage train, train_ibma, ablation or bounds on a task.

    Args:
        only: one of its methods; the folders of the others stay as they are.
        watcher: is told what becomes of the runs that are trained.

    Raises:
        IbmaError: the stage has no such method, or runs failed; the others are finished and kept.
    """
    of_task = params.methods_of(task)
    methods = [method for method in params.stages_of_methods()[stage] if method in of_task]
    if only is not None and only not in methods:
        raise IbmaError(f"params.yaml: {stage} has no '{only}': expected {', '.join(methods)}")
    train(params, stage, task, [only] if only else list(methods), watcher)


def train_study(params: Params, stage: str, task: str, watcher: Watcher | None = None) -> None:
    """Train every variant of a study on a task: stage sensitivity, regimes or noise.

    Args:
        watcher: see `train_stage`.

    Raises:
        IbmaError: there is no such task, or runs failed; the others are finished and kept.
    """
    params.task(task)
    train(params, stage, task, list(params.variants(stage, task)), watcher)


def train(
    params: Params, stage: str, task: str, names: Sequence[str], watcher: Watcher | None = None
) -> None:
    """Train the runs that are missing or outdated, then write their folders again.

    Args:
        names: what the records of these cells are called.
        watcher: see `train_stage`.
    """
    cells = [Cell.named(params, stage, task, name) for name in names]
    with held(paths.RUNS / stage / task):
        wanted: list[Wanted] = []
        if not skipped(task):
            wanted = [one for cell in cells for one in name_runs(params, cell)]
            _complete(params, f"{stage} {task}", wanted, watcher)
        for root in (paths.RUNS, paths.MODELS):
            (root / stage / task).mkdir(parents=True, exist_ok=True)  # an output, even if empty
            for name in names:
                remove(root / stage / task / name)
        for one in wanted:
            _lay_out(one)


def name_runs(params: Params, cell: Cell) -> Iterator[Wanted]:
    """Yield every run of a cell, with the setting that stage `tune` chose and its key."""
    environment = run.environment(cell)
    variant = params.trained_as(cell.stage, cell.task, cell.method)
    keeps_weights = cell.method in params.keep_weights and cell.stage not in params.studies()
    for seed in range(params.seeds):
        setting = setting_of(cell.task, variant, seed)
        yield Wanted(cell, seed, setting, cell.key(seed, setting, environment), keeps_weights)


def _complete(
    params: Params, label: str, wanted: Sequence[Wanted], watcher: Watcher | None
) -> None:
    """Train what the store lacks, side by side.

    Raises:
        IbmaError: runs failed; it names the first, the others are finished and kept.
    """
    missing = [one for one in wanted if _find(one) is None]
    failed: dict[RunId, IbmaError] = {}
    if missing:
        run.warm_up(missing[0].cell)
    quiet = len(missing) > 1 or not sys.stderr.isatty()  # bars of several runs would overwrite
    calls = {one: (run.train_run, one.cell, one.seed, one.setting, quiet) for one in missing}
    left = dict.fromkeys(missing)
    look = partial(_look, left, watcher)
    engine, device, threads = params.engine, params.device, params.cpu_threads
    for one, future in run_all(engine, device, label, calls, _describe, look, threads=threads):
        del left[one]
        try:
            finished = future.result()
        except IbmaError as error:
            failed[one.id] = error
            if watcher:
                watcher.failed(one.id)
            continue
        _keep(one, finished)
        run.forget(one.key)
        if watcher:
            watcher.finished(finished.record)
    kept, trained = len(wanted) - len(missing), len(missing) - len(failed)
    tell(f"{label}: {kept} kept, {trained} trained")
    if failed:
        first, why = next(iter(failed.items()))
        raise IbmaError(
            f"{label}: {len(failed)} of {len(wanted)} runs failed, the others are kept; "
            f"{first}: {why}"
        )


def _look(unfinished: Iterable[Wanted], watcher: Watcher | None) -> float:
    """Pass on how far runs are that still train; return the sum of their trained shares."""
    shares = 0.0
    for one in unfinished:
        if (told := Checkpoint(run.checkpoint(one.key), one.key).told()) is not None:
            shares += len(told["seconds"]) / one.cell.epochs
            if watcher:
                watcher.running(_so_far(one, told))
    return shares


def _so_far(one: Wanted, told: Mapping[str, Any]) -> Record:
    """Return what is known of an unfinished run, of which a checkpoint tells."""
    trained = timedelta(seconds=sum(told["seconds"]))
    return Record(
        **run.known_before(one.cell, one.seed, one.setting),
        metrics={},
        ib={},
        ib_before={},
        history=told["history"],
        regime=told["regime"],
        cost={},
        weights="",
        provenance={
            "git_commit": run.commit(),
            "seconds_per_epoch": told["seconds"],
            "started": (datetime.now(UTC) - trained).isoformat(timespec="seconds"),
        },
    )


def _describe(one: Wanted, finished: run.Finished) -> str:
    """Say what came out of a run, for progress."""
    metric, value = next(iter(finished.record.metrics.items()))
    return f"{one.cell.method} seed {one.seed}: {metric} {value or 0:.3f}"


def _find(one: Wanted) -> Record | None:
    """Return the stored record of a run; a damaged one is deleted, to be trained again."""
    try:
        stored = record.read(one.record)
        if one.keeps_weights:
            verified(one.weights, stored.weights)
        if stored.key == one.key:
            return stored
    except FileNotFoundError:
        return None
    except IbmaError:
        pass
    for path in (one.record, one.predictions, one.weights):
        remove(path)
    return None


def _keep(one: Wanted, finished: run.Finished) -> None:
    """Store a finished run; its record is written last, so that there is none without the rest."""
    if one.keeps_weights:
        write_bytes(one.weights, finished.weights)
    finished.predictions.write(one.predictions)
    finished.record.write(one.record)


def _lay_out(one: Wanted) -> None:
    """Put a stored run into its stage's folders."""
    copy_file(one.record, one.id.record)
    copy_file(one.predictions, one.id.predictions)
    if one.keeps_weights:
        link_file(one.weights, one.id.weights)  # weights are large
