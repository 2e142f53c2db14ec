"""Draw figures that are readable in grey and in print; those of generated data say TWIN.

Every function draws one figure. Names are drawn as they are: no text is read as
mathematics.
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ibma.files import write_bytes
from ibma.report.formatting import one_line, plural
from ibma.results import regime, separation, stats
from ibma.training.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "X", "v", "P")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (7, 3)))
WIDTH, HEIGHT = 5.0, 3.4  # inches; on a screen of 400 pixels a point is about a pixel
SMALL, TINY = 9, 7  # points; TINY only in figures that the page does not show
PANELS = 4  # side by side
WIDE = 2  # the same, where a panel has whiskers
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "ibma",  # the same figure is the same bytes
    "svg.fonttype": "none",  # letters, not their outlines: a third of the bytes
    "font.size": 10,
    "font.sans-serif": ["DejaVu Sans"],  # every text of an SVG names the whole list
    "text.parse_math": False,  # a name may hold $
}


@contextmanager
def _figure(width: float, height: float, stem: Path, *, png: bool = True) -> Iterator[Any]:
    """Give an empty figure, and save it as SVG and, where `png` says so, as PNG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        write_bytes(stem.with_suffix(".svg"), buffer.getvalue())
        if not png:
            return
        figure.set_layout_engine("none")  # the layout is found; do not search for it again
        write_bytes(stem.with_suffix(".png"), _png(figure))


def _png(figure: Any) -> bytes:
    """Return a figure as PNG; one without colours has one value a pixel: under half the bytes."""
    from PIL import Image

    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    picture = Image.open(buffer).convert("RGB")
    grey = picture.convert("L")
    coloured = np.any(np.asarray(grey.convert("RGB")) != np.asarray(picture))
    (picture if coloured else grey).save(small, format="png", optimize=True)
    return small.getvalue()


@contextmanager
def _axes(height: float, stem: Path) -> Iterator[Axes]:
    """Give the axes of a figure with one panel."""
    with _figure(WIDTH, height, stem) as figure:
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        yield axes


def _panels(
    figure: Any, names: Sequence[str], wide: int, size: int, **shared: bool
) -> Iterator[Axes]:
    """Yield a titled panel for every name; the panels of the last line that are left are hidden."""
    rows = math.ceil(len(names) / wide)
    grid = figure.subplots(rows, wide, squeeze=False, **shared).flat
    for name, axes in zip(names, grid, strict=False):
        axes.set_title(name, fontsize=size)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=size)
        yield axes
    for axes in grid:
        axes.set_visible(False)


def training_curves(task: str, methods: Mapping[str, Sequence[Record]], stem: Path) -> None:
    """Draw the sum of the loss terms over the epochs, a panel for each method.

    The line is the mean over runs, the band their range. Each panel has its own scale: weights of
    loss terms differ between methods.

    Args:
        task: printed name of the task.
        methods: printed name -> records.
        stem: path of the files without their endings.
    """
    height = 0.6 + 1.05 * math.ceil(len(methods) / PANELS)
    with _figure(1.3 * WIDTH, height, stem, png=False) as figure:
        names = [textwrap.fill(name, 24) for name in methods]  # a longer line leaves the figure
        panels = _panels(figure, names, PANELS, TINY, sharex=True)
        for runs, axes in zip(methods.values(), panels, strict=True):
            totals = np.array([np.sum(list(run.history.values()), axis=0) for run in runs])
            epochs = np.arange(1, totals.shape[1] + 1)
            axes.plot(epochs, totals.mean(0), color="black")
            axes.fill_between(epochs, totals.min(0), totals.max(0), color="0.55", alpha=0.4)
            axes.locator_params(axis="x", integer=True)
        figure.supxlabel("epoch", fontsize=SMALL)
        figure.supylabel("training loss, all terms", fontsize=SMALL)
        twin = any(run.source == "twin" for runs in methods.values() for run in runs)
        _head(figure, f"{task}: training curves, mean and range over runs", twin)


