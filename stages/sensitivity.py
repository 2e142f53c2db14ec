"""Train methods at fixed etas: `python stages/sensitivity.py`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def sensitivity(params: Params) -> None:
    """Train the methods of block `sensitivity` at each of its etas (Table 8)."""
    from ibma.experiments.runs import train_study
    from ibma.tracking import LIVE, Mirror

    mirror = Mirror(params, patience=LIVE)
    train_study(params, "sensitivity", params.sensitivity.task, mirror)


if __name__ == "__main__":
    run_stage(sensitivity, prepare)
