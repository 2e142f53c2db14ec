"""Stage `gradcam`: where image encoders look. Writes data/gradcam.json."""

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.explain(params.load()))
