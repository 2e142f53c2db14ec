"""Stage `report`: tables, figures and the page of the current profile."""

from pathlib import Path

from ibma import params, report
from ibma.doors import door


def main() -> None:
    """Write reports/<profile>/."""
    print(f"report: {report.write(params.load(), Path())}")


if __name__ == "__main__":
    door(main)
