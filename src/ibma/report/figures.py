"""Figures, readable in grey and in print; TWIN in the title wherever generated data made them."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ibma.results import stats
from ibma.training.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Layout = Literal["constrained"] | None
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (7, 3)))
SIZE = (6.4, 3.8)  # inches
PANELS = 4  # side by side
WIDE = 3  # the same, where a panel has whiskers


def history_plot(record: Mapping[str, Any], path: Path) -> None:
    """Every loss term of one record over the epochs, as a PNG."""
    figure, axes = _canvas(layout=None)  # one for every run: what fits is known beforehand
    figure.subplots_adjust(0.12, 0.12, 0.98, 0.92)
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
    rows = [row for row, values in enumerate(cells.values()) for _ in values]
    dots = [value for values in cells.values() for value in values]
    axes.plot(dots, rows, "o", color="0.55", markersize=5)
    means = [float(np.mean(values)) for values in cells.values()]
    axes.plot(means, range(len(cells)), "|", color="black", markersize=13)
    axes.set_yticks(range(len(cells)), list(cells))
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric} on test (%)")
    axes.set_title(_title(f"{task}: dots are seeds, bars are means", source))
    _save(figure, stem)


def eta_curve(
    ours: Mapping[float, Sequence[float]],
    published: Mapping[float, float],
    task: str,
    source: str,
    stem: Path,
) -> None:
    """Metric (percent) against eta: mean with its 95 % interval, and the paper's points."""
    figure, axes = _canvas()
    found = {eta: stats.summary(values) for eta, values in ours.items() if values}
    etas = np.array(list(found))
    means = np.array([one.mean for one in found.values()])
    axes.plot(etas, means, "o-", color="black", label="ours, mean")
    if all(one.low is not None for one in found.values()):
        low = [float(one.low or 0) for one in found.values()]
        high = [float(one.high or 0) for one in found.values()]
        axes.fill_between(etas, low, high, color="0.55", alpha=0.4, label="95 % interval")
    axes.plot(list(published), list(published.values()), "s--", color="0.4", label="published")
    axes.set(xlabel="eta", ylabel="accuracy on test (%)")
    axes.set_title(_title(f"{task}: IBMA at fixed eta", source))
    axes.legend(fontsize="small")
    _save(figure, stem)


def critical_difference(scores: Mapping[str, Mapping[str, float]], source: str, stem: Path) -> None:
    """Mean rank of every method over tasks, and how far apart ranks must be to differ.

    scores: task -> method -> mean score. The bar at the top is Nemenyi's critical difference.
    """
    ranks = stats.mean_ranks(scores)
    apart = stats.critical_difference(len(ranks), len(scores))
    figure, axes = _canvas((SIZE[0], 1.6 + 0.22 * len(ranks)))
    axes.hlines(range(len(ranks)), 1, list(ranks.values()), color="0.8", linewidth=0.8)
    axes.plot(list(ranks.values()), range(len(ranks)), "o", color="black", markersize=5)
    best = next(iter(ranks.values()))
    axes.plot([best, best + apart], [-1.2, -1.2], "|-", color="black", markersize=8)
    axes.annotate(
        f"critical difference {apart:.1f}",
        (best + apart, -1.2),
        (4, -3),
        textcoords="offset points",
        fontsize="small",
    )
    axes.set_yticks(range(len(ranks)), list(ranks))
    axes.set_ylim(len(ranks) - 0.5, -2)
    axes.set_xlabel(f"mean rank over {len(scores)} tasks (1 is best)")
    axes.set_title(_title("Methods over tasks: ranks within the bar do not differ", source))
    _save(figure, stem)


def times(timed: Mapping[str, Any], stem: Path) -> None:
    """Seconds per epoch of every method: median, quartiles as whiskers."""
    methods = timed["methods"]
    figure, axes = _canvas((SIZE[0], 1.2 + 0.24 * len(methods)))
    rows, seconds = list(range(len(methods))), methods.values()
    low, high = ([one[name] for one in seconds] for name in ("low", "high"))
    axes.barh(rows, [one["median"] for one in seconds], color="0.7")
    axes.hlines(rows, low, high, color="black")
    axes.plot(low + high, rows + rows, "|", color="black", markersize=7)
    axes.set_yticks(range(len(methods)), list(methods))
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds per epoch, {timed['device']}, {timed['threads']} thread(s)")
    axes.set_title(_title(f"{timed['task']}: median and quartiles", timed["source"]))
    _save(figure, stem)


