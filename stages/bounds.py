"""Train IBMA with the bounds it is compared with: `python stages/bounds.py TASK [METHOD]`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def bounds(params: Params, task: str, method: str | None = None) -> None:
    """Train every run of these methods on a task, or those of one method."""
    from ibma.experiments.runs import train_stage
    from ibma.tracking import LIVE, Mirror

    train_stage(params, "bounds", task, method, Mirror(params, patience=LIVE))


if __name__ == "__main__":
    run_stage(bounds, prepare)
