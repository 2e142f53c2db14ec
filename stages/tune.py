"""Stage `tune`: lr, weight decay, eta on a task. `python stages/tune.py TASK [METHOD]`: of all."""

import sys

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    tune = cells.tune_method if len(sys.argv) > 2 else cells.tune_task
    door(lambda: tune(params.load(), *sys.argv[1:]))
