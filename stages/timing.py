"""Stage `timing`: seconds per epoch of every method, side by side. Writes data/timing.json."""

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.time_methods(params.load()))
