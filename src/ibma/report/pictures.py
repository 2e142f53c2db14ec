"""Choose the figures of a report, and write the sentence below each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ibma.report import figures, formatting, paper_tables, real_tables, study_tables
from ibma.report.figures import Difference
from ibma.report.inputs import Inputs
from ibma.report.real_tables import Verdict
from ibma.results import claims, records, regime, separation, stats, studies
from ibma.results.claims import CONTROL, OURS, method_name, metric_name, task_name
from ibma.results.significance import Test

PHIS = {"unit": "unit", "printed": "raw"}  # vectors that phi is computed from


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: its file without the ending.
        title: what it is.
        caption: what it shows, in numbers.
        wide: whether it has panels side by side, which a narrow screen scrolls.
        grey: whether it has no colours, so that a dark page may invert it.
    """

    name: str
    title: str
    caption: str
    wide: bool = False
    grey: bool = True


def draw(inputs: Inputs, folder: Path) -> dict[str, Picture]:
    """Draw every figure of a report; return name -> picture of those that the page shows.

    Training curves are files only: a panel for each method and task is too much for the page.
    """
    _draw_curves(inputs, folder)
    drawn = (
        *_draw_claims(inputs, folder),
        *_draw_ranks(inputs, folder),
        *_draw_comparisons(inputs, folder),
        *_draw_etas(inputs, folder),
        *_draw_measured(inputs, folder),
        *_draw_regimes(inputs, folder),
        *_draw_noise(inputs, folder),
        _draw_regime(folder),
    )
    return {picture.name: picture for picture in drawn}


def _draw_curves(inputs: Inputs, folder: Path) -> None:
    for task in inputs.tasks:
        methods = {method_name(m): runs for m, runs in inputs.results.of_task(task).items()}
        figures.training_curves(task_name(task), methods, folder / f"history_{task}")


def _draw_claims(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    """Draw IBMA against its rivals, and how IB losses move, on tasks beyond the paper."""
    tests = real_tables.claim_tests(inputs)
    rivals = {claim.opponent: claim.figure for claim in claims.CLAIMS if claim.figure}
    panels = {
        f"{task_name(task)}\n{metric_name(inputs.results.headline(task))}": {
            rivals[opponent]: _difference(by_task[task])
            for opponent, by_task in tests.items()
            if opponent in rivals and task in by_task
        }
        for task in inputs.beyond
    }
    twin = inputs.results.is_twin(*inputs.beyond)
    if any(panels.values()):
        met = [name for name in rivals.values() if any(name in panel for panel in panels.values())]
        figures.forest(panels, met, twin, folder / "claims")
        said = real_tables.counted(
            real_tables.judge(inputs, opponent, task, by_task.get(task))
            for opponent, by_task in tests.items()
            for task in inputs.beyond
        )
        said = said.replace("tasks", "comparisons")
        title = "IBMA minus each rival on every task, with its 95 % interval"
        yield Picture("claims", title, f"{said}.")
    if moves := real_tables.ib_moves(inputs):
        figures.ib_moves(moves, folder / "ib_losses")
        title = "IB losses before (hollow) and after training (full)"
        yield Picture("ib_losses", title, _moved(moves), wide=True)


def _difference(test: Test) -> Difference:
    shown = real_tables.verdict(test) in (Verdict.BETTER, Verdict.WORSE)
    return Difference(test.paired.difference, *test.interval, shown)


def _moved(moves: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]) -> str:
    """Say on how many tasks training lowers the fused IB loss of IBMA, and that of its control."""
    fused = [terms.get("fused", {}) for terms in moves.values()]
    counts = [
        f"{method_name(method)} {sum(one[name][1] < one[name][0] for one in fused if name in one)}"
        for method in (OURS, CONTROL)
        if (name := method_name(method)) and any(name in one for one in fused)
    ]
    return f"Tasks of {len(moves)} where training lowers the fused IB loss: {', '.join(counts)}."


