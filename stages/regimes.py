"""Train IBMA at several phi, beta and eta on a task: `python stages/regimes.py TASK`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def regimes(params: Params, task: str) -> None:
    """Train every variant of block `regimes` on a task."""
    from ibma.experiments.runs import train_study
    from ibma.tracking import LIVE, Mirror

    train_study(params, "regimes", task, Mirror(params, patience=LIVE))


if __name__ == "__main__":
    run_stage(regimes, prepare)
