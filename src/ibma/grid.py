"""Run the DAG with every core of one machine busy.

DVC runs one stage at a time, spends seconds on its lock file after each, and starts a process that
spends seconds on imports. Here DVC says which stages are stale and what they wait for; processes
that stay go through the stages' doors, each cell as soon as those before it are done; then DVC
records what they wrote, in one go. `dvc repro` does the same work, one stage after the other.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ibma import params
from ibma.errors import IbmaError
from ibma.params import Params

DATA = ("download", "extract", "centroids")
# Waves that other machines can be asked to do.
WAVES = (("tune",), ("train", "train_ibma", "sensitivity"))
ALONE = ("timing",)  # it compares speeds: nothing runs beside it
NETWORKS = (*(stage for wave in WAVES for stage in wave), "probe", "gradcam")  # they need a GPU
LOGS = Path("logs")
COMMIT_SECONDS = 900.0  # a power cut loses no more than this of what DVC knows
Train = Callable[[Sequence[str]], None]  # cells -> nothing; raises IbmaError for failed ones
Dag = Mapping[str, Sequence[str]]  # stage -> the stages that it waits for

DVC = (sys.executable, "-m", "dvc")
_EDGE = re.compile(r'"([^"]+)"(?: -> "([^"]+)")?;')  # or a stage that stands alone


def repro(root: Path, jobs: int, train: Train | None = None) -> None:
    """Bring the whole pipeline up to date with `jobs` processes.

    A failed cell stops those that wait for it and no others; finished cells are kept. train: who
    does the waves of trials and trainings, given their stale cells; this machine's processes if
    None.

    Raises:
        IbmaError: `jobs` < 1, no pipeline under `root`, or failed cells, which it names.
    """
    if jobs < 1:
        raise IbmaError(f"--jobs {jobs}: expected a number of processes >= 1")
    without_git(root)
    with ThreadPoolExecutor() as at_once:  # DVC takes seconds for either
        asked_dag, asked_stale = at_once.submit(dag, root), at_once.submit(stale, root)
    upstream = asked_dag.result()
    todo = with_descendants(upstream, asked_stale.result())
    if not todo:
        return print("Data and pipelines are up to date.")
    if train is None:
        return run(root, upstream, todo, jobs)
    run(root, upstream, of(todo, DATA), jobs)
    for wave in WAVES:
        if wanted := of(stale(root), wave):
            train(wanted)
    run(root, upstream, with_descendants(upstream, stale(root)), jobs)


def run(root: Path, upstream: Dag, todo: Sequence[str], jobs: int) -> None:
    """Run stages in `jobs` processes, then let DVC record them. Raises IbmaError for failed ones.

    Real data is fetched first, a set at a time and in the open: that is bound by the network, and
    tells where to put what cannot be fetched.
    """
    if not todo:
        return
    work = Work(root, jobs)
    sets = params.load(root / "params.yaml").datasets
    real = [f"download@{name}" for name, entry in sets.items() if entry["source"] == "real"]
    try:
        work.download([name for name in todo if name in real])
        left = [name for name in todo if name not in work.done]
        work.go({name: [up for up in upstream[name] if up in left] for name in left})
    finally:
        work.commit()
    if work.failed:
        raise IbmaError(
            f"{len(work.failed)} cells failed ({', '.join(sorted(work.failed))}): read {LOGS}/, "
            "mend the cause and run again, finished cells are kept"
        )


class Unit(NamedTuple):
    """A piece of a cell's work, see `units`; urgency: what may start with the highest one does."""

    name: str
    cell: str
    urgency: float


@dataclass
class Work:
    """Stages on their way through the processes of one machine."""

    root: Path
    jobs: int
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    recorded: set[str] = field(default_factory=set)  # by DVC
    since: float = field(default_factory=time.monotonic)

    def download(self, names: Sequence[str]) -> None:
        """Fetch data sets, in the open."""
        for name in names:
            door = (sys.executable, "stages/download.py", name.partition("@")[2])
            told = subprocess.run(door, cwd=self.root, env=environment(self.root))
            (self.failed if told.returncode else self.done).add(name)

    def go(self, upstream: Dag) -> None:
        """Run stages, each when those that it waits for are done."""
        profile = params.load(self.root / "params.yaml")
        order = TopologicalSorter(upstream)
        order.prepare()
        waiting: list[Unit] = []
        running: dict[Future[bool], Unit] = {}
        left: Counter[str] = Counter()  # units of a cell that are not done
        with _pool(self.root, self.jobs) as pool, tqdm(total=len(upstream), unit="cell") as bar:
            # asked in a process of its own: CUDA does not survive a fork
            on_gpu = pool.submit(_sharing_gpu).result() or self.jobs
            while True:
                for cell in order.get_ready():
                    if cell not in self.failed:
                        names = units(profile, cell)
                        left[cell] = len(names)
                        waiting += [
                            Unit(name, cell, self._urgency(profile, name)) for name in names
                        ]
                while unit := _next(waiting, running.values(), self.jobs, on_gpu):
                    waiting.remove(unit)
                    running[pool.submit(_do, unit.name)] = unit
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    cell = running.pop(future).cell
                    left[cell] -= 1
                    if not _succeeded(future):
                        self.failed.add(cell)
                    elif not left[cell] and cell not in self.failed:
                        self.done.add(cell)
                        order.done(cell)
                    bar.update(not left[cell])
                if time.monotonic() - self.since > COMMIT_SECONDS:
                    self.commit()

    def commit(self) -> None:
        """Let DVC record what is done since it did so last."""
        if fresh := self.done - self.recorded:
            commit(self.root, fresh)
        self.recorded |= fresh
        self.since = time.monotonic()

    def _urgency(self, profile: Params, unit: str) -> float:
        """Data first, since most waits for it; then the largest task, so that none is left last."""
        from ibma import cells

        if of([unit], DATA):
            return math.inf
        # grows with the rows of a task's features; stages of no task come last
        index = self.root / cells.FEATURES / cells.parts(profile, unit)[1] / "index.csv"
        return index.stat().st_size if index.exists() else 0.0