def _draw_ranks(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    scores = {
        task_name(task): {method_name(method): mean for method, mean in by_method.items()}
        for task, by_method in real_tables.scores(inputs, inputs.real).items()
    }
    if len(scores) > 1:
        figures.critical_difference(scores, False, folder / "ranks")
        ranks = stats.mean_ranks(scores)
        apart = stats.critical_difference(len(ranks), len(scores))
        first, best = next(iter(ranks.items()))
        near = sum(rank < best + apart for rank in ranks.values())
        caption = (
            f"{first} has the best mean rank, {best:.1f}; {near} of {len(ranks)} methods lie "
            f"within the critical difference of {apart:.1f} from it."
        )
        yield Picture("ranks", "Mean rank of every method over real tasks", caption)


def _draw_comparisons(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    for task in inputs.tasks:
        metric = inputs.results.headline(task)
        by_method = inputs.results.of_task(task)
        percents = {
            method_name(method): values
            for method, runs in by_method.items()
            if (values := records.values(runs, metric, "percent"))
        }
        folds = any(run.fold is not None for runs in by_method.values() for run in runs)
        dots = "dots are runs on several test folds" if folds else "dots are seeds"
        twin, name = inputs.results.is_twin(task), f"comparison_{task}"
        title = f"{task_name(task)}: {dots}, bars are means"
        figures.comparison(title, metric_name(metric), percents, twin, folder / name)
        words = f"{task_name(task)}: {metric_name(metric)} of every run; {dots}, bars are means"
        yield Picture(name, words, _highest(percents))


def _highest(percents: Mapping[str, list[float]]) -> str:
    """Say which methods have the highest mean, and where IBMA is."""
    means = {
        name: formatting.rounded(sum(values) / len(values), "percent")
        for name, values in percents.items()
    }
    best = max(means.values(), default=0.0)
    first = [name for name, mean in means.items() if mean == best]
    shown = " and ".join(first) if len(first) < 3 else f"{len(first)} methods"
    ours = means.get(method_name(OURS))
    said = f"Highest mean: {shown}, {best:.1f} %"
    return f"{said}." if ours is None else f"{said}; IBMA {ours:.1f} %."


def _draw_etas(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    """Draw the eta curve, with the paper's where the task is its own."""
    task, methods = inputs.params.sensitivity.task, inputs.params.sensitivity.methods
    metric, paper = inputs.results.headline(task), inputs.paper.table(paper_tables.ETA_TABLE)
    ours = {
        method_name(method): {
            eta: records.values(runs, metric, "percent") for eta, runs in by_eta.items()
        }
        for method in methods
        if (by_eta := inputs.results.at_etas(method))
    }
    if not ours:
        return
    row = paper.rows[0].cells
    same = task == paper.columns[0].task
    published = {float(c.eta or 0): row[c.key].value for c in paper.columns} if same else {}
    name, twin = task_name(task), inputs.results.is_twin(task)
    title = f"{name}: fixed eta, mean and 95 % interval"
    figures.eta_curves(title, metric_name(metric), ours, published, twin, folder / "eta")
    spans = [
        f"{method} {max(means) - min(means):.1f}"
        for method, by_eta in ours.items()
        if (means := [sum(values) / len(values) for values in by_eta.values() if values])
    ]
    caption = f"Range of the means over eta in points: {', '.join(spans)}."
    yield Picture("eta", f"{name}: {metric_name(metric)} against eta", caption)


def _head_name(label: str) -> str:
    """Return what people call a method's fused head, or the own head of a modality."""
    method, _, modality = label.partition("/")
    return f"{method_name(method)}, {modality or 'fused'} head"


def _draw_measured(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    """Draw Figures 1 and 3, and the times."""
    names = {method: method_name(method) for method in inputs.params.methods}
    for task, explained in inputs.gradcam.items():
        shown = {label: _head_name(label) for label in explained["methods"]}
        figures.attention(task_name(task), explained, shown, folder / f"gradcam_{task}")
        title = f"{task_name(task)}: Grad-CAM of the image encoder, and deletion curves"
        caption = (
            "Pictures: the first test samples of distinct classes; the paper chose its own. "
            f"Curves: mean of {explained['n']} test samples."
        )
        yield Picture(f"gradcam_{task}", title, caption, grey=False)
    if inputs.timing:
        task, measured = inputs.timing["task"], inputs.timing["methods"]
        figures.times(task_name(task), inputs.timing, names, folder / "times")
        caption = "Median of every method, quartiles as whiskers."
        if {OURS, CONTROL} <= set(measured):
            times = measured[OURS]["median"] / measured[CONTROL]["median"]
            caption = f"An epoch of IBMA takes {times:.2f} times one of {names[CONTROL]}."
        caption = " ".join((caption, *real_tables.untimed(inputs)))
        yield Picture("times", f"{task_name(task)}: seconds an epoch of every method", caption)


def _draw_regime(folder: Path) -> Picture:
    """Draw the closed form of IBB's alignment term."""
    figures.regimes_of_phi(folder / "regime")
    found = separation.course(7, 1.0)
    caption = (
        f"Seven classes of unit vectors at beta 1: {found.start:.3f} nats where classes coincide, "
        f"{found.highest:.3f} at the highest, {found.end:.3f} where they are as far apart as they "
        "can be."
    )
    return Picture("regime", "The alignment term of IBB against separation", caption)


def _draw_regimes(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    """Draw IBMA minus itself without alignment, or the control, against the alignment's share."""
    study = inputs.params.regimes
    rival = (*study.forms[1:], study.control)[0]
    found = {task: studies.points(inputs.results, task) for task in study.tasks}
    panels = {
        task_name(task): {
            PHIS[phi]: [
                (one.share, studies.over_runs(list(one.apart[rival].values()), one.overlap))
                for one in regimes
                if one.phi == phi and one.apart[rival]
            ]
            for phi in study.phis
        }
        for task, regimes in found.items()
        if regimes
    }
    if not panels:
        return
    twin = inputs.results.is_twin(*study.tasks)
    figures.shares(panels, method_name(rival), twin, folder / "regimes")
    every = [one for regimes in found.values() for one in regimes]
    better, worse = (
        sum(pair) for pair in zip(*(studies.counts(r, rival) for r in found.values()), strict=True)
    )
    bands = Counter(one.band for one in every)
    caption = (
        f"{formatting.plural(len(every), 'regime')}: {bands['inactive']} inactive (share under "
        f"{regime.ACTIVE:.0%}), {bands['weaker']} weaker and {bands['stronger']} stronger than "
        'cross-entropy (left and right of the line "equal"). After Holm IBMA is better than '
        f"{method_name(rival)} in {better} and worse in {worse}."
    )
    title = "IBMA minus IBMA without alignment, against the share of the alignment's gradient"
    yield Picture("regimes", title, caption)


def _draw_noise(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    """Draw the metric of every method against the level of noise."""
    study, panels = inputs.params.noise, {}
    tasks = [task for task in study.tasks if inputs.results.of_study("noise", task)]
    for task in tasks:
        metric = inputs.results.headline(task)
        for place, by_level in studies.levels(inputs.results, task).items():
            panels[f"{task_name(task)}\nnoise in {study_tables.NOISE_IN[place]}"] = {
                method_name(method): {
                    level: summary
                    for level, by_method in by_level.items()
                    if (summary := records.summary(by_method.get(method, ()), metric, "percent"))
                }
                for method in study.methods
            }
    if panels:
        twin = inputs.results.is_twin(*tasks)
        metric = metric_name(inputs.results.headline(tasks[0]))
        figures.noise_curves(panels, metric, twin, folder / "noise")
        title = "Accuracy against noise in one modality"
        yield Picture("noise", title, "Means over runs with 95 % intervals.", wide=True)
