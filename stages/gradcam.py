"""Stage `gradcam`: where image encoders look. Writes data/gradcam.json."""

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.explain(params.load()))
