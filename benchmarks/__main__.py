"""Run the benchmarks and print one table: `python -m benchmarks`.

On a machine with a GPU the steps run there at CREMA-D's size; without one that is skipped.
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
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import growth, pipeline, seeds, stage, startup, step, terms, together
from benchmarks.measure import Row, table

MEASURES = {
    "step": step.rows,
    "terms": terms.rows,
    "stage": stage.rows,
    "seeds": seeds.rows,
    "startup": startup.rows,
    "pipeline": pipeline.rows,
    "together": together.rows,
}
PAGE = Path("docs/performance.md")
FIGURE = Path("docs/performance")
START, END = "<!-- written by python -m benchmarks --write -->", "<!-- end -->"


def machine(taken: float) -> str:
    """What the numbers were taken on, as Markdown."""
    import faiss
    import numpy

    names = [line.split(":")[1] for line in _cpuinfo() if line.startswith("model name")]
    cpu = names[0].strip() if names else platform.processor()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    packages = ", ".join(f"{one.__name__} {one.__version__}" for one in (torch, numpy, faiss))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {cpu}, {os.cpu_count()} cores, GPU: {gpu}. "
        f"Python {platform.python_version()}, {packages}. Taken in {taken / 60:.1f} minutes; load "
        f"average over the last 1, 5 and 15 minutes at the end: {load}."
    )


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def rewritten(page: str, generated: str) -> str:
    """The page with what stands between its two marks replaced."""
    before, rest = page.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{generated}\n\n{END}{after}"


def main() -> None:
    """Measure, print, and with --write put the table and the figure into docs/."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*MEASURES, "growth"], help="some measures")
    parser.add_argument("--write", action="store_true", help=f"rewrite {PAGE} and {FIGURE}.*")
    arguments = parser.parse_args()
    chosen = arguments.only or [*MEASURES, "growth"]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # as cells train
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start, rows, curves = time.monotonic(), list[Row](), list[growth.Curve]()
    for name in chosen:
        print(f"[{time.monotonic() - start:4.0f} s] {name}", file=sys.stderr, flush=True)
        if name == "growth":
            curves = growth.curves()
            rows += [row for curve in curves for row in curve.rows()]
        else:
            rows += MEASURES[name](device)
    text = table(rows)
    print(text)
    about = machine(time.monotonic() - start)
    print(about)
    if device.type == "cpu":
        print("GPU: none here, the step at CREMA-D's size is skipped")
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        left_out = [name for name in (*MEASURES, "growth") if name not in chosen]
        generated = f"{about}\n\n{text}"
        if left_out:
            generated += f"\n\nNot taken in this run: {', '.join(left_out)}."
        if curves:
            growth.figure(curves, FIGURE)
            generated += f"\n\n![Growth of time and memory]({FIGURE.name}.png)"
        PAGE.write_text(rewritten(page, generated), encoding="utf-8")


if __name__ == "__main__":
    main()