def comparison(
    title: str, metric: str, methods: Mapping[str, Sequence[float]], twin: bool, stem: Path
) -> None:
    """Draw every run of every method as a dot, the mean as a bar.

    Args:
        title: of the figure.
        metric: printed name of the metric.
        methods: printed name -> percent of every run.
        twin: whether generated data made the numbers.
        stem: path of the files without their endings.
    """
    with _axes(1.2 + 0.24 * len(methods), stem) as axes:
        rows = [row for row, values in enumerate(methods.values()) for _ in values]
        dots = [value for values in methods.values() for value in values]
        axes.plot(dots, rows, "o", color="0.55", markersize=5)
        means = [float(np.mean(values)) for values in methods.values()]
        axes.plot(means, range(len(methods)), "|", color="black", markersize=13)
        axes.set_yticks(range(len(methods)), list(methods))
        axes.invert_yaxis()
        axes.set_xlabel(f"{metric} on test (%)")
        _head(axes.figure, title, twin)


def eta_curves(
    title: str,
    metric: str,
    methods: Mapping[str, Mapping[float, Sequence[float]]],
    published: Mapping[float, float],
    twin: bool,
    stem: Path,
) -> None:
    """Draw a metric against eta: means with their 95 % intervals, and the paper's points.

    Args:
        title: of the figure.
        metric: printed name of the metric.
        methods: printed name -> eta -> percent of every run.
        published: eta -> the paper's percent; may be empty.
        twin: whether generated data made the numbers.
        stem: path of the files without their endings.
    """
    with _axes(HEIGHT, stem) as axes:
        styles = zip(itertools.cycle(STYLES), methods.items(), strict=False)
        for place, (style, (method, by_eta)) in enumerate(styles):
            sums = {eta: stats.summary(values) for eta, values in by_eta.items() if values}
            axes.errorbar(
                [eta + 0.008 * place for eta in sums],  # whiskers side by side
                [one.mean for one in sums.values()],
                _whiskers(sums.values()),
                fmt="o",
                linestyle=style,
                color=f"{0.45 * (place % 2):.2f}",
                capsize=3,
                label=method,
            )
        if published:
            points = list(published), list(published.values())
            axes.plot(*points, "s--", color="0.6", label="published")
        axes.set(xlabel="eta", ylabel=f"{metric} on test (%)")
        _head(axes.figure, title, twin)
        axes.legend(fontsize=SMALL)


def _whiskers(sums: Iterable[stats.Summary]) -> NDArray[np.float64]:
    """Return how far intervals reach below and above their means, [2, n]; 0 for one run."""
    low, high = [], []
    for one in sums:
        low.append(0.0 if one.low is None else one.mean - one.low)
        high.append(0.0 if one.high is None else one.high - one.mean)
    return np.array([low, high])


def regimes_of_phi(stem: Path) -> None:
    """Draw IBB's alignment term against the separation of classes, a panel for each regime.

    A line for each number of classes, faint for few and strong for many; 1 is a term that does
    nothing. Regimes of one sharpness share a panel.

    Args:
        stem: path of the files without their endings.
    """
    apart = np.linspace(0, 1, 201)
    names: dict[float, list[str]] = {}
    for one in separation.REGIMES:
        names.setdefault(one.sharpness, []).append(one.name)
    titles = ["\n".join(own) for own in names.values()]
    height = 0.7 + 1.5 * math.ceil(len(titles) / WIDE)
    with _figure(WIDTH, height, stem, png=False) as figure:
        panels = _panels(figure, titles, WIDE, SMALL, sharey=True)
        for sharpness, axes in zip(names, panels, strict=True):
            axes.axhline(1, color="0.6", linewidth=0.8, linestyle="--")
            for classes in reversed(separation.CLASSES):
                grey = 0.8 * (separation.CLASSES[-1] - classes) / (len(separation.CLASSES) - 1)
                exponents = separation.exponents(classes, sharpness, apart)
                values = separation.alignment(classes, exponents) / math.log(classes)
                axes.plot(apart, values, color=f"{grey:.2f}", linewidth=1)
        figure.supxlabel("separation of classes: 0 none, 1 as far as unit vectors", fontsize=SMALL)
        figure.supylabel("-V over ln K", fontsize=SMALL)
        _head(figure, "The alignment term of IBB, K = 2 (faint) to 10 (strong) classes", False)


