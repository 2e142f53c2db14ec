"""Stage `download`: fetch or generate one data set. `python stages/download.py DATASET`."""

import sys
from pathlib import Path

from ibma import fetch, params
from ibma.doors import door
from ibma.errors import IbmaError


def main() -> None:
    """Fill data/raw/<dataset>."""
    name = sys.argv[1]
    listed = params.load().datasets
    if name not in listed:
        raise IbmaError(f"params.yaml: no data set '{name}': expected one of {', '.join(listed)}")
    fetch.dataset(name, listed[name]["source"], Path("data/raw") / name)


if __name__ == "__main__":
    door(main)
