"""Stage `track`: mirror every record in MLflow; writes data/track.json (record -> run id)."""

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.mirror(params.load()))