def shares(
    tasks: Mapping[str, Mapping[str, Sequence[tuple[float, stats.Summary]]]],
    rival: str,
    twin: bool,
    stem: Path,
) -> None:
    """Draw IBMA minus a rival against how much the alignment pulls, a panel for each task.

    Args:
        tasks: printed name -> phi -> share of the gradient and difference in points, of every
            regime; vectors of phi are told apart by the dot.
        rival: printed name.
        twin: whether generated data made any of them.
        stem: path of the files without their endings.
    """
    wide = min(WIDE, len(tasks))
    height = 1.2 + 1.9 * math.ceil(len(tasks) / wide)
    with _figure(WIDTH, height, stem) as figure:
        grid = list(_panels(figure, list(tasks), wide, SMALL, sharex=True))
        for by_phi, axes in zip(tasks.values(), grid, strict=True):
            axes.axhline(0, color="0.6", linewidth=0.8)
            for edge, name in ((regime.ACTIVE, f"{regime.ACTIVE:.0%}"), (regime.STRONG, "equal")):
                axes.axvline(edge, color="0.6", linewidth=0.8, linestyle=":")
                across = axes.get_xaxis_transform()  # y from 0 to 1, the upper end
                axes.text(edge, 0.9, f" {name}", fontsize=SMALL, transform=across)
            axes.margins(y=0.15)  # room for these words
            for face, (phi, regimes) in zip(("black", "white"), by_phi.items(), strict=False):
                _regimes(axes, regimes, face, f"{phi} vectors")
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")  # the default one writes mathematics
            axes.xaxis.set_minor_formatter("")
            axes.tick_params(labelbottom=True)  # panels below may be hidden
        figure.supxlabel("gradient of alignment over that of cross-entropy", fontsize=SMALL)
        label = textwrap.fill(f"IBMA minus {rival} (points)", 24)
        figure.supylabel(label, fontsize=SMALL)
        grid[0].legend(loc="lower left", fontsize=SMALL, handletextpad=0, borderpad=0.2)
        title = "Where the bound acts (right of 1 %), and whether it helps (above 0)"
        _head(figure, title, twin)


def _regimes(
    axes: Axes, regimes: Sequence[tuple[float, stats.Summary]], face: str, label: str
) -> None:
    for share, one in regimes:
        if one.low is not None and one.high is not None:
            axes.plot([share, share], [one.low, one.high], "-", color="0.6", linewidth=1)
    places = [share for share, _ in regimes], [one.mean for _, one in regimes]
    axes.plot(*places, "o", color="black", mfc=face, markersize=4, label=label)


def noise_curves(
    panels: Mapping[str, Mapping[str, Mapping[float, stats.Summary]]],
    metric: str,
    twin: bool,
    stem: Path,
) -> None:
    """Draw a metric against the level of noise, a panel for each task and place of the noise.

    Args:
        panels: title -> printed name of a method -> level -> percent over runs.
        metric: printed name.
        twin: whether generated data made any of them.
        stem: path of the files without their endings.
    """
    wide = 3  # training, test, both
    height = 1.5 + 2.3 * math.ceil(len(panels) / wide)
    with _figure(1.8 * WIDTH, height, stem) as figure:
        grid = list(_panels(figure, list(panels), wide, SMALL))
        for methods, axes in zip(panels.values(), grid, strict=True):
            styles = zip(itertools.cycle(STYLES), itertools.cycle(MARKERS), methods.items())
            for place, (style, dot, (name, by_level)) in enumerate(styles):
                axes.errorbar(
                    [level + 0.12 * (place - len(methods) / 2) for level in range(len(by_level))],
                    [one.mean for one in by_level.values()],
                    _whiskers(by_level.values()),
                    linestyle=style,
                    marker=dot,
                    markersize=5,
                    mfc="white" if place % 2 else "black",
                    color=f"{0.45 * (place % 2):.2f}",
                    linewidth=1,
                    elinewidth=0.8,
                    label=name,
                )
            axes.set_xticks(range(len(by_level)), [f"{level:g}" for level in by_level])
        for axes in grid[-wide:]:
            axes.set_xlabel("noise, in sd of each feature", fontsize=SMALL)
        figure.supylabel(f"{metric} on test (%)", fontsize=SMALL)
        handles = grid[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=len(methods), fontsize=SMALL)
        _head(figure, "Noise in one modality: mean over runs and 95 % interval", twin)


