"""Calls that the tests of engines make in workers, and a stage that makes some.

What is slow to import is imported where it is used: workers that start afresh import this module.
"""

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

from ibma.errors import IbmaError
from ibma.files import held
from ibma.params import Engine
from ibma.training.cell import Cell, Setting

SETTING = Setting(lr=1e-3, weight_decay=1e-5, eta=0.5)


def engine(name="processes", workers=2, processes=1, **options) -> Engine:
    return Engine(name=name, workers=workers, processes=processes, options=options)


def train(cell: Cell, seed: int, folder: Path, pause: float = 0.0) -> dict[str, object]:
    """Train a run, with a checkpoint after each epoch and a trace of the epochs.

    Returns:
        the record without time and place, and the weights.
    """
    from ibma.training import loop, run

    one_epoch = loop.Fit._one_epoch

    def traced(fit):
        with (folder / f"{seed}.epochs").open("a") as trace:
            trace.write(f"{os.getpid()} {fit.epoch}\n")
        time.sleep(pause)
        return one_epoch(fit)

    with (
        patch.object(loop, "CHECKPOINT_SECONDS", 0.0),
        patch.object(loop.Fit, "_one_epoch", traced),
    ):
        finished = run.train_run(cell, seed, SETTING, quiet=True)
    run.forget(finished.record.key)
    content = asdict(finished.record) | {"trained": finished.weights}
    return {key: value for key, value in content.items() if key not in ("provenance", "digest")}


def epochs(folder: Path, seed: int) -> list[tuple[int, int]]:
    """Return process and number of every epoch that was begun."""
    trace = folder / f"{seed}.epochs"
    lines = trace.read_text().splitlines() if trace.exists() else []
    return [(int(pid), int(epoch)) for pid, epoch in map(str.split, lines)]


def meet(folder: Path, name: str, others: Sequence[str]) -> int:
    """Return once all others are here too, which shows that they run at once."""
    (folder / name).touch()
    end = time.monotonic() + 60
    while not all((folder / other).exists() for other in others):
        assert time.monotonic() < end, "alone for a minute"
        time.sleep(0.01)
    return os.getpid()


def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(row: int) -> None:
    raise IbmaError(f"a.csv row {row}: expected a label")


def divide(by: int) -> float:
    return 1 / by


def gpus(folder: Path, name: str, others: Sequence[str]) -> str:
    """Return the GPUs that this process sees, once all others are here."""
    meet(folder, name, others)
    return os.environ["CUDA_VISIBLE_DEVICES"]


def average(seed: int, rank_that_fails: int = -1, how: str = "") -> tuple[float, int]:
    """Train on shares of rows as several processes do; one may fail before its last step."""
    import torch

    from ibma.network import distributed

    distributed.begin()
    torch.manual_seed(seed)
    x, weight = torch.randn(8), torch.ones((), requires_grad=True)
    for step in range(3):
        if step == 2 and distributed.rank() == rank_that_fails:
            if how == "kill":
                die()
            refuse(7)
        share = x[distributed.rank() :: distributed.world()]
        (gradient,) = torch.autograd.grad((weight * share - 1).square().sum(), weight)
        distributed.add_up([gradient])
        weight = (weight - 0.01 * gradient).detach().requires_grad_()
    return weight.item(), distributed.world()


def linger(folder: Path) -> None:
    """Say which process this is, then stay for a minute in native code."""
    (folder / f"{os.getpid()}.pid").touch()
    ctypes.CDLL(None).sleep(60)


def stage(folder: str, name: str, processes: str) -> None:
    """Hold a folder and make two calls that linger."""
    from ibma.experiments.progress import run_all

    where = Path(folder)
    with held(where / "out"):
        calls = {number: (linger, where) for number in range(2)}
        for _, future in run_all(engine(name, processes=int(processes)), "cpu", "test", calls):
            future.result()


def deaf_stage(folder: str) -> None:
    """Stay in native code, where Python's handlers of signals do not run."""
    linger(Path(folder))
