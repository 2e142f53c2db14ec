"""Errors of the operating system at a chosen write of a stage, and kills at a chosen moment."""

import hashlib
import os
import pickle
import random
import resource
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ibma import paths
from ibma.experiments import progress
from ibma.files import read_json
from ibma.tracking.entities import DIGEST, FOLDER
from ibma.tracking.store import DATABASE
from ibma.training import record

from . import stored
from .branches import Branches, level
from .trial import Figures, alone, attempt, leaves_any

DRAWN = {"report": 40, "track": 40}  # trees that slow stages left, to run again on; else all
ENDED = {"refused": "refused", "done": "harmless"}
SIZES = (0, 3000, 60_000)  # bytes beyond which no file may grow
SECONDS = 300.0  # for a stage, on a machine that others share
HOURS = 7200.0  # for one with a trial at each of its writes
SAME = (paths.RUNS, paths.MODELS, paths.REPORTS, Path("data"))  # what a stage leaves, in full
OWN = (paths.SCRATCH, Path("data/raw"))  # but for these
FILES = (".lock", ".sentinel")


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Let the system refuse, for real, to write beyond a size into any file (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def state(root: Path = Path()) -> dict[str, object]:
    """Return what a stage's output says: every file, records without when and where."""
    found: dict[str, object] = {}
    for top in SAME:
        for path in sorted((root / top).rglob("*")):
            name = path.relative_to(root)
            if path.is_file() and not any(own in name.parents for own in OWN):
                found[name.as_posix()] = _content(path, name)
    if (root / DATABASE).exists():
        found[DATABASE.name] = _mirrored(root / DATABASE)
    # a lock is left beside its folder, and says nothing
    return {name: value for name, value in found.items() if not name.endswith(FILES)}


def _mirrored(database: Path) -> object:
    """Return the records that MLflow holds whole, as folder, seed and digest."""
    asked = """
        select r.run_uuid, t.key, t.value from runs r join tags t on t.run_uuid = r.run_uuid
        where r.lifecycle_stage = 'active' and r.status = 'FINISHED'
    """
    tags: dict[str, dict[str, str]] = {}
    with closing(sqlite3.connect(database)) as opened:
        for run, key, value in opened.execute(asked):
            tags.setdefault(run, {})[key] = value
    return sorted(
        str([one.get(name) for name in (FOLDER, "seed", DIGEST)]) for one in tags.values()
    )


def _content(path: Path, name: Path) -> object:
    if name in (paths.TIMING, paths.TRACK):
        found = read_json(path, {})
        return sorted(found.get("methods", found))  # but for seconds and MLflow's own ids
    if path.suffix == ".json" and (paths.RUNS.name in path.parts or "store" in path.parts):
        with suppress(Exception):
            return repr(replace(record.read(path), provenance={}, digest="-"))
    return path.read_bytes()


def started(project: Path, stage: str, copy: Path) -> None:
    """Lay out a project in which a stage has not run yet, and work there."""
    os.chdir(project)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(project, copy, symlinks=True, copy_function=os.link)
    os.chdir(copy)
    for path in _cleared(stage):
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True) if path.is_file() else None


def _cleared(stage: str) -> list[Path]:
    """Return what a stage must not find: what it writes, and the store, so that it has work to do.

    MLflow is to mirror two runs: more of them make the same writes again.
    """
    task = stored.TASK
    further = [path for path in paths.RUNS.iterdir() if path.name != "train_ibma"]
    own = {
        "download": [paths.manifest(task)],
        "extract": [paths.FEATURES / task],
        "centroids": [paths.CENTROIDS / task],
        "tune": [paths.TUNING / task, paths.store()],
        "probe": [paths.PROBE],
        "logistic": [paths.logistic(task)],
        "significance": [paths.SIGNIFICANCE],
        "audit": [paths.AUDIT],
        "timing": [paths.TIMING],
        "gradcam": [paths.GRADCAM],
        "report": [p for p in (paths.REPORTS / "twin").iterdir() if p.name != "evidence"],
        "track": [paths.TRACK, *further],
    }
    runs = [paths.RUNS / stage / task, paths.MODELS / stage / task, paths.store()]
    return own.get(stage, runs)


def use(stage: str) -> Callable[[], None]:
    """Return what runs a stage."""
    return stored.STAGES[stage]