def critical_difference(scores: Mapping[str, Mapping[str, float]], twin: bool, stem: Path) -> None:
    """Draw the mean rank of every method over tasks, and how far apart ranks must be to differ.

    The bar at the top is Nemenyi's critical difference.

    Args:
        scores: task -> printed name of a method -> mean score.
        twin: whether generated data made any of them.
        stem: path of the files without their endings.
    """
    ranks = stats.mean_ranks(scores)
    apart = stats.critical_difference(len(ranks), len(scores))
    with _axes(1.6 + 0.22 * len(ranks), stem) as axes:
        axes.hlines(range(len(ranks)), 1, list(ranks.values()), color="0.8", linewidth=0.8)
        axes.plot(list(ranks.values()), range(len(ranks)), "o", color="black", markersize=5)
        best = next(iter(ranks.values()))
        axes.plot([best, best + apart], [-1.2, -1.2], "|-", color="black", markersize=8)
        axes.text(best, -1.6, f"critical difference {apart:.1f}", fontsize=SMALL)
        axes.set_yticks(range(len(ranks)), list(ranks))
        axes.set_ylim(len(ranks) - 0.5, -2.8)
        axes.set_xlabel(f"mean rank over {len(scores)} tasks (1 is best)")
        _head(axes.figure, "Methods over tasks: ranks within the bar are not shown to differ", twin)


def times(task: str, timing: Mapping[str, Any], methods: Mapping[str, str], stem: Path) -> None:
    """Draw seconds an epoch of every method: median, quartiles as whiskers.

    Args:
        task: printed name of the task.
        timing: what stage `timing` wrote.
        methods: method -> its printed name.
        stem: path of the files without their endings.
    """
    measured = list(timing["methods"].values())
    with _axes(1.2 + 0.24 * len(measured), stem) as axes:
        rows = list(range(len(measured)))
        low, high = ([one[name] for one in measured] for name in ("low", "high"))
        axes.barh(rows, [one["median"] for one in measured], color="0.7")
        axes.hlines(rows, low, high, color="black")
        axes.plot(low + high, rows + rows, "|", color="black", markersize=7)
        axes.set_yticks(rows, [methods.get(name, name) for name in timing["methods"]])
        axes.invert_yaxis()
        threads = plural(timing["threads"], "thread")
        axes.set_xlabel(f"seconds an epoch, {timing['device']}, {threads}")
        _head(axes.figure, f"{task}: median and quartiles", timing["source"] == "twin")


@dataclass(frozen=True)
class Difference:
    """IBMA minus a rival with its interval, and whether a test shows that they differ."""

    value: float
    low: float | None
    high: float | None
    shown: bool


def forest(
    tests: Mapping[str, Mapping[str, Difference]], rivals: Sequence[str], twin: bool, stem: Path
) -> None:
    """Draw IBMA minus each rival, a panel for each task: difference and 95 % interval.

    Each panel has its own scale.

    Args:
        tests: title of a panel -> rival -> difference.
        rivals: from above.
        twin: whether generated data made any of them.
        stem: path of the files without their endings.
    """
    wide = min(WIDE, len(tests))
    height = 0.9 + (0.55 + 0.2 * len(rivals)) * math.ceil(len(tests) / wide)
    with _figure(WIDTH, height, stem) as figure:
        panels = list(_panels(figure, list(tests), wide, SMALL, sharey=True))
        for by_rival, axes in zip(tests.values(), panels, strict=True):
            axes.axvline(0, color="0.6", linewidth=0.8)
            for row, rival in enumerate(rivals):
                if rival in by_rival:
                    _whisker(axes, row, by_rival[rival])
            axes.set_yticks(range(len(rivals)), list(rivals), fontsize=SMALL)
        panels[0].invert_yaxis()  # shared
        legend = (
            "IBMA minus rival in points (right of 0: IBMA is better), mean and 95 % interval; "
            "full dot: p < .05 after Holm; no dot: not run, or at unequal settings. Each panel has "
            "its own scale."
        )
        figure.supxlabel(textwrap.fill(_title(legend, twin), 70), fontsize=SMALL)


def _whisker(axes: Axes, row: int, one: Difference) -> None:
    if one.low is not None and one.high is not None:
        axes.plot([one.low, one.high], [row, row], "-", color="black")
    face = "black" if one.shown else "white"
    axes.plot([one.value], [row], "o", color="black", mfc=face, markersize=5)


