"""Stage `track`: mirror every record in MLflow; writes data/track.json (record -> run id)."""

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.mirror(params.load()))
