"""Stage `extract`: raw files of one task -> features on disk. `python stages/extract.py TASK`."""

import sys

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.extract(params.load(), sys.argv[1]))
