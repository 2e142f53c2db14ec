"""Compare one network trained by several CPU processes (gloo) with one process.

Run by `torch.distributed.run`, as the `processes` key of params.yaml does.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

import torch

from benchmarks.measure import Row, duration, ratio
from benchmarks.problems import Problem, View, one_more_epoch
from ibma.network import distributed
from ibma.training.loop import configure_torch

ROUNDS = 2
PROCESSES = 2
# no batch statistics: the CPU does not synchronise them
VIT = {"name": "vit", "size": 64, "patch_size": 8, "hidden_size": 192, "layers": 2, "heads": 4}
VIEWS = {
    "image": View("image", (3, 64, 64), "uint8", VIT),
    "other": View("image", (3, 64, 64), "uint8", VIT),
}
PROBLEM = Problem(VIEWS, n=256, batch=32, width=192, heads=4)


def seconds(processes: int) -> float:
    """Return the median seconds of an epoch in so many processes."""
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    out = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "benchmarks.together"],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return float(out.stdout.split()[-1])


def rows() -> Iterator[Row]:
    """Take the wall's seconds; every process has one thread."""
    pairs = [(seconds(1), seconds(PROCESSES)) for _ in range(ROUNDS)]
    one, several = ([pair[k] for pair in pairs] for k in range(2))
    yield Row(
        f"epoch of IBMA on a ViT in {PROCESSES} processes, gloo",
        duration(several),
        f"one process {duration(one)}",
        ratio(one, several),
    )


def main() -> None:
    """Train four epochs as one process of several; print the median of the last three."""
    configure_torch(1, compiled=False)  # joins the other processes
    fit = PROBLEM.fit("ibma", PROBLEM.features(), torch.device("cpu"))
    for _ in range(4):
        one_more_epoch(fit)
    if distributed.rank() == 0:
        print(statistics.median(fit.seconds[1:]))


if __name__ == "__main__":
    main()
