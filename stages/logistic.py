"""Fit logistic regression to a task's features: `python stages/logistic.py TASK`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def logistic(params: Params, task: str) -> None:
    """Write the scores of scikit-learn's logistic regression on a task."""
    from ibma.experiments.logistic import judge_task

    params.task(task)
    judge_task(task)


if __name__ == "__main__":
    run_stage(logistic, prepare)
