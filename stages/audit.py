"""Check the paper's printed numbers against each other: `python stages/audit.py`."""

from dataclasses import asdict

import checkout  # noqa: F401

from ibma import paths
from ibma.errors import run_stage, tell
from ibma.params import Params, prepare


def audit(_: Params) -> None:
    """Write every check and print how many hold."""
    from ibma.files import write_json
    from ibma.paper import audit, published

    checks = audit.run(published.load())
    write_json(paths.AUDIT, [asdict(check) for check in checks])
    tell(audit.summary(checks))


if __name__ == "__main__":
    run_stage(audit, prepare)