def forest(
    tests: Mapping[str, Mapping[str, Mapping[str, Any]]], rivals: Sequence[str], stem: Path
) -> None:
    """IBMA minus each rival, a panel per task with its own scale: difference and 95 % interval.

    tests: title of a panel -> rival -> what `stats.Paired` holds, with `holm`; rivals: from above.
    A full dot is a difference at 5 % after Holm.
    """
    wide = min(WIDE, len(tests))
    rows = math.ceil(len(tests) / wide)
    figure = _figure((1.2 + 2.1 * wide, 0.9 + (0.5 + 0.2 * len(rivals)) * rows))
    panels = figure.subplots(rows, wide, sharey=True, squeeze=False).flat
    for (title, found), axes in zip(tests.items(), panels, strict=False):
        axes.axvline(0, color="0.6", linewidth=0.8)
        for row, rival in enumerate(rivals):
            if test := found.get(rival):
                sure = test.get("holm") is not None and test["holm"] < 1 - stats.LEVEL
                if test["low"] is not None:
                    axes.plot([test["low"], test["high"]], [row, row], "-", color="black")
                face = "black" if sure else "white"
                axes.plot([test["difference"]], [row], "o", color="black", mfc=face, markersize=5)
        axes.set_title(title, fontsize="small")
        axes.set_yticks(range(len(rivals)), list(rivals), fontsize="small")
        axes.tick_params(axis="x", labelsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    next(iter(figure.axes)).invert_yaxis()  # shared
    for axes in panels:  # what is left over
        axes.set_visible(False)
    legend = (
        "IBMA minus rival in points (right of 0: IBMA is better), mean and 95 % interval; "
        "full dot: p < .05 after Holm"
    )
    figure.supxlabel(textwrap.fill(legend, 44 * wide), fontsize="x-small")
    _save(figure, stem)


def eta_curves(
    found: Mapping[str, Mapping[float, Sequence[float]]], task: str, metric: str, stem: Path
) -> None:
    """Metric (percent) of some methods against eta: means with their 95 % intervals."""
    figure, axes = _canvas()
    for place, (style, (method, values)) in enumerate(zip(_styles(), found.items(), strict=False)):
        sums = {eta: stats.summary(of) for eta, of in values.items() if of}
        half = [0.0 if one.high is None else one.high - one.mean for one in sums.values()]
        at = [eta + 0.008 * place for eta in sums]  # whiskers side by side
        means = [one.mean for one in sums.values()]
        grey = f"{0.45 * (place % 2):.2f}"
        axes.errorbar(
            at, means, half, fmt="o", linestyle=style, color=grey, capsize=3, label=method
        )
    axes.set(xlabel="eta", ylabel=f"{metric} on test (%)")
    axes.set_title(f"{task}: at fixed eta, mean and 95 % interval")
    axes.legend(fontsize="small")
    _save(figure, stem)


def ib_moves(
    moves: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]], stem: Path
) -> None:
    """IB losses (nats) from the untrained to the trained network, as arrows.

    moves: task -> term -> method -> (before, after), means over runs. A row of panels per task,
    each with its own scale.
    """
    wide = max(len(terms) for terms in moves.values())
    tall = max(len(of) for terms in moves.values() for of in terms.values())
    figure = _figure((1.9 * wide + 1.0, (0.5 + 0.13 * tall) * len(moves) + 0.5))
    grid = figure.subplots(len(moves), wide, squeeze=False)
    for line, (task, terms) in zip(grid, moves.items(), strict=True):
        for axes, (term, methods) in zip(line, terms.items(), strict=False):
            for row, (before, after) in enumerate(methods.values()):
                arrow = {"arrowstyle": "->", "color": "0.4", "shrinkA": 0, "shrinkB": 3}
                axes.annotate("", (after, row), (before, row), arrowprops=arrow)
            rows = range(len(methods))
            axes.plot([b for b, _ in methods.values()], rows, "o", color="black", mfc="white")
            axes.plot([a for _, a in methods.values()], rows, "o", color="black")
            axes.set_yticks(rows, list(methods) if term == next(iter(terms)) else [])
            axes.invert_yaxis()
            axes.tick_params(labelsize="x-small")
            axes.locator_params(axis="x", nbins=3)
            axes.ticklabel_format(axis="x", scilimits=(-2, 2), useOffset=False)
            axes.xaxis.get_offset_text().set_fontsize("x-small")
            axes.set_title(f"{task}: {term}", fontsize="small")
            axes.spines[["top", "right"]].set_visible(False)
        for axes in line[len(terms) :]:
            axes.set_visible(False)
    figure.supxlabel("IB loss (nats): hollow before training, full after", fontsize="small")
    _save(figure, stem)


