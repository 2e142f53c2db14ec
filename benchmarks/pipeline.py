"""DVC's own time: a run that finds nothing to do, and a look at the paper's whole pipeline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import WALL, Goal, Row, Spread, duration, interleaved

ROOT = Path(__file__).parent.parent
ROUNDS = 2
GOALS = {"dvc repro with nothing to do": Goal("at most", 3.0)}


def paper(folder: Path) -> None:
    """Lay out the pipeline of profile `paper` without data, with the lock file of this checkout."""
    shutil.copy(ROOT / "dvc.yaml", folder)
    if (ROOT / "dvc.lock").exists():
        shutil.copy(ROOT / "dvc.lock", folder)
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "profiles" / "paper.yaml", folder / "params.yaml")
    dvc(folder, "init", "--no-scm", "--quiet")


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in a folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def rows() -> Iterator[Row]:
    """Take the wall's seconds. What needs a finished pipeline is skipped where there is none."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paper(folder)
        functions: dict[str, Callable[[], object]] = {
            "dvc --version": lambda: dvc(folder, "--version"),
            "dvc status of profile paper": lambda: dvc(folder, "status", "--json"),
        }
        if dvc(ROOT, "status", "--json").strip() != "{}":
            print("the pipeline is not up to date here: no-op runs are skipped", file=sys.stderr)
        else:
            functions["dvc status with nothing to do"] = lambda: dvc(ROOT, "status")
            functions["dvc repro with nothing to do"] = lambda: dvc(ROOT, "repro")
        times = interleaved(functions, ROUNDS, WALL)
    bare = times.pop("dvc --version")
    for name, taken in times.items():
        reference = f"dvc --version {duration(bare)}"
        spread, goal = Spread.of(taken), GOALS.get(name)
        yield Row(name, duration(taken), reference, spread, "seconds", goal)
