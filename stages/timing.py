"""Measure seconds per epoch of every method: `python stages/timing.py`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def timing(params: Params) -> None:
    """Time every method on one task, side by side in one process (Tables 6 and 9)."""
    from ibma.experiments.timing import time_methods

    time_methods(params)


if __name__ == "__main__":
    run_stage(timing, prepare)
