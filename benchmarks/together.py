"""One network trained by several CPU processes (gloo), against one process.

Run by `torch.distributed.run`, as the `processes` key of params.yaml does.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.measure import Row, duration, ratio
from benchmarks.problems import Problem, View, one_more_epoch
from ibma.features.store import Features
from ibma.network import distributed

ROUNDS = 2
PROCESSES = 2
# no batch statistics: the CPU does not synchronise them
VIT = {"name": "vit", "size": 64, "patch_size": 8, "hidden_size": 192, "layers": 2, "heads": 4}
VIEWS = {
    "image": View("image", (3, 64, 64), "uint8", VIT),
    "other": View("image", (3, 64, 64), "uint8", VIT),
}
PROBLEM = Problem(VIEWS, n=256, batch=32, width=192, heads=4)


def seconds(folder: Path, processes: int) -> float:
    """Median seconds of an epoch in so many processes."""
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    out = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "benchmarks.together", str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return float(out.stdout.split()[-1])


def rows(device: torch.device) -> Iterator[Row]:
    """By the wall's clock; every process has one thread."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        PROBLEM.store(folder)
        pairs = [(seconds(folder, 1), seconds(folder, PROCESSES)) for _ in range(ROUNDS)]
    one, several = ([pair[k] for pair in pairs] for k in range(2))
    yield Row(
        f"epoch of IBMA on a ViT in {PROCESSES} processes, gloo",
        duration(several),
        f"one process {duration(one)}",
        ratio(one, several),
    )


def main(folder: Path) -> None:
    """One process of several: three epochs, their median printed."""
    torch.set_num_threads(1)
    distributed.begin()
    fit = PROBLEM.fit("ibma", Features.read(folder), torch.device("cpu"))
    for _ in range(4):
        one_more_epoch(fit)
    if distributed.rank() == 0:
        print(statistics.median(fit.seconds[1:]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