def _next(
    waiting: Sequence[Unit], running: Collection[Unit], jobs: int, on_gpu: int
) -> Unit | None:
    """What is to start now, if anything is; on_gpu: how many networks may be at work at once."""
    if len(running) >= jobs or any(unit.cell in ALONE for unit in running):
        return None
    full = len(of([unit.cell for unit in running], NETWORKS)) >= on_gpu
    beside = [
        unit
        for unit in waiting
        if unit.cell not in ALONE and not (full and of([unit.cell], NETWORKS))
    ]
    if beside:
        return max(beside, key=lambda unit: unit.urgency)
    return next((unit for unit in waiting if unit.cell in ALONE and not running), None)


def _succeeded(future: Future[bool]) -> bool:
    """Whether a unit went well. Raises IbmaError when its process is gone."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise IbmaError(
            "a process was killed, by want of memory in most cases: run again with fewer "
            "(--jobs), finished work is kept"
        ) from None


def commit(root: Path, names: Collection[str]) -> None:
    """Let DVC record what was made outside of it. Raises IbmaError when it cannot."""
    recorder = (sys.executable, "-m", "ibma.commit", *sorted(names))
    if subprocess.run(recorder, cwd=root, env=environment(root)).returncode:
        raise IbmaError("dvc.lock: not written: the lines above say why, run again to go on")


def without_git(root: Path) -> None:
    """Tell DVC to work without git where the sources came as an archive."""
    if not (root / ".git").exists():
        dvc(root, "config", "--local", "core.no_scm", "true")


def dag(root: Path) -> Dag:
    """Every stage, such as `train@crema_d-ce3`, and those that it waits for."""
    upstream: dict[str, list[str]] = {}
    for before, after in _EDGE.findall(asked(root, "dag", "--dot")):
        upstream.setdefault(before, [])
        if after:
            upstream.setdefault(after, []).append(before)
    return upstream


def with_descendants(upstream: Dag, names: Collection[str]) -> list[str]:
    """Some stages and all that wait for them."""
    found: set[str] = set()
    for name in TopologicalSorter(upstream).static_order():
        if name in names or found & set(upstream[name]):
            found.add(name)
    return [name for name in upstream if name in found]


def asked(root: Path, *arguments: str) -> str:
    """What DVC answers. Raises IbmaError with its complaint."""
    done = subprocess.run(
        [*DVC, *arguments], cwd=root, env=environment(root), capture_output=True, text=True
    )
    if done.returncode:
        raise IbmaError(f"dvc.yaml: {' '.join(done.stderr.split())}")
    return done.stdout


def of(cells: Iterable[str], names: Sequence[str]) -> list[str]:
    """Select the stages whose name before `@` is one of `names`."""
    return [cell for cell in cells if cell.partition("@")[0] in names]


def stale(root: Path) -> list[str]:
    """The stages that are not up to date; those behind them may become so."""
    return list(json.loads(asked(root, "status", "--json")))


def units(profile: Params, cell: str) -> list[str]:
    """Pieces of a cell that do not depend on each other: of `tune@crema_d` one per method."""
    stage, _, _ = cell.partition("@")
    if stage != "tune":
        return [cell]
    return [f"{cell}-{method}" for method in (*profile.methods, *profile.variants)]


def _pool(root: Path, jobs: int) -> ProcessPoolExecutor:
    """Processes that write to `logs/process_<process id>.log`."""
    logs = root.resolve() / LOGS
    logs.mkdir(exist_ok=True)
    for old in logs.glob("process_*.log"):
        old.unlink()
    return ProcessPoolExecutor(jobs, initializer=_begin, initargs=(root.resolve(), logs))


def _begin(root: Path, logs: Path) -> None:
    os.chdir(root)
    log = os.open(logs / f"process_{os.getpid()}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())


def _sharing_gpu() -> int | None:
    from ibma import cells

    return cells.sharing_gpu(params.load())


def _do(unit: str) -> bool:
    """Go through the door of one unit; whatever goes wrong is told in this process's log."""
    from ibma import cells

    print(f"== {unit}", flush=True)
    try:
        # every core is busy with a unit of its own
        cells.run(replace(params.load(), workers=1), unit)
    except IbmaError as error:
        print(f"error: {error}", flush=True)
    except Exception:
        traceback.print_exc()
    else:
        return True
    return False


def dvc(root: Path, *arguments: str) -> None:
    """Run DVC in the open. Raises IbmaError when it fails."""
    if subprocess.run([*DVC, *arguments], cwd=root, env=environment(root)).returncode:
        raise IbmaError(f"`dvc {arguments[0]}` failed: the lines above say why, run again to go on")


def environment(root: Path) -> dict[str, str]:
    """Return an environment in which the stages' `python` is this one and their code is root's."""
    python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    code = f"{root.resolve() / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PATH": python, "PYTHONPATH": code, "PYTHONUNBUFFERED": "1"}
