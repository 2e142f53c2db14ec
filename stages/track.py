"""Copy every record into MLflow: `python stages/track.py`."""

from pathlib import Path

import checkout  # noqa: F401

from ibma.errors import run_stage, tell
from ibma.params import Params, prepare


def track(params: Params) -> None:
    """Copy into MLflow what is missing there or has changed."""
    from ibma import tracking

    tell(str(tracking.collect(params, Path())))


if __name__ == "__main__":
    run_stage(track, prepare)
