"""Errors of the operating system at a chosen write of a stage, and kills at a chosen moment."""

import builtins
import errno
import fcntl
import io
import itertools
import mmap
import os
import random
import resource
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ibma import paths
from ibma.errors import REMEDIES
from ibma.files import read_json
from ibma.tracking.entities import DIGEST, FOLDER
from ibma.tracking.store import DATABASE
from ibma.training import record

from . import stored
from .trial import Figures, alone, attempt, leaves_any

WRITING = ("fsync", "mkdir", "replace", "rename", "link")  # functions of os
SIZES = (0, 3000, 60_000)  # bytes beyond which no file may grow
SECONDS = 300.0  # for a stage, on a machine that others share
SAME = (paths.RUNS, paths.MODELS, paths.REPORTS, Path("data"))  # what a stage leaves, in full
OWN = (paths.SCRATCH, Path("data/raw"))  # but for these
FILES = (".lock", ".sentinel")


class Calls:
    """The calls of a stage that write, those of its worker processes included."""

    def __init__(self) -> None:
        self._count = mmap.mmap(-1, 8)  # shared with every process that is forked from here on
        self._names = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115 - lives as long

    def add(self, name: str) -> int:
        """Note a call; return how many there are now."""
        fcntl.lockf(self._names, fcntl.LOCK_EX)  # of a process: flock would be of the file
        try:
            count = int.from_bytes(self._count[:], "big") + 1
            self._count[:] = count.to_bytes(8, "big")
            os.write(self._names.fileno(), f"{name}\n".encode())
        finally:
            fcntl.lockf(self._names, fcntl.LOCK_UN)
        return count

    def names(self) -> list[str]:
        self._names.seek(0)
        return self._names.read().decode().splitlines()


@contextmanager
def failing(number: int, at: int) -> Iterator[Calls]:
    """Let the `at`-th system call that writes fail with an errno; yield the list of all calls.

    A call is an opening of a file for writing, or one of `WRITING`. A full disk shows at `fsync` at
    the latest, which is where buffered bytes reach it.
    """
    calls = Calls()

    def met(name: str, path: object) -> None:
        if calls.add(f"{name} {path}") == at:
            shown = None if isinstance(path, int) else str(path)
            raise OSError(number, os.strerror(number), shown)

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *more: Any, **named: Any) -> Any:
            if _of_project(path):
                met(name, path)
            return function(path, *more, **named)

        return call

    def opened(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: Any = "r", *more: Any, **named: Any) -> Any:
            writes = (
                mode & (os.O_WRONLY | os.O_RDWR) if isinstance(mode, int) else set(mode) & WRITE
            )
            if writes and _of_project(path):
                met("open", path)
            return function(path, mode, *more, **named)

        return call

    before = {name: getattr(os, name) for name in (*WRITING, "open")}, io.open
    for name in WRITING:
        setattr(os, name, counted(name, before[0][name]))
    os.open = opened(before[0]["open"])
    io.open = builtins.open = opened(before[1])
    try:
        yield calls
    finally:
        for name, function in before[0].items():
            setattr(os, name, function)
        io.open = builtins.open = before[1]


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


WRITE = set("wax+")


def _of_project(path: object) -> bool:
    if isinstance(path, int):  # a descriptor of `fsync`; openings count files, not pipes
        return os.path.isfile(f"/proc/self/fd/{path}")
    return not str(path).startswith(("/proc", "/dev", "/sys"))


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
    for path in _outputs(stage):
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True) if path.is_file() else None


def _outputs(stage: str) -> list[Path]:
    """Return what a stage writes; the store goes, too, so that it has work to do."""
    task = stored.TASK
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
        "track": [paths.TRACK],
    }
    runs = [paths.RUNS / stage / task, paths.MODELS / stage / task, paths.store()]
    return own.get(stage, runs)


def use(stage: str) -> Callable[[], None]:
    """Return what runs a stage."""
    return stored.STAGES[stage]


def errors(project: Path, stage: str, rng: random.Random, most: int) -> Figures:
    """Let system errors happen at writes of a stage; then run it without, and compare.

    Every error happens, the next at the next write. Besides the system itself refuses to let files
    grow, which hits what libraries write in their own ways.

    Args:
        most: writes that are hit; of more, some are drawn.
    """
    figures, copy = Figures("system errors"), project.with_name("copy")
    started(project, stage, copy)

    def count() -> list[str]:
        with failing(0, 0) as calls:
            use(stage)()
        return calls.names()

    calls = attempt(count, SECONDS)
    assert calls.how == "done", f"{stage}: {calls.said}"
    expected, total = state(), len(calls.result)
    places = sorted(rng.sample(range(1, total + 1), min(most, total)))
    places += [rng.randint(1, total) for _ in range(len(REMEDIES) - len(places))]
    faults = [
        (failing(number, at), f"{errno.errorcode[number]} at {calls.result[at - 1]}")
        for at, number in zip(places, itertools.cycle(REMEDIES), strict=False)
    ]
    faults += [(limited(size), f"EFBIG after {size:,} bytes") for size in SIZES]
    for fault, what in faults:
        started(project, stage, copy)

        def fail(fault: AbstractContextManager[object] = fault) -> None:
            with fault:
                use(stage)()

        end = attempt(fail, SECONDS)
        how, said = _again(stage, end.how, expected)
        figures.count(how, f"{stage}: {what}", f"{end.said} {said}")
    return figures


def _again(stage: str, how: str, expected: dict[str, object]) -> tuple[str, str]:
    """Run a stage again after a fault; what it leaves is to be what it always leaves."""
    if how == "failed":
        return "failed", ""
    again = attempt(use(stage), SECONDS)
    apart = differing(expected)
    if again.how != "done" or apart:
        return "failed", f"again: {again.said} {apart}"
    return "refused" if how == "refused" else "harmless", ""


def differing(expected: dict[str, object]) -> list[str]:
    found = state()
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