def errors(project: Path, stage: str) -> Figures:
    """Let every system error happen at every write of a stage; then run it without, and compare.

    Besides the system itself refuses to let files grow, which hits what libraries write in their
    own ways, and a stage with worker processes.
    """
    figures, copy = Figures("system errors"), project.with_name("copy")
    branches = Branches(copy)
    with in_process(project.with_name("calls")):
        started(project, stage, copy)
        whole = attempt(use(stage), SECONDS)
        expected = state()
        started(project, stage, copy)
        tried = attempt(lambda: branches.run(use(stage)), HOURS)
        assert (whole.how, tried.how) == ("done", "done"), f"{stage}: {whole.said} {tried.said}"
        assert not differing(expected), "trials disturb one another"
        left = sorted({(tree, how) for _, how, _, tree in tried.result if how != "failed"})
        drawn = random.Random(stage).sample(left, min(len(left), DRAWN.get(stage, len(left))))
        bad = {one: _wrong(stage, branches, *one, expected, one in drawn) for one in left}
    for what, how, said, tree in tried.result:
        why = bad.get((tree, how), said)
        figures.count("failed" if why else ENDED[how], f"{stage}: {what}", f"{said} {why}")
    shutil.rmtree(branches.trees)
    for size in SIZES:
        started(project, stage, copy)

        def fail(size: int = size) -> None:
            with limited(size):
                use(stage)()

        end = attempt(fail, SECONDS)
        why = end.said if end.how == "failed" else _again(stage, expected)
        what = f"{stage}: EFBIG after {size:,} bytes"
        figures.count("failed" if why else ENDED[end.how], what, f"{end.said} {why}")
    return figures


def _wrong(
    stage: str, branches: Branches, tree: str, how: str, expected: dict[str, object], again: bool
) -> str:
    """Return what is wrong with a tree that a stage left when it ended, "" for nothing.

    One that says that it is done is not run again, so that its tree is to be whole.
    """
    if how == "done" and (apart := differing(expected, branches.trees / tree)):
        return f"done, but {apart}"
    if not again:
        return ""
    level(branches.trees / tree, branches.folder)
    return _again(stage, expected)


def _again(stage: str, expected: dict[str, object]) -> str:
    """Run a stage again after a fault; what it leaves is to be what it always leaves."""
    again = attempt(use(stage), SECONDS)
    apart = differing(expected)
    return f"again: {again.said} {apart}" if again.how != "done" or apart else ""


class Remembered(Executor):
    """Make calls in this process: no thread and no worker is lost when a trial branches off.

    A call that was made before gives what it gave then: training reads files and writes none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def submit(self, function: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        path = self._folder / hashlib.sha256(pickle.dumps(args)).hexdigest()
        if not path.exists():
            path.write_bytes(pickle.dumps(function(*args)))
        future.set_result(pickle.loads(path.read_bytes()))
        return future


@contextmanager
def in_process(folder: Path) -> Iterator[None]:
    """Let stages make the calls of their workers in their own process."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "executor", lambda *_: Remembered(folder))
        patch.setattr(os, "fsync", lambda _: None)  # no trial outlives this machine's power
        yield


def differing(expected: dict[str, object], root: Path = Path()) -> list[str]:
    found = state(root)
    return sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))


def kills(project: Path, stage: str, rng: random.Random, times: int) -> Figures:
    """Kill a stage at random moments; run it again, and compare what it leaves."""
    figures, copy = Figures("kills"), project.with_name("copy")
    started(project, stage, copy)
    begun = time.monotonic()
    first = attempt(use(stage), SECONDS)
    assert first.how == "done", f"{stage}: {first.said}"
    took, expected = time.monotonic() - begun, state()
    for _ in range(times):
        started(project, stage, copy)
        moment = rng.uniform(0, took)
        ended = _killed(use(stage), moment)
        again = attempt(use(stage), SECONDS)
        apart = differing(expected)
        bad = again.how != "done" or apart or ended == "left"
        what = f"{stage}: killed after {moment:.2f} s of {took:.2f}"
        figures.count("failed" if bad else "rebuilt", what, f"{ended} {again.said} {apart}")
    return figures


def _killed(stage: Callable[[], None], seconds: float) -> str:
    """Run a stage in a child and kill that; `left` if it leaves a process behind."""
    child = os.fork()
    if not child:
        alone()
        with suppress(BaseException):
            stage()
        os._exit(0)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "left" if leaves_any(child) else ""
