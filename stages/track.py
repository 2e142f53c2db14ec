"""Stage track: mirror every record in MLflow; writes data/track.json (record -> run id)."""

from __future__ import annotations

from pathlib import Path

from ibma import params, tracking
from ibma.doors import door


def main() -> None:
    """Collect the records of the current profile."""
    print(tracking.collect(params.load(), Path()))


if __name__ == "__main__":
    door(main)
