"""Stage `train_ibma`: a cell that reads eta. `python stages/train_ibma.py TASK VARIANT`."""

import sys

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.train_cell(params.load(), sys.argv[1], sys.argv[2]))
