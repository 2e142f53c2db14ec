"""Stage `train`: every seed of one cell. `python stages/train.py TASK METHOD`."""

import sys

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.train_cell(params.load(), sys.argv[1], sys.argv[2]))
