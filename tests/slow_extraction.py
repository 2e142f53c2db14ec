"""Run one slow extraction, for tests that stop it: arguments are folder, workers and delay."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ibma.datasets import Card, Counts, Sample
from ibma.errors import IbmaError
from ibma.features.extract import extract

CARD = Card(
    title="slow", kind="classify", classes=("a", "b"), modalities={"view": "vector"}, licence="",
    access="builtin", official=Counts(None, None), cite="",
)  # fmt: skip


def samples(raw: Path, *, on_bad: str = "stop"):
    for i in range(120):
        yield Sample(f"s{i}", ("train", "test")[i // 80], f"g{i}", i % 2, {"view": (float(i),)})


def slowly(kind, part, params):
    time.sleep(0.01)
    return np.asarray(part, np.float32)


def run(root: Path, workers: int = 1) -> Path:
    out = root / "features"
    entry = {"dataset": "slow", "options": {}, "features": {}}
    dataset = SimpleNamespace(CARD=CARD, FILES=(), samples=samples)
    extract("slow", entry, dataset, root, out, slowly, workers=workers)
    return out


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    time.sleep(float(sys.argv[3]))
    try:
        run(Path(sys.argv[1]), int(sys.argv[2]))
    except IbmaError as error:
        sys.exit(f"error: {error}")
