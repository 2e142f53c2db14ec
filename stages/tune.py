"""Choose hyper-parameters inside the training split: `python stages/tune.py TASK [METHOD]`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def tune(params: Params, task: str, method: str | None = None) -> None:
    """Choose lr, weight decay and eta of every method on a task, or of one."""
    from ibma.experiments.tune import tune_task

    tune_task(params, task, method)


if __name__ == "__main__":
    run_stage(tune, prepare)
