"""Stage `centroids`: centroids, phi(X) and U of a task. `python stages/centroids.py TASK`."""

import sys

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.centroids(params.load(), sys.argv[1]))
