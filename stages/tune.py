"""Stage `tune`: lr, weight decay, eta on a task. `python stages/tune.py TASK [METHOD]`: of all."""

import sys

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.tune_task(params.load(), *sys.argv[1:]))
