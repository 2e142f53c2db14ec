"""Compute the features of a task: `python stages/extract.py TASK`."""

import checkout  # noqa: F401
from ibma.engine import run_stage

from ibma.params import Params


def extract(params: Params, task: str) -> None:
    """Turn raw samples into the arrays that training reads."""
    from ibma.features import extract

    extract.extract_task(params, task)


if __name__ == "__main__":
    run_stage(extract)
