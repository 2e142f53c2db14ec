"""One run of the measures: its clock, its machine, and the record that it writes."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import lines
from benchmarks.measure import WALL, Row, interleaved
from ibma.features.store import Features
from ibma.training.record import code_digest
from ibma.training.run import processor


@dataclass
class Session:
    """What the measures share.

    Args:
        tiny: networks and data have a size for tests; their figures mean nothing.
        folder: scratch space.
        out: the record; every line is in it as soon as it is known.
        budget: seconds from `started`, a time of `time.monotonic`.
        peak: operations a second of the card's matrix product, once measured.
        features: name -> features that were drawn already.
    """

    device: torch.device
    tiny: bool
    folder: Path
    out: Path
    budget: float
    started: float
    peak: float | None = None
    features: dict[str, Features] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Return the seconds that are left of the budget."""
        return self.budget - self.elapsed

    def times(
        self, functions: Mapping[str, Callable[[], object]], rounds: int
    ) -> dict[str, list[float]]:
        """Time functions in turn, after one round of warm-up; the device is waited for."""
        return interleaved(functions, 2 if self.tiny else rounds, WALL)

    def repeats(self, wanted: int) -> int:
        """Return how often a short function is called each time: waiting costs little then."""
        return 2 if self.tiny else wanted

    @cached_property
    def machine(self) -> dict[str, Any]:
        """Return what every line says of the machine and the code."""
        return {
            "device": torch.cuda.get_device_name(self.device) if self.cuda else processor(),
            "driver": driver() if self.cuda else None,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if self.cuda else None,
            "transformers": version("transformers"),
            "python": platform.python_version(),
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "code": code_digest("ibma")[:12],
            "tiny": self.tiny,
        }

    def settings(self) -> dict[str, Any]:
        """Return what every line says of the switches in force."""
        return {
            "precision": "bfloat16" if self.cuda else "float32",
            "deterministic": torch.get_deterministic_debug_mode() > 0,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "threads": torch.get_num_threads(),
        }

    def write(self, measure: str, row: Row | None = None, **facts: Any) -> None:
        """Append a line to the record and print it; `facts` win over settings in force."""
        facts = {**self.machine, **self.settings(), **facts}
        line = {"measure": measure, **facts} if row is None else lines.of(measure, row, facts)
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        cells = [line["skipped"]] if row is None else lines.row_of(line).cells()
        told = "; ".join(filter(None, cells))
        print(f"[{self.elapsed:4.0f} s] {measure}: {told}", file=sys.stderr, flush=True)


def threads(device: str) -> int | None:
    """Return the CPU threads that a device is measured with: profile `paper` leaves them to torch.

    One is enough for sizes that are tried on a CPU.
    """
    return None if device == "cuda" else 1


def driver() -> str | None:
    """Return the version of NVIDIA's driver; None where nvidia-smi does not say."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip()
