"""Train the baselines on a task: `python stages/train.py TASK [METHOD]`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def train(params: Params, task: str, method: str | None = None) -> None:
    """Train every run of these methods on a task, or those of one method."""
    from ibma.experiments.runs import train_stage
    from ibma.tracking import LIVE, Mirror

    train_stage(params, "train", task, method, Mirror(params, patience=LIVE))


if __name__ == "__main__":
    run_stage(train, prepare)
