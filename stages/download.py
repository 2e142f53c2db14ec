"""Stage `download`: fetch or generate one data set. `python stages/download.py DATASET`."""

import sys

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.download(params.load(), sys.argv[1]))
