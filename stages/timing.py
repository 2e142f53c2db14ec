"""Stage timing: seconds per epoch of every method, side by side; writes data/timing.json."""

from __future__ import annotations

from ibma import cells, params
from ibma.doors import door


def main() -> None:
    """Time the methods of the current profile."""
    cells.time_methods(params.load())


if __name__ == "__main__":
    door(main)
