"""Stage `probe`: a linear classifier on each frozen encoder. Writes data/probe.json."""

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.probe_encoders(params.load()))
