"""Stage `sensitivity`: one variant at a fixed eta. `python stages/sensitivity.py ETA`."""

import sys

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.train_at(params.load(), float(sys.argv[1])))
