"""Stage `extract`: raw files of one task -> features on disk. `python stages/extract.py TASK`."""

import sys

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.extract(params.load(), sys.argv[1]))
