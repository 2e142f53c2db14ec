"""Stage `significance`: paired tests over seeds. Writes data/significance.json."""

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.compare_methods(params.load()))
