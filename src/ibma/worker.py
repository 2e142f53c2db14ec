"""One worker of a grid: a clone that runs cells and hands back what the head needs to know.

`python -m ibma.worker` reads an order as JSON and answers with an outcome as JSON, so that whatever
can start a process on a machine can run cells there. Data moves through DVC alone: a cache folder
that both sides see, or a remote that both reach. DVC's run cache has no part in it: cells keep
finished seeds by `persist`, and DVC leaves the outputs of such stages out of its run cache.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from ruamel.yaml import YAML

from ibma import cells, grid, params
from ibma.doors import door
from ibma.errors import IbmaError

LOCK = "dvc.lock"
GIVEN = Path(".dvc/tmp/given.lock")  # dvc.lock as the head sent it
_FAILED = re.compile(r"failed to reproduce (?:stages: )?'.*'")
_QUOTED = re.compile(r"'([^']+)'")


@dataclass(frozen=True)
class Order:
    """What a worker is told. Everything but the data itself is in here.

    clone: folder to work in, made where it is missing. source, commit: git repository and what to
    check out. params, lock: texts of the head's params.yaml and dvc.lock. cache: folder of a DVC
    cache that head and worker see; remote: else the address of a DVC remote that both reach.
    scratch: folder of checkpoints that outlive this worker, None for the clone's own. units: see
    `grid.units`; none of them depends on another.
    """

    clone: str
    source: str
    commit: str
    params: str
    lock: str
    cache: str | None
    remote: str | None
    scratch: str | None
    units: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """What came of an order.

    locked: finished cell -> its entry of dvc.lock, by which the head finds its outputs. choices:
    finished trials, as path -> text. failed: units. place: where the logs are.
    """

    locked: Mapping[str, Any]
    choices: Mapping[str, str]
    failed: Sequence[str]
    place: str


def run(order: Order) -> Outcome:
    """Run an order's units; what fails does not stop the others.

    A second order for the same clone waits until the first has ended.

    Raises IbmaError when the clone cannot be made or the data cannot be had.
    """
    clone = Path(order.clone)
    clone.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{clone}.lock"):
        _prepare(clone, order)
        failed = run_cells(clone, order.units)
        done = [unit for unit in order.units if unit not in failed]
        trained = [unit for unit in done if not _is_trial(unit)]
        if trained and order.remote:
            _dvc(clone, "push", *trained)
        locked = read_lock(clone / LOCK)["stages"]
        profile = params.load(clone / "params.yaml")
        tried = [cells.parts(profile, unit) for unit in done if _is_trial(unit)]
        paths = [cells.choices(task, method) for _, task, method, _ in tried]
        return Outcome(
            {cell: locked[cell] for cell in trained},
            {path.as_posix(): (clone / path).read_text(encoding="utf-8") for path in paths},
            failed,
            f"{platform.node()}:{clone / grid.LOGS}",
        )


def run_cells(clone: Path, units: Sequence[str]) -> list[str]:
    """Run ordinary cells, and methods' trials, one after the other; return the failed ones."""
    (clone / grid.LOGS).mkdir(exist_ok=True)
    cells_ = [unit for unit in units if not _is_trial(unit)]
    failed = [unit for unit in units if _is_trial(unit) and not _tune(clone, unit)]
    return failed + (_reproduce(clone, cells_) if cells_ else [])


def _is_trial(unit: str) -> bool:
    return unit.startswith("tune@")


def _tune(clone: Path, unit: str) -> bool:
    """Go through the door of stage `tune` for one method, the smallest piece of it."""
    _, task, method, _ = cells.parts(params.load(clone / "params.yaml"), unit)
    door = (sys.executable, "stages/tune.py", task, method)
    with (clone / grid.LOGS / f"{unit}.log").open("w") as log:
        told = subprocess.run(
            door, cwd=clone, env=grid.environment(clone), stdout=log, stderr=subprocess.STDOUT
        )
    return told.returncode == 0


def _reproduce(clone: Path, names: Sequence[str]) -> list[str]:
    """Have DVC run cells and nothing before them; return the failed ones."""
    with (clone / grid.LOGS / "cells.log").open("w+") as log:
        told = subprocess.run(
            (*grid.DVC, "repro", "--single-item", "--keep-going", *names),
            cwd=clone,
            env=grid.environment(clone),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.seek(0)
        failed = {
            name
            for line in log
            if (found := _FAILED.search(line))
            for name in _QUOTED.findall(found[0])
        }
    # DVC itself gave up if it names none: which cell it was doing is in the log
    return [name for name in names if name in failed] or list(names) * bool(told.returncode)


def _prepare(clone: Path, order: Order) -> None:
    """Bring a clone to the head's commit, parameters and data; keep what was finished in it."""
    if not (clone / ".git").exists():
        _quietly("git", "clone", "--no-checkout", order.source, str(clone))
    _quietly("git", "-C", str(clone), "fetch", order.source, order.commit)
    _quietly("git", "-C", str(clone), "checkout", "--force", "--detach", order.commit)
    (clone / "params.yaml").write_text(order.params, encoding="utf-8")
    for path in (clone / LOCK, clone / GIVEN):
        path.parent.mkdir(exist_ok=True)
        path.write_text(order.lock, encoding="utf-8")
    (clone / ".dvc" / "config.local").write_text(_config(order), encoding="utf-8")
    scratch = clone / cells.SCRATCH
    if order.scratch and not scratch.exists():
        scratch.parent.mkdir(exist_ok=True)
        scratch.symlink_to(order.scratch)
    profile = params.load(clone / "params.yaml")
    needed = [path for unit in order.units for path in cells.needs(profile, unit)]
    own = [path for unit in order.units for path in cells.makes(profile, unit)]
    # never over what this clone has already done: it may be more than the head knows of
    wanted = needed + [path for path in own if not (clone / path).exists()]
    targets = sorted({path.as_posix() for path in wanted})
    _dvc(clone, "pull" if order.remote else "checkout", "--allow-missing", *targets)


def _config(order: Order) -> str:
    """DVC's settings of a clone. Features are linked from the cache, not copied."""
    lines = ["[cache]", '    type = "reflink,hardlink,symlink,copy"']
    if order.cache:
        lines.append(f"    dir = {order.cache}")
    if order.remote:
        lines += ["[core]", "    remote = head", '[remote "head"]', f"    url = {order.remote}"]
    return "\n".join(lines) + "\n"


def _dvc(clone: Path, command: str, *targets: str) -> None:
    _quietly(*grid.DVC, command, "--quiet", *targets, cwd=clone, env=grid.environment(clone))


def _quietly(*command: str, **options: Any) -> None:
    """Run a command. Raises IbmaError with its complaint."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise IbmaError(f"{platform.node()}: `{' '.join(command)}` failed: {said}")


def finished(clone: Path) -> dict[str, Any]:
    """Entries of dvc.lock that are a clone's own work, for a head that never heard of it."""
    given, now = (read_lock(clone / path)["stages"] for path in (GIVEN, LOCK))
    return {cell: entry for cell, entry in now.items() if entry != given.get(cell)}


def read_lock(path: Path) -> dict[str, Any]:
    """What dvc.lock holds."""
    content: dict[str, Any] = YAML(typ="safe").load(path) or {}
    return {"stages": {}, **content}


def main() -> None:
    """Read an order, run it, answer on the last line of stdout."""
    print(json.dumps(asdict(run(Order(**json.load(sys.stdin))))))


if __name__ == "__main__":
    door(main)
