"""Judge trained encoders by linear classifiers: `python stages/probe.py`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def probe(params: Params) -> None:
    """Fit a linear classifier on each frozen encoder alone (Table 16)."""
    from ibma.experiments.probe import probe_encoders

    probe_encoders(params)


if __name__ == "__main__":
    run_stage(probe, prepare)
