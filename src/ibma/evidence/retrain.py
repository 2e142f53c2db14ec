"""Train a committed run again, from nothing, and compare (`ibma verify --retrain`).

With the same code on the same kind of machine, metrics and IB losses are equal. On other machines
rounding changes the course of training. There each number may differ from the committed one by
three standard deviations of the difference between two seeds of the same method and task.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ibma.engine import Processes
from ibma.errors import IbmaError
from ibma.evidence import verify
from ibma.machine import hold_to
from ibma.params import Params
from ibma.paths import META
from ibma.results import records, stats
from ibma.results.records import Results
from ibma.training.cell import Cell, Setting
from ibma.training.record import Record

SAME = 1e-6  # where records are equal; this is the last digit of float32 sums
MACHINE = ("device", "cpu_capability")  # what else decides rounding where keys are equal


@dataclass(frozen=True)
class Gap:
    """One metric (fraction) or IB loss (nats) of a run: as committed, and trained again."""

    name: str
    committed: float | None
    retrained: float | None
    allowed: float

    @property
    def agrees(self) -> bool:
        """Return whether both are undefined, or no further apart than allowed."""
        if self.committed is None or self.retrained is None:
            return self.committed is self.retrained
        return abs(self.committed - self.retrained) <= self.allowed


@dataclass(frozen=True)
class Again:
    """A run trained again. same_key: the same code, data and parameters made both records."""

    run: Record
    device: str
    same_key: bool
    gaps: tuple[Gap, ...]


def run(profile: str, root: Path, wanted: str) -> Iterator[Again]:
    """Train committed runs of a profile again, one after the other, as the iterator is walked.

    What cannot be trained is refused at once: the caller may have minutes of checks to do first.

    Args:
        root: the project, with the features and centroids of these tasks.
        wanted: a number of cells per task, each with one of its seeds, drawn at random; or
            TASK/METHOD[/SEED], where a missing SEED is drawn.

    Raises:
        IbmaError: there is no such run, or its task's features or centroids are not there.
    """
    results = verify.read(profile, root)[0].results
    chosen = _choose(results, wanted)
    for committed in chosen:
        _check_inputs(results.params, _cell(results.params, committed, root), committed.source)
    return _each(results, root, chosen)


def _each(results: Results, root: Path, chosen: Sequence[Record]) -> Iterator[Again]:
    hold_to(results.params.instructions)
    for committed in chosen:
        peers = results.runs[committed.stage, committed.task, committed.method]
        yield _again(results.params, root, committed, peers)


def _cell(params: Params, committed: Record, root: Path) -> Cell:
    return Cell.named(params, committed.stage, committed.task, committed.method, root)


def _choose(results: Results, wanted: str) -> list[Record]:
    if wanted.isdigit() and int(wanted):
        return [
            random.choice(results.runs[cell])
            for task in results.params.tasks
            if (known := [cell for cell, runs in results.runs.items() if runs and cell[1] == task])
            for cell in random.sample(known, min(int(wanted), len(known)))
        ]
    named = re.fullmatch(r"(?P<task>[^/]+)/(?P<method>[^/]+)(/(?P<seed>\d+))?", wanted)
    if not named:
        raise IbmaError(f"--retrain {wanted}: expected a number >= 1 or TASK/METHOD[/SEED]")
    chosen = [
        run
        for (_, task, method), runs in results.runs.items()
        if (task, method) == (named["task"], named["method"])
        for run in runs
        if named["seed"] in (None, str(run.seed))
    ]
    if not chosen:
        raise IbmaError(f"--retrain {wanted}: profile {results.params.profile} has no such run")
    return [random.choice(chosen)]


def train(params: Params, root: Path, committed: Record, process: Processes) -> Record:
    """Train a committed run again with its own setting, and keep nothing.

    Args:
        root: the project, with the features and centroids of its task.
        process: a fresh one; this one may have loaded torch before it knew the instructions.

    Raises:
        IbmaError: the features or centroids are not there, or are of another source.
    """
    from ibma.training.run import Finished, environment, forget, train_run

    cell = _cell(params, committed, root)
    _check_inputs(params, cell, committed.source)
    setting = Setting.of(committed.params)
    key = cell.key(committed.seed, setting, environment(cell))
    forget(key)  # an interrupted run would go on from its checkpoint
    try:
        finished: Finished = process.submit(train_run, cell, committed.seed, setting).result()
        return finished.record
    finally:
        forget(key)


def _again(params: Params, root: Path, committed: Record, peers: Sequence[Record]) -> Again:
    """Train a committed run again and compare it; peers: runs of its other seeds."""
    with Processes(1, params.cpu_threads, fresh=True) as process:
        retrained = train(params, root, committed, process)
    machines = [[run.provenance.get(name) for name in MACHINE] for run in (committed, retrained)]
    same_key = committed.key == retrained.key
    gaps = _gaps(committed, retrained, peers, exactly=same_key and machines[0] == machines[1])
    return Again(committed, str(retrained.provenance["device"]), same_key, tuple(gaps))


def _check_inputs(params: Params, cell: Cell, source: str) -> None:
    """Refuse to train on what another profile left there."""
    remedy = (
        f"`ibma profile {params.profile}`, then `dvc repro centroids@{cell.task}` fetches the data "
        "and makes it"
    )
    for path in (cell.features / META, cell.centroids):
        if not path.exists():
            raise IbmaError(f"{path}: missing: {remedy}")
    if cell.meta["source"] != source:
        raise IbmaError(
            f"{cell.features}: {cell.meta['source']} data, the run's is {source}: {remedy}"
        )


def _gaps(
    committed: Record, retrained: Record, peers: Sequence[Record], exactly: bool
) -> Iterator[Gap]:
    for name in (*committed.metrics, *(f"ib/{place}" for place in committed.ib)):
        allowed = SAME if exactly else max(SAME, _spread(records.values(peers, name, "")))
        ours, again = (records.value(run, name) for run in (committed, retrained))
        yield Gap(name, ours, again, allowed)


def _spread(values: Sequence[float]) -> float:
    """Return 3 standard deviations of the difference of two runs of a cell; inf for one run."""
    sd = stats.summary(values).sd if values else None
    return math.inf if sd is None else 3 * math.sqrt(2) * sd
