"""Measure how time and memory grow with samples, classes, modalities and seeds.

A curve's exponent is its slope with both axes logarithmic, by least squares: 1 is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks import seeds, stage, terms
from benchmarks.measure import WALL, Goal, Row, Spread, duration, interleaved, peak_bytes, slope
from benchmarks.problems import Problem, View
from ibma.features.store import Batch
from ibma.network.method import Method, Output

ROUNDS = 5
WIDTH = 128
ENCODER = {"name": "mlp", "hidden": [16]}


@dataclass(frozen=True)
class Curve:
    """One quantity over one axis.

    Args:
        seconds: of every round, per size.
        bytes: the most that tensors took, per size.
        at_most, bytes_at_most: the largest exponent that meets the goal.
    """

    axis: str
    name: str
    sizes: Sequence[int]
    seconds: list[list[float]]
    bytes: list[int] | None = None
    at_most: float | None = None
    bytes_at_most: float | None = None

    def exponents(self) -> Spread:
        """Fit the exponent of the seconds in every round."""
        return Spread.of([slope(self.sizes, round_) for round_ in zip(*self.seconds, strict=True)])

    def rows(self) -> Iterator[Row]:
        """Yield the exponents of time and memory."""
        ends = f"{self.sizes[0]} to {self.sizes[-1]}"
        yield Row(
            f"growth over {self.axis} ({ends}), seconds: {self.name}",
            f"{duration(self.seconds[0])} to {duration(self.seconds[-1])}",
            "exponent",
            self.exponents(),
            "plain",
            None if self.at_most is None else Goal("at most", self.at_most),
        )
        if self.bytes is not None:
            exponent = slope(self.sizes, self.bytes)
            yield Row(
                f"growth over {self.axis} ({ends}), memory: {self.name}",
                f"{self.bytes[0] / 2**10:.3g} to {self.bytes[-1] / 2**10:.3g} KiB",
                "exponent",
                Spread.exactly(exponent),
                "plain",
                None if self.bytes_at_most is None else Goal("at most", self.bytes_at_most),
            )


def curve(
    axis: str,
    name: str,
    functions: dict[int, Callable[[], object]],
    at_most: float | None = None,
    bytes_at_most: float | None = None,
) -> Curve:
    """Measure one function per size."""
    times = interleaved({str(size): function for size, function in functions.items()}, ROUNDS)
    return Curve(
        axis,
        name,
        list(functions),
        list(times.values()),
        [peak_bytes(function) for function in functions.values()],
        at_most,
        bytes_at_most,
    )


def ibb(classes: int, modalities: int, width: int) -> Method:
    """Build IBMA on vectors; only its bound is used."""
    view = View("vector", (8,), "float32", ENCODER)
    views = {f"view{m}": view for m in range(modalities)}
    problem = Problem(views, 2, 2, classes=classes, width=width, heads=1)
    return problem.build("ibma", torch.device("cpu"))


def held(model: Method, n: int, classes: int) -> tuple[Output, Batch]:
    """Draw representations and labels of a batch of n."""
    shape = (n, model.spec.width)
    z = {name: torch.randn(shape, requires_grad=True) for name in model.names}
    fused, y = torch.randn(shape, requires_grad=True), torch.arange(n) % classes
    return Output(z, fused, fused, {}), Batch({}, y, torch.arange(n))


def bound_terms(n: int, classes: int = 8, modalities: int = 2) -> Callable[[], None]:
    """Return IBB's terms on a batch and their gradient."""
    model = ibb(classes, modalities, WIDTH)
    out, batch = held(model, n, classes)

    def run() -> None:
        fresh = Output(out.z, out.fused, out.logits, {})
        torch.stack(list(model.bound.terms(model.step(fresh, batch)).values())).sum().backward()

    return run