def attention(task: str, explained: Mapping[str, Any], stem: Path) -> None:
    """Grad-CAM: a row per example, the picture and a map per method over it; deletion curves.

    Under each picture stand the sample's id, its class and its words.
    """
    shown, methods = explained["examples"], explained["methods"]
    columns = 1 + len(methods)
    figure = _figure((SIZE[0], 2.3 * (len(shown) + 1)))
    grid = figure.add_gridspec(len(shown) + 1, columns)
    for row, example in enumerate(shown):
        picture = np.array(example["picture"], dtype=np.uint8)
        for column, name in enumerate(("picture", *methods)):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture)
            if name in methods:
                axes.imshow(
                    np.array(example["maps"][name]), cmap="magma", alpha=0.6, vmin=0, vmax=1
                )
            axes.set(xticks=[], yticks=[])
            axes.set_title(name, fontsize="small")
            if column == 0:
                words = textwrap.fill(f"{example['class']}: {example['text']}", 34)
                axes.set_xlabel(f"{example['id']}\n{words}", fontsize="xx-small")
    axes = figure.add_subplot(grid[len(shown), :])
    for style, (name, one) in zip(_styles(), methods.items(), strict=False):
        percent = np.linspace(0, 100, len(one["deletion"]))
        inside = "" if one["energy"] is None else f", {100 * one['energy']:.0f} % of energy inside"
        axes.plot(percent, one["deletion"], linestyle=style, color="black", label=name + inside)
        axes.plot(percent, one["random"], linestyle=style, color="0.6", label=f"{name}, at random")
    axes.set(xlabel="pixels deleted, most salient first (%)", ylabel="p(class)")
    axes.legend(fontsize="x-small")
    title = f"{task}: Grad-CAM of the image encoder; curves: mean of {explained['n']} test samples"
    figure.suptitle(_title(title, explained["source"]), fontsize="small")
    _save(figure, stem)


def _figure(size: tuple[float, float], layout: Layout = "constrained") -> Any:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "ibma"  # the same picture is the same bytes
    mpl.rcParams["svg.fonttype"] = "none"  # letters, not their outlines: a third of the bytes
    mpl.rcParams["font.sans-serif"] = ["DejaVu Sans"]  # every text of an SVG names the whole list
    return Figure(figsize=size, layout=layout)


def _canvas(size: tuple[float, float] = SIZE, layout: Layout = "constrained") -> tuple[Any, Axes]:
    figure = _figure(size, layout)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, stem: Path) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    svg = stem.with_suffix(".svg")
    figure.savefig(svg, metadata={"Date": None})
    figure.set_layout_engine("none")  # the next drawing need not find it again
    svg.write_text(_lean(svg.read_text(encoding="utf-8")), encoding="utf-8")
    figure.savefig(stem.with_suffix(".png"), dpi=110, metadata={"Software": None})


def _lean(svg: str) -> str:
    """The same picture in about half of the bytes: the page carries many of them.

    A hundredth of a point is finer than any printer; names of groups, comments and turns by 0
    degrees say nothing.
    """
    svg = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", svg)
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"|(?<=<g) id="[^"]*"', "", svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


def _styles() -> list[Any]:
    return [style for _ in range(4) for style in STYLES]


def _source(cells: Mapping[str, Sequence[Record]]) -> str:
    return next(iter(cells.values()))[0].source


def _title(text: str, source: str) -> str:
    return f"{text} (TWIN)" if source == "twin" else text
