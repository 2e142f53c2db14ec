"""Stage `tune`: lr, weight decay, eta on a task. `python stages/tune.py TASK [METHOD]`: of all."""

import sys

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.tune_task(params.load(), *sys.argv[1:]))
