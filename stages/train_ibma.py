"""Train IBMA on a task: `python stages/train_ibma.py TASK [METHOD]`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def train_ibma(params: Params, task: str, method: str | None = None) -> None:
    """Train every run of these methods on a task, or those of one method."""
    from ibma.experiments.runs import train_stage
    from ibma.tracking import LIVE, Mirror

    train_stage(params, "train_ibma", task, method, Mirror(params, patience=LIVE))


if __name__ == "__main__":
    run_stage(train_ibma, prepare)
