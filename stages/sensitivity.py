"""Stage `sensitivity`: a variant at a fixed eta. `python stages/sensitivity.py VARIANT ETA`."""

import sys

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.train_at(params.load(), *sys.argv[1:]))
