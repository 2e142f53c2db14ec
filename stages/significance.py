"""Stage `significance`: paired tests over seeds. Writes data/significance.json."""

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.compare_methods(params.load()))