def refresh(
    n: int, classes: int = 8, modalities: int = 2, batch: int = 256, width: int = WIDTH
) -> Callable[[], None]:
    """Return centroids and Q from n representations, a batch at a time."""
    model = ibb(classes, modalities, width)
    out, one = held(model, min(n, batch), classes)

    @torch.no_grad()
    def run() -> None:
        for _ in range(n // len(one.y)):
            model.inner_step(Output(out.z, out.fused, out.logits, {}), one)
        model.before_epoch(1, lambda: [])

    return run


def centroid_stage(sizes: Sequence[int]) -> Curve:
    """Measure centroids and phi(X) over samples; memory beside the answer does not grow."""
    functions: dict[int, Callable[[], object]] = {}
    for n in sizes:
        view = View("image", (3, 64, 64), "uint8", {})
        problem = Problem({"x": view}, n, 1)
        features, systems = problem.features(), problem.one_hot()
        functions[n] = lambda f=features, s=systems: stage.ours(f, "x", s)
    times = interleaved({str(n): function for n, function in functions.items()}, ROUNDS, WALL)
    return Curve("samples", "centroid stage", sizes, list(times.values()), at_most=1.1)


def seeds_together(sizes: Sequence[int]) -> list[Curve]:
    """Measure an epoch of several seeds, in turn and as one batched model."""
    forms = {"in turn": seeds.in_turn, "one batched model": seeds.batched}
    measured = []
    for name, form in forms.items():
        functions = {str(n): lambda n=n, form=form: form(range(n)) for n in sizes}
        times = interleaved(functions, 2)
        measured.append(Curve("seeds", f"epoch of CE3, {name}", sizes, list(times.values())))
    return measured


def curves() -> list[Curve]:
    """Measure every curve. The goal is a linear one with a tenth to spare, where that is expected.

    Over classes V costs K^2 per sample in time whichever way it is summed; in memory ln Q takes K^2
    once, the tensor of the joint table B K^2. Over modalities there are M (M - 1) ordered pairs.
    """
    samples, classes, views = (1024, 2048, 4096, 8192), (64, 128, 256, 512), (2, 3, 4, 6, 8)
    measured = [
        curve("samples", "IBB terms", {n: bound_terms(n) for n in samples}, 1.1, 1.1),
        curve("samples", "refresh", {n: refresh(n) for n in samples}, 1.1, 0.1),
        curve("classes", "refresh", {k: refresh(1024, k) for k in classes}),
        curve("modalities", "IBB terms", {m: bound_terms(1024, 64, m) for m in views}, 2.0, 2.0),
        curve("modalities", "refresh", {m: refresh(4096, 64, m) for m in views}, 1.1, 1.1),
    ]
    forms = {k: terms.v_forms(k) for k in classes}
    for name in ("bilinear", "[B, C, C]"):
        functions = {k: by_name[name] for k, by_name in forms.items()}
        measured.append(curve("classes", f"V, {name}", functions))
    return [*measured, centroid_stage(samples), *seeds_together((1, 2, 5, 10))]


def figure(measured: Sequence[Curve], out: Path) -> None:
    """Draw an SVG: seconds above, memory below; readable in grey."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes_names = list(dict.fromkeys(one.axis for one in measured))
    shown, axes = plt.subplots(2, len(axes_names), figsize=(3.2 * len(axes_names), 5.6))
    styles = [("black", "o", "-"), ("dimgrey", "s", "--"), ("darkgrey", "^", ":")]
    for column, axis in enumerate(axes_names):
        own = [one for one in measured if one.axis == axis]
        for one, (colour, marker, line) in zip(own, styles, strict=False):
            style = {"color": colour, "marker": marker, "linestyle": line, "label": one.name}
            seconds = [float(np.median(values)) for values in one.seconds]
            axes[0, column].plot(one.sizes, seconds, **style)
            if one.bytes is not None:
                axes[1, column].plot(one.sizes, np.array(one.bytes) / 2**20, **style)
        for row, unit in enumerate(("seconds", "MiB")):
            panel = axes[row, column]
            if not panel.lines:
                panel.axis("off")
                continue
            panel.set(xscale="log", yscale="log", xlabel=axis)
            panel.set_xticks(own[0].sizes, [str(size) for size in own[0].sizes])
            panel.minorticks_off()
            panel.set_ylabel(unit if column == 0 else "")
            panel.legend(fontsize=7)
    shown.tight_layout()
    shown.savefig(out, metadata={"Date": None})
    plt.close(shown)
