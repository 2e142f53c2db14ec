"""Start the `ibma` command, even if the packages of the pipeline are not installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ibma.errors import installing

CODE = Path("src")  # of a project, below which its own copy of this package may lie


def main() -> None:
    """Run the command with the code of the project in this folder, else with this code."""
    own, known = own_code(), os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if own is not None and str(own) not in known:  # once: Python may be told to ignore it
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(own), *known]))
        os.execv(sys.executable, [sys.executable, "-m", "ibma", *sys.argv[1:]])
    try:
        from ibma import cli
    except ModuleNotFoundError as error:
        lacking = str(error.name).partition(".")[0]
        if lacking == "ibma":
            raise
        sys.exit(f"error: {lacking} is not installed: run {installing('pipeline')}")
    cli.main()


def own_code() -> Path | None:
    """Return the folder of a project's own code, if this process runs another's.

    A stage runs the code beside it, so that a command has to run the same.
    """
    there = (CODE / "ibma").resolve()
    if not (there / "cli.py").exists() or there == Path(__file__).resolve().parent:
        return None
    return there.parent


if __name__ == "__main__":
    main()
