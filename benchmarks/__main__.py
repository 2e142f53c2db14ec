"""Run the benchmarks and print one table: `python -m benchmarks`.

They run on the CPU. `python -m benchmarks.gpu` takes the measures of a GPU, and
`python -m benchmarks --from FILES --write` puts those into the page.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TQDM_DISABLE", "1")  # bars of epochs are not what is shown here
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from benchmarks import growth, paper_times, pipeline, seeds, stage, startup, step, terms, together
from benchmarks.gpu import lines
from benchmarks.measure import Row, rewrite, table
from ibma.training.loop import configure_torch
from ibma.training.run import processor

MEASURES: dict[str, Callable[[], Iterator[Row]]] = {
    "step": step.rows,
    "terms": terms.rows,
    "stage": stage.rows,
    "paper_times": paper_times.rows,
    "seeds": seeds.rows,
    "startup": startup.rows,
    "pipeline": pipeline.rows,
    "together": together.rows,
}
PAGE = Path("docs/performance.md")
FIGURE = Path("docs/performance.svg")
CPU = "<!-- written by python -m benchmarks --write -->"
GPU = "<!-- written by python -m benchmarks --from FILES --write -->"


def machine(taken: float) -> str:
    """Say what the numbers were taken on, as Markdown."""
    import faiss

    packages = ", ".join(f"{one.__name__} {one.__version__}" for one in (torch, np, faiss))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores. "
        f"Python {platform.python_version()}, {packages}. Taken in {taken / 60:.1f} minutes; load "
        f"average over the last 1, 5 and 15 minutes at the end: {load}."
    )


def show(generated: str, mark: str, write: bool) -> None:
    """Print what was measured; put it into the page if asked to."""
    print(generated)
    if write:
        rewrite(PAGE, mark, generated)


def measure(chosen: list[str], write: bool) -> None:
    """Take some measures on this machine's CPU."""
    warnings.simplefilter("ignore")
    configure_torch(1, compiled=False)  # as cells train
    start, rows, curves = time.monotonic(), list[Row](), list[growth.Curve]()
    for name in chosen:
        print(f"[{time.monotonic() - start:4.0f} s] {name}", file=sys.stderr, flush=True)
        if name == "growth":
            curves = growth.curves()
            rows += [row for curve in curves for row in curve.rows()]
        else:
            rows += MEASURES[name]()
    generated = f"{machine(time.monotonic() - start)}\n\n{table(rows)}"
    left_out = [name for name in (*MEASURES, "growth") if name not in chosen]
    if left_out:
        generated += f"\n\nNot taken in this run: {', '.join(left_out)}."
    if curves and write:
        growth.figure(curves, FIGURE)
        generated += f"\n\n![Growth of time and memory]({FIGURE.name})"
    show(generated, CPU, write)


def main() -> None:
    """Measure, or read what `benchmarks.gpu` measured; print, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*MEASURES, "growth"], help="some measures")
    parser.add_argument(
        "--from", dest="files", nargs="+", type=Path, help="what benchmarks.gpu wrote, latest first"
    )
    parser.add_argument("--write", action="store_true", help=f"rewrite {PAGE} and {FIGURE}")
    arguments = parser.parse_args()
    if arguments.files:
        records = {file: lines.read(file) for file in arguments.files}
        tiny = [
            str(file) for file, record in records.items() if any(line["tiny"] for line in record)
        ]
        if arguments.write and tiny:
            parser.error(f"{tiny[0]} was made with --tiny: sizes for tests are no figures")
        show(lines.render(list(records.values())), GPU, arguments.write)
    else:
        measure(arguments.only or [*MEASURES, "growth"], arguments.write)


if __name__ == "__main__":
    main()
