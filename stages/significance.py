"""Stage `significance`: paired tests over seeds. Writes data/significance.json."""

from pathlib import Path

from ibma import params, published, results, significance
from ibma.doors import door
from ibma.jsonfile import write_json


def main() -> None:
    """Test IBMA against the best baseline, its ablation and its control, per task."""
    profile = params.load()
    here = results.cells(profile, Path())
    write_json(Path("data/significance.json"), significance.run(profile, here, published.load()))


if __name__ == "__main__":
    door(main)
