"""Write the report of a profile: `python stages/report.py`."""

from pathlib import Path

import checkout  # noqa: F401

from ibma.engine import prepare
from ibma.errors import run_stage
from ibma.params import Params


def report(params: Params) -> None:
    """Write tables, figures, metrics and the page."""
    from ibma.report import page

    print(f"report: {page.write(params, Path())}")


if __name__ == "__main__":
    run_stage(report, prepare)
