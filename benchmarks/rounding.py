"""Train committed runs again with other rounding: `python -m benchmarks.rounding`.

The committed runs used the instructions that every x86-64 processor has; here they use all that
this one has. Data, seeds, settings and code stay, so that what changes is rounding alone. It needs
the features and centroids of profile `open` in this folder, and leaves out tasks without them.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from benchmarks.measure import rewrite
from ibma import paths
from ibma.engine import Processes
from ibma.evidence import retrain, verify
from ibma.results import records
from ibma.results.records import Results
from ibma.training.run import processor

PAGE = Path("docs/reliability.md")
MARK = "<!-- written by python -m benchmarks.rounding --write -->"
METHODS = ("omib", "ibma", "ibma_unit", "ce3")
HEADERS = ("Task", "Method", "SD of seeds", "One run: median", "One run: largest", "Mean of runs")


def rows(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield for each cell how far rounding moves its metric, in points."""
    tasks = [task for task in results.params.tasks if (paths.CENTROIDS / task).exists()]
    cells = list(itertools.product(tasks, METHODS))
    native = results.params.model_copy(update={"instructions": "native"})
    with Processes(1, native.cpu_threads, fresh=True) as process:
        for task, method in tqdm(cells, unit="cell"):
            runs, metric = results.of(task, method), results.headline(task)
            before = records.values(runs, metric, "percent")
            again = [retrain.train(native, Path(), run, process) for run in runs]
            after = records.values(again, metric, "percent")
            moved = [abs(b - a) for a, b in zip(before, after, strict=True)]
            mean = statistics.mean(after) - statistics.mean(before)
            spread = statistics.stdev(before), statistics.median(moved), max(moved)
            yield (task, method, *(f"{value:.2f}" for value in spread), f"{mean:+.2f}")


def main() -> None:
    """Train, print the table, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounding", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"rewrite {PAGE}")
    arguments = parser.parse_args()
    measured = list(rows(verify.read("open", Path())[0].results))
    table = tabulate(measured, HEADERS, tablefmt="github", disable_numparse=True)
    said = f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, Python {platform.python_version()}."
    generated = f"{said}\n\n{table}"
    print(generated)
    if arguments.write:
        rewrite(PAGE, MARK, generated)


if __name__ == "__main__":
    main()
