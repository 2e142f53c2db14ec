"""Stage `download`: fetch or generate one data set. `python stages/download.py DATASET`."""

import sys

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.download(params.load(), sys.argv[1]))
