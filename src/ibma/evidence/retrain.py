"""Train a committed run again, from nothing, and compare (`ibma verify --retrain`).

By the same code on the same kind of machine metrics and IB losses are equal. Elsewhere rounding
sends training down another path: there each must be no further from the committed one than two
seeds of the cell are, three standard deviations of their difference at most.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ibma.errors import IbmaError
from ibma.evidence import verify
from ibma.experiments import runs
from ibma.params import Params
from ibma.results import records, stats
from ibma.results.records import Cells
from ibma.training import loop
from ibma.training.loop import Setting
from ibma.training.record import Record

SAME = 1e-6  # there records are equal; this is the last digit of float32 sums


@dataclass(frozen=True)
class Gap:
    """One metric (fraction) or IB loss (nats) of a run: as committed, and trained again."""

    name: str
    committed: float | None
    retrained: float | None
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether both are undefined, or no further apart than allowed."""
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
    """Train committed runs of a profile again, one after the other.

    wanted: a number of cells per task, each with one of its seeds, drawn at random; or
    TASK/METHOD[/SEED], where a missing SEED is drawn. Raises IbmaError when there is no such run.
    """
    with TemporaryDirectory() as scratch:
        params = verify.lay_out(profile, root, Path(scratch))
        here = records.cells(params, Path(scratch))
    for one in _choose(params, here, wanted):
        yield _again(params, one, here[one.task, one.method])


def _choose(params: Params, here: Cells, wanted: str) -> list[Record]:
    if wanted.isdigit() and int(wanted):
        return [
            random.choice(here[cell])
            for task in params.tasks
            if (known := [cell for cell in here if cell[0] == task and here[cell]])
            for cell in random.sample(known, min(int(wanted), len(known)))
        ]
    found = re.fullmatch(r"(?P<task>[^/]+)/(?P<method>[^/]+)(/(?P<seed>\d+))?", wanted)
    if not found:
        raise IbmaError(f"--retrain {wanted}: expected a number >= 1 or TASK/METHOD[/SEED]")
    runs = here.get((found["task"], found["method"]), ())
    runs = [one for one in runs if found["seed"] in (None, str(one.seed))]
    if not runs:
        raise IbmaError(f"--retrain {wanted}: profile {params.profile} has no such run")
    return [random.choice(runs)]


def _again(params: Params, held: Record, peers: Sequence[Record]) -> Again:
    """Train the run of a record in a folder that is deleted afterwards; peers: its cell's runs."""
    _check_inputs(params, held.task)
    cell = runs.cell(params, held.task, held.method)
    setting = Setting(held.params["lr"], held.params["weight_decay"], held.params["eta"])
    with TemporaryDirectory() as scratch:
        folders = (Path(scratch) / name for name in ("runs", "models", "scratch"))
        found = loop.run_seed(cell, held.seed, setting, *folders)
    assert found is not None, "nothing is finished in an empty folder"
    device = str(found.volatile["device"])
    same_key = found.key == held.key
    exactly = same_key and device == held.volatile["device"]
    return Again(held, device, same_key, tuple(_gaps(held, found, peers, exactly)))


def _check_inputs(params: Params, task: str) -> None:
    needed = (runs.FEATURES / task / "meta.json", runs.CENTROIDS / task)
    for path in needed:
        if not path.exists():
            raise IbmaError(
                f"{path}: missing: `ibma profile {params.profile}`, then "
                f"`dvc repro centroids@{task}` fetches the data and makes it"
            )


def _gaps(held: Record, found: Record, peers: Sequence[Record], exactly: bool) -> Iterator[Gap]:
    names = [*held.metrics, *(f"ib/{name}" for name in held.ib)]
    for name in names:
        allowed = SAME if exactly else max(SAME, _spread(records.values(peers, name, "")))
        yield Gap(name, records.value(held, name), records.value(found, name), allowed)


def _spread(values: Sequence[float]) -> float:
    """Three standard deviations of the difference of two runs of a cell; no limit for one run."""
    sd = stats.summary(values).sd if values else None
    return math.inf if sd is None else 3 * math.sqrt(2) * sd
