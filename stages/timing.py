"""Stage `timing`: seconds per epoch of every method, side by side. Writes data/timing.json."""

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.time_methods(params.load()))
