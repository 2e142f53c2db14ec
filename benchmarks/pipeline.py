"""DVC's own time: a look at the paper's whole DAG, and runs that find nothing to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.measure import WALL, Goal, Row, Spread, duration, interleaved
from ibma import grid

ROOT = Path(__file__).parent.parent
ROUNDS = 2
GOAL = Goal("at most", 10.0)


def paper(folder: Path) -> None:
    """The DAG of profile paper, with the lock file of the committed run beside it, without data."""
    for name in ("dvc.yaml", "dvc.lock"):
        shutil.copy(ROOT / name, folder)
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "profiles" / "paper.yaml", folder / "params.yaml")
    grid.dvc(folder, "init", "--no-scm", "--quiet")


def rows(device: torch.device) -> Iterator[Row]:
    """By the wall's clock. What needs a finished pipeline is skipped where there is none."""
    with tempfile.TemporaryDirectory() as name:
        paper(Path(name))
        functions: dict[str, Callable[[], object]] = {
            "dvc --version": lambda: grid.asked(ROOT, "--version"),
            "dvc status of profile paper": lambda: grid.asked(Path(name), "status", "--json"),
        }
        if grid.stale(ROOT):
            print("the pipeline is not up to date here: no-op runs are skipped", file=sys.stderr)
        else:
            functions["ibma repro with nothing to do"] = _no_op("ibma", "repro")
            functions["dvc repro with nothing to do"] = _no_op("dvc", "repro", "--quiet")
        times = interleaved(functions, ROUNDS, WALL)
    bare = times.pop("dvc --version")
    for name, taken in times.items():
        reference = f"dvc --version {duration(bare)}"
        yield Row(name, duration(taken), reference, Spread.of(taken), "seconds", GOAL)


def _no_op(*command: str) -> Callable[[], object]:
    options = {"env": grid.environment(ROOT), "check": True, "stdout": subprocess.DEVNULL}
    return lambda: subprocess.run(command, cwd=ROOT, **options)
