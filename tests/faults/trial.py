"""Try one piece of code on one damaged input, in a process of its own, and say how it ended."""

import json
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ibma.errors import REMEDIES, IbmaError

MEMORY = 1 << 30  # bytes beyond what the process had before
SECONDS = 60.0
_answer = -1  # the pipe on which this trial says how it ended
ENDS = ("refused", "dropped by name", "rebuilt", "harmless", "failed")


@dataclass(frozen=True)
class Ending:
    """How a trial ended: `done` with a result, `refused` in one line, or `failed`."""

    how: str
    said: str
    result: object = None


def attempt(use: Callable[[], object], seconds: float = SECONDS) -> Ending:
    """Call a function in a child with bounds on time and memory; its result must be JSON."""
    sys.stdout.flush()
    if (end := branch(seconds)) is not None:
        return end
    _child(use)
    os._exit(0)


def branch(seconds: float = SECONDS) -> Ending | None:
    """Fork a trial where it is: return None in the child, which goes on, else how that ended."""
    global _answer
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        alone()
        _answer = write
        return None
    os.close(write)
    said = _receive(read, time.monotonic() + seconds)
    os.close(read)
    left = _end(child)
    if said is None:
        return Ending("failed", f"hangs: no answer after {seconds:.0f} s")
    if not said:
        return Ending("failed", "died without a word")
    if left:
        return Ending("failed", "left processes behind")
    how, line, result, peak = json.loads(said)
    if peak > MEMORY:
        return Ending("failed", f"{peak >> 20} MB for {line}")
    if how == "refused" and (not line or "\n" in line):
        return Ending("failed", f"more or less than one line: {line!r}")
    return Ending(how, line, result)


def alone() -> None:
    """Set up a forked process: a group of its own, silent, and with a lock of its own for bars.

    Theirs is shared by all forks: one that is killed while it holds it would block the others.
    """
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    tqdm.set_lock(threading.RLock())


def _child(use: Callable[[], object]) -> None:
    before = _status("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + 3 * MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = ("done", "", use())
    except IbmaError as error:
        answer = ("refused", str(error), None)
    except OSError as error:  # as `run_stage` has it
        known = error.errno in REMEDIES and error.filename  # else the line names no file
        line = f"{error.filename}: {REMEDIES[error.errno]}" if known else traceback.format_exc()
        answer = ("refused" if known else "failed", line, None)
    except BaseException:
        answer = ("failed", traceback.format_exc(), None)
    with suppress(BaseException):
        content = json.dumps([*answer, _status("VmHWM") - before]).encode()
        with os.fdopen(_answer, "wb") as pipe:
            pipe.write(content)


def _status(name: str) -> int:
    """Return a line of this process's status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def _receive(pipe: int, until: float) -> bytes | None:
    """Return what a child writes; None if it says nothing in time."""
    parts = []
    while (left := until - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            if not (part := os.read(pipe, 1 << 16)):
                return b"".join(parts)
            parts.append(part)
    return None


def _end(child: int) -> bool:
    """End a child and all that it started; return whether it had left anything running."""
    until = time.monotonic() + 2
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < until:
        time.sleep(0.002)
    return leaves_any(child)


def leaves_any(child: int) -> bool:
    """Return whether what a child started still runs two seconds after its end; then end that."""
    until = time.monotonic() + 2
    while (left := _alive(child)) and time.monotonic() < until:
        time.sleep(0.01)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
    return left


def _alive(group: int) -> bool:
    """Return whether a process of a group runs; a dead one may wait long for init to bury it."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, found, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(found) == group and state not in "ZX":
                return True
    return False


@dataclass
class Figures:
    """What came of all attacks of a kind, and every one that failed."""

    kind: str
    ends: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def count(self, end: str, what: str, said: str = "") -> None:
        self.ends[end] += 1
        if end == "failed":
            self.failed.append(f"{what}: {said[-600:]}")