def ib_moves(
    moves: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]], stem: Path
) -> None:
    """Draw IB losses (nats) of the untrained and of the trained network.

    Args:
        moves: task -> term -> method -> (before, after), means over runs. A line of panels for each
            task, each with its own scale.
        stem: path of the files without their endings.
    """
    wide = max(len(terms) for terms in moves.values())
    tall = max(len(methods) for terms in moves.values() for methods in terms.values())
    with _figure(
        2.0 * wide + 1.9, (0.7 + 0.17 * tall) * len(moves) + 0.5, stem, png=False
    ) as figure:
        grid = figure.subplots(len(moves), wide, squeeze=False)
        for line, (task, terms) in zip(grid, moves.items(), strict=True):
            for axes, (term, methods) in zip(line, terms.items(), strict=False):
                _moves(axes, methods)
                names = list(methods) if term == next(iter(terms)) else []
                axes.set_yticks(range(len(methods)), names or [""] * len(methods))
                axes.set_title(f"{task}\n{term}", fontsize=SMALL)
            for axes in line[len(terms) :]:
                axes.set_visible(False)
        figure.supxlabel("IB loss (nats): hollow before training, full after", fontsize=SMALL)


def _moves(axes: Axes, methods: Mapping[str, tuple[float, float]]) -> None:
    rows = range(len(methods))
    before, after = zip(*methods.values(), strict=True)
    axes.hlines(rows, before, after, color="0.4", linewidth=1)
    axes.plot(before, rows, "o", color="black", mfc="white", markersize=4)
    axes.plot(after, rows, "o", color="black", markersize=4)
    axes.invert_yaxis()
    axes.tick_params(labelsize=SMALL)
    axes.locator_params(axis="x", nbins=3)
    axes.ticklabel_format(axis="x", scilimits=(-2, 2), useOffset=False)
    axes.xaxis.get_offset_text().set_fontsize(SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def attention(
    task: str, explained: Mapping[str, Any], heads: Mapping[str, str], stem: Path
) -> None:
    """Draw Grad-CAM: each example with a map of each head over it, and the deletion curves.

    The sample's id, class and words stand under each picture.

    Args:
        task: printed name of the task.
        explained: what stage `gradcam` wrote.
        heads: of the methods there -> its printed name.
        stem: path of the files without their endings.
    """
    examples, maps = explained["examples"], explained["methods"]
    captions = [_caption(example) for example in examples]
    heights = [1.5 + 0.16 * (text.count("\n") + 1) for text in captions]
    with _figure(WIDTH, sum(heights) + 3.8, stem) as figure:
        *rows, below = figure.subfigures(len(examples) + 1, height_ratios=[*heights, 3.4])
        for row, example, caption in zip(rows, examples, captions, strict=True):
            picture = np.array(example["picture"], dtype=np.uint8)
            panels = row.subplots(1, 1 + len(maps))
            for axes, name in zip(panels, ("picture", *maps), strict=True):
                axes.imshow(picture)
                if name in maps:
                    salience = np.array(example["maps"][name])
                    axes.imshow(salience, cmap="magma", alpha=0.6, vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[])
                axes.set_title(heads.get(name, name).replace(", ", "\n"), fontsize=SMALL)
            row.supxlabel(caption, fontsize=SMALL)
        _deletion(below.subplots(), maps, heads)
        title = f"{task}: Grad-CAM; curves: mean of {explained['n']} test samples"
        _head(figure, title, explained["source"] == "twin")


def _caption(example: Mapping[str, Any]) -> str:
    """Return the id of an example, its class and its words, over several lines."""
    words = f"{example['class']}: {example['text']}"
    return "\n".join(textwrap.fill(one_line(part), 66) for part in (str(example["id"]), words))


def _deletion(axes: Axes, maps: Mapping[str, Any], heads: Mapping[str, str]) -> None:
    for style, (label, one) in zip(itertools.cycle(STYLES), maps.items(), strict=False):
        name = heads.get(label, label)
        percent = np.linspace(0, 100, len(one["deletion"]))
        share = one["energy"]  # known on twins alone
        inside = "" if share is None else f", {100 * share:.0f} % of the map where the class shows"
        axes.plot(percent, one["deletion"], linestyle=style, color="black", label=name + inside)
        axes.plot(percent, one["random"], linestyle=style, color="0.6")
    axes.plot([], [], color="0.6", label="grey: the same head, pixels in random order")
    axes.set(xlabel="pixels deleted, most salient first (%)", ylabel="p(class)")
    axes.legend(fontsize=SMALL, loc="lower center", bbox_to_anchor=(0.5, 1.0))  # above


def _head(figure: Any, title: str, twin: bool) -> None:
    """Title a figure, over several lines where it is long."""
    figure.suptitle(textwrap.fill(_title(one_line(title), twin), 56), fontsize=SMALL + 1)


def _title(text: str, twin: bool) -> str:
    return f"{text} (TWIN)" if twin else text
