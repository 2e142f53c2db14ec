"""Stage `centroids`: centroids, phi(X) and U of a task. `python stages/centroids.py TASK`."""

import sys

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.centroids(params.load(), sys.argv[1]))
