"""Fill data/raw/<data set> and list it: `python stages/download.py DATASET`."""

import checkout  # noqa: F401
from ibma.engine import run_stage

from ibma.params import Params


def download(params: Params, dataset: str) -> None:
    """Generate the twin of a data set, or fetch what is open of the real one."""
    from ibma import fetch

    fetch.download(params, dataset)


if __name__ == "__main__":
    run_stage(download)
