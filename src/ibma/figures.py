"""Figures, readable in grey and in print; TWIN in the title wherever generated data made them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibma.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (7, 3)))
SIZE = (6.4, 3.8)  # inches
PANELS = 4  # side by side


def history_plot(record: Mapping[str, Any], path: Path) -> None:
    """Every loss term of one record over the epochs, as a PNG."""
    figure, axes = _canvas()
    for style, (term, series) in zip(_styles(), record["history"].items(), strict=False):
        axes.plot(range(1, len(series) + 1), series, linestyle=style, label=term)
    axes.set(xlabel="epoch", ylabel="loss term (nats)")
    axes.set_title(
        _title(f"{record['task']} {record['method']} seed {record['seed']}", record["source"])
    )
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def training_curves(task: str, cells: Mapping[str, Sequence[Record]], stem: Path) -> None:
    """Sum of the loss terms, a panel per method, mean over seeds with the range as a band.

    Each panel has its own scale: weights of loss terms differ between methods. Svg and png.
    """
    rows = math.ceil(len(cells) / PANELS)
    figure = _figure((SIZE[0], 0.6 + 1.05 * rows))
    panels = figure.subplots(rows, PANELS, sharex=True, squeeze=False).flat
    for (method, records), axes in zip(cells.items(), panels, strict=False):
        totals = np.array([np.sum(list(one.history.values()), axis=0) for one in records])
        epochs = np.arange(1, totals.shape[1] + 1)
        axes.plot(epochs, totals.mean(0), color="black")
        axes.fill_between(epochs, totals.min(0), totals.max(0), color="0.55", alpha=0.4)
        axes.set_title(method, fontsize="small")
        axes.tick_params(labelsize="x-small")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels:  # what is left over
        axes.set_visible(False)
    figure.supxlabel("epoch", fontsize="small")
    figure.supylabel("training loss (nats)", fontsize="small")
    title = _title(f"{task}: training curves, mean and range over seeds", _source(cells))
    figure.suptitle(title, fontsize="medium")
    _save(figure, stem)


def comparison(
    task: str, metric: str, cells: Mapping[str, Sequence[float]], source: str, stem: Path
) -> None:
    """Every seed of every method as a dot, the mean as a bar; values in percent; svg and png."""
    figure, axes = _canvas((SIZE[0], 1.2 + 0.24 * len(cells)))
    for row, values in enumerate(cells.values()):
        axes.plot(values, [row] * len(values), "o", color="0.55", markersize=5)
        axes.plot([float(np.mean(values))], [row], "|", color="black", markersize=13)
    axes.set_yticks(range(len(cells)), list(cells))
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric} on test (%)")
    axes.set_title(_title(f"{task}: dots are seeds, bars are means", source))
    _save(figure, stem)


def _figure(size: tuple[float, float]) -> Any:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "ibma"  # the same picture is the same bytes
    mpl.rcParams["svg.fonttype"] = "none"  # letters, not their outlines: a third of the bytes
    return Figure(figsize=size, layout="constrained")


def _canvas(size: tuple[float, float] = SIZE) -> tuple[Any, Axes]:
    figure = _figure(size)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, stem: Path) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), dpi=110, metadata={"Software": None})


def _styles() -> list[Any]:
    return [style for _ in range(4) for style in STYLES]


def _source(cells: Mapping[str, Sequence[Record]]) -> str:
    return next(iter(cells.values()))[0].source


def _title(text: str, source: str) -> str:
    return f"{text} (TWIN)" if source == "twin" else text
