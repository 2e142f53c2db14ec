"""Times taken side by side in one process, and the one table that they end in."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

FORMATS: dict[str, Callable[[float], str]] = {
    "times": lambda value: f"{value:.3g} x",
    "share": lambda value: f"{100 * value:.2f} %",
    "seconds": lambda value: f"{value:.2f} s",
    "scientific": lambda value: f"{value:.1e}",
    "plain": lambda value: f"{value:.2f}",
}


@dataclass(frozen=True)
class Spread:
    """Quartiles of a value over the rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the quartiles of at least two values."""
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    @classmethod
    def exactly(cls, value: float) -> Spread:
        """Return the quartiles of something that does not vary."""
        return cls(value, value, value)


@dataclass(frozen=True)
class Goal:
    """What the median of a ratio should reach; sign: "at least" or "at most"."""

    sign: str
    value: float

    def met(self, value: float) -> bool:
        """Return whether a value reaches the goal."""
        return value >= self.value if self.sign == "at least" else value <= self.value


@dataclass(frozen=True)
class Row:
    """One line of the table. unit: of the ratio and the goal, a key of `FORMATS`."""

    measure: str
    ours: str
    reference: str
    ratio: Spread
    unit: str = "times"
    goal: Goal | None = None

    def cells(self) -> list[str]:
        """Return the cells of the line, as text."""
        show = FORMATS[self.unit]
        low, median, high = (show(v) for v in (self.ratio.low, self.ratio.median, self.ratio.high))
        goal, met = "", ""
        if self.goal is not None:
            goal = f"{self.goal.sign} {show(self.goal.value)}"
            met = "met" if self.goal.met(self.ratio.median) else "NOT met"
        between = "" if low == high else f"{low} to {high}"
        return [self.measure, self.ours, self.reference, median, between, goal, met]


COLUMNS = ("Measure", "Ours", "Reference", "Ratio", "Quartiles", "Goal", "Met")


def table(rows: Iterable[Row]) -> str:
    """Return all rows as one Markdown table with aligned columns."""
    from tabulate import tabulate  # a machine that only takes measures may lack it

    cells = [row.cells() for row in rows]
    return str(tabulate(cells, COLUMNS, tablefmt="github", disable_numparse=True))


END = "<!-- end -->"


def rewrite(page: Path, mark: str, generated: str) -> None:
    """Replace what a page holds between a mark and the next end."""
    before, rest = page.read_text(encoding="utf-8").split(mark)
    _, after = rest.split(END, maxsplit=1)
    page.write_text(f"{before}{mark}\n\n{generated}\n\n{END}{after}", encoding="utf-8")


Clock = Callable[[], float]
WALL: Clock = time.perf_counter
OWN: Clock = time.process_time  # of work in one thread: other work does not lengthen it


def seconds(function: Callable[[], object], clock: Clock) -> float:
    """Time one call, the GPU's work included."""
    wait()
    start = clock()
    function()
    wait()
    return clock() - start


@contextmanager
def every_core() -> Iterator[None]:
    """Let torch use every core, as stage `centroids` does; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait() -> None:
    """Wait for the GPU, if this process uses one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def interleaved(
    functions: Mapping[str, Callable[[], object]], rounds: int, clock: Clock = OWN
) -> dict[str, list[float]]:
    """Time every function in every round, so that disturbances fall on all alike.

    A first round that is not counted warms up. Every second round runs backwards, so that what
    drifts does not favour the first.

    Args:
        clock: `OWN`, or `WALL` for a GPU and for work in several threads or processes.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for done in range(1 + rounds):
        for name in functions if done % 2 else reversed(functions):
            times[name].append(seconds(functions[name], clock))
    return {name: column[1:] for name, column in times.items()}


def ratio(above: Sequence[float], below: Sequence[float], less: float = 0.0) -> Spread:
    """Return the quartiles over rounds of above / below - less."""
    return Spread.of([a / b - less for a, b in zip(above, below, strict=True)])


def duration(times: Sequence[float]) -> str:
    """Return the median of some seconds, as text."""
    value = statistics.median(times)
    unit, scale = ("s", 1) if value >= 1 else ("ms", 1e3) if value >= 1e-3 else ("us", 1e6)
    return f"{value * scale:.3g} {unit}"


def speed_up(measure: str, times: Mapping[str, Sequence[float]], goal: Goal | None = None) -> Row:
    """Compare two functions, ours first: how many times faster it is."""
    (ours, a), (reference, b) = times.items()
    return Row(
        measure, f"{ours} {duration(a)}", f"{reference} {duration(b)}", ratio(b, a), goal=goal
    )


def peak_bytes(function: Callable[[], object]) -> int:
    """Return the most bytes that tensors took on the CPU above what they held before a call."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        function()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted(
        (event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"
    )
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent of values in sizes: least squares on both logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
