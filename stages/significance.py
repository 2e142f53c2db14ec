"""Test IBMA against its rivals, paired by seed: `python stages/significance.py`."""

import checkout  # noqa: F401

from ibma import paths
from ibma.errors import run_stage
from ibma.params import Params, prepare


def significance(params: Params) -> None:
    """Write every paired test of every family."""
    from ibma.files import write_json
    from ibma.paper import published
    from ibma.results import records, significance

    tests = significance.run(params, records.load(params), published.load())
    write_json(paths.SIGNIFICANCE, significance.to_json(tests))


if __name__ == "__main__":
    run_stage(significance, prepare)
