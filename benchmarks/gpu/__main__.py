"""Take the measures of a GPU within a budget: `python -m benchmarks.gpu --out DIR/gpu.jsonl`.

Each line is written as soon as it is known, most important first. Nothing is started that would not
fit the rest of the budget.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from statistics import median

import torch

from benchmarks import STARTED
from benchmarks.gpu.measures import MEASURES, Measure
from benchmarks.gpu.session import Session, threads
from ibma.errors import one_line
from ibma.training.loop import configure_torch, select_device

PACE = 0.25, 8.0  # how far a machine may differ from an H100 in what measures are thought to take


def main() -> None:
    """Take every measure that fits."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--budget", type=float, default=480.0, help="seconds, imports included")
    parser.add_argument("--out", type=Path, required=True, help="the record, a new file")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes for tests, not for figures")
    names = [one.name for one in MEASURES]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists: name another file")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU: --device cpu --tiny tries the measures without one")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    configure_torch(threads(arguments.device), compiled=False)
    chosen = [one for one in MEASURES if one.name in (arguments.only or names)]
    with tempfile.TemporaryDirectory() as folder:
        session = Session(
            select_device(arguments.device),
            arguments.tiny,
            Path(folder),
            arguments.out,
            arguments.budget,
            STARTED,
        )
        take(session, chosen)


def take(session: Session, measures: list[Measure]) -> None:
    """Take measures one after the other; what failed or did not fit gets a line that says why."""
    paces: list[float] = []  # seconds over those expected, of each measure that was taken
    for one in measures:
        pace = min(max(median(paces or [1.0]), PACE[0]), PACE[1])
        needed, before = one.seconds * pace, session.elapsed
        if needed > session.left:
            why = f"needs about {needed:.0f} s, {session.left:.0f} s were left"
            session.write(one.name, skipped=why)
            continue
        try:
            one.take(session)
            paces.append((session.elapsed - before) / one.seconds)
        except ModuleNotFoundError as error:
            session.write(one.name, skipped=f"no package {error.name}")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            session.write(one.name, skipped=f"failed: {one_line(error)[:300]}")
        gc.collect()
        if session.cuda:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
