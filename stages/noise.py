"""Train methods with noise in one modality of a task: `python stages/noise.py TASK`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def noise(params: Params, task: str) -> None:
    """Train every variant of block `noise` on a task."""
    from ibma.experiments.runs import train_study
    from ibma.tracking import LIVE, Mirror

    train_study(params, "noise", task, Mirror(params, patience=LIVE))


if __name__ == "__main__":
    run_stage(noise, prepare)
