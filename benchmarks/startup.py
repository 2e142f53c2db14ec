"""Measure what a process costs besides its work: the start-up of a cell that is finished."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Goal, Row, Spread, duration, interleaved
from ibma.files import write_json

ROOT = Path(__file__).parent.parent
ROUNDS = 3


def children_time() -> float:
    """Return the processor seconds of all ended child processes."""
    times = os.times()
    return times.children_user + times.children_system


def workspace(folder: Path) -> None:
    """Make a folder with one finished cell: CE3 on split_digits, one seed, any setting."""
    text = (ROOT / "profiles" / "twin.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(text.replace("seeds: 3", "seeds: 1"), encoding="utf-8")
    shutil.copytree(ROOT / "stages", folder / "stages")
    choice = {"run_fold": None, "lr": 1e-3, "weight_decay": 1e-6, "eta": None}
    choice |= {"weight_factor": 1.0}
    tuning = folder / "data" / "tune" / "split_digits"
    tuning.mkdir(parents=True)
    write_json(tuning / "ce3.json", {"choices": [choice]})
    for stage in ("download", "extract", "centroids", "ablation"):
        names = ["split_digits", *(["ce3"] if stage == "ablation" else [])]
        run(folder, f"stages/{stage}.py", *names)


def run(folder: Path, *arguments: str) -> None:
    """Run a Python process on this checkout's code."""
    subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def rows() -> Iterator[Row]:
    """Measure the processor seconds of a start-up, less those of `import torch`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace(folder)
        times = interleaved(
            {
                "finished cell": lambda: run(folder, "stages/ablation.py", "split_digits", "ce3"),
                "torch": lambda: run(folder, "-c", "import torch"),
            },
            ROUNDS,
            children_time,
        )
    cell, bare = times.values()
    yield Row(
        "start-up of a cell that is finished",
        duration(cell),
        f"import torch {duration(bare)}",
        Spread.of([a - b for a, b in zip(cell, bare, strict=True)]),
        "seconds",
        Goal("at most", 2.0),
    )
