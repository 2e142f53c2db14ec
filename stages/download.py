"""Stage `download`: fetch or generate one data set. `python stages/download.py DATASET`."""

import sys
from pathlib import Path

from ibma import fetch, params
from ibma.doors import door


def main() -> None:
    """Fill data/raw/<dataset>."""
    name = sys.argv[1]
    fetch.dataset(name, params.load().datasets[name]["source"], Path("data/raw") / name)


if __name__ == "__main__":
    door(main)
