"""Stage `probe`: a linear classifier on each frozen encoder. Writes data/probe.json."""

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.probe_encoders(params.load()))
