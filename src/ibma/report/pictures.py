"""Which figures a report has: what is drawn, and the sentence that says what each one shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ibma.report import figures, real_tables
from ibma.report.inputs import Inputs
from ibma.results import claims, records
from ibma.results.claims import metric_name, task_name


@dataclass(frozen=True)
class Picture:
    """A figure: its file without the ending, what it shows, and the table that it belongs to."""

    name: str
    caption: str
    table: str


def draw(inputs: Inputs, folder: Path) -> list[Picture]:
    """Draw every figure of a report; return those that the page shows.

    Training curves stay files beside the page: a panel for each method and task is too much for it.
    """
    _draw_curves(inputs, folder)
    return [
        *_draw_claims(inputs, folder),
        *_draw_ranks(inputs, folder),
        *_draw_comparisons(inputs, folder),
        *_draw_etas(inputs, folder),
        *_draw_measured(inputs, folder),
    ]


def _names(inputs: Inputs) -> dict[str, str]:
    return {method: claims.method_name(method) for method in inputs.params.methods}


def _twin(inputs: Inputs) -> bool:
    return any(inputs.results.is_twin(task) for task in inputs.tasks)


def _draw_curves(inputs: Inputs, folder: Path) -> None:
    names = _names(inputs)
    for task in inputs.tasks:
        methods = {names[method]: runs for method, runs in inputs.results.of_task(task).items()}
        figures.training_curves(task_name(task), methods, folder / f"history_{task}")


def _draw_claims(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    """Draw IBMA against its rivals, and how IB losses move, on tasks beyond the paper."""
    tests = real_tables.claim_tests(inputs)
    rivals = {claim.opponent: claim.figure for claim in claims.CLAIMS if claim.figure}
    panels = {
        f"{task_name(task)}\n{metric_name(inputs.results.headline(task))}": {
            rivals[opponent]: by_task[task]
            for opponent, by_task in tests.items()
            if opponent in rivals and task in by_task
        }
        for task in inputs.beyond
    }
    twin = any(inputs.results.is_twin(task) for task in inputs.beyond)
    if any(panels.values()):
        figures.forest(panels, list(rivals.values()), twin, folder / "claims")
        yield Picture("claims", "IBMA minus each rival on every task, 95 % interval", "real_claims")
    if moves := real_tables.ib_moves(inputs):
        figures.ib_moves(moves, folder / "ib_losses")
        yield Picture("ib_losses", "IB losses before and after training", "real_ib")


def _draw_ranks(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    names = _names(inputs)
    scores = {
        task_name(task): {names[method]: mean for method, mean in by_method.items()}
        for task, by_method in real_tables.scores(inputs, inputs.tasks).items()
    }
    if len(scores) > 1:
        figures.critical_difference(scores, _twin(inputs), folder / "ranks")
        yield Picture(
            "ranks", "Mean rank of every method over tasks, critical difference", "real_data"
        )


def _draw_comparisons(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    names = _names(inputs)
    for task in inputs.tasks:
        metric = inputs.results.headline(task)
        by_method = inputs.results.of_task(task)
        percents = {
            names[method]: values
            for method, runs in by_method.items()
            if (values := records.values(runs, metric, "percent"))
        }
        folds = any(run.fold is not None for runs in by_method.values() for run in runs)
        dots = "dots are runs, each on its own test fold" if folds else "dots are seeds"
        title, twin = f"{task_name(task)}: {dots}, bars are means", inputs.results.is_twin(task)
        name = f"comparison_{task}"
        figures.comparison(title, metric_name(metric), percents, twin, folder / name)
        yield Picture(
            name, f"{task_name(task)}: {metric_name(metric)} of every run", f"real_{task}"
        )


def _draw_etas(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    """Draw the eta curve: beside the paper's where the task is its own."""
    task, methods = inputs.params.sensitivity.task, inputs.params.sensitivity.methods
    metric, paper = inputs.results.headline(task), inputs.paper.table(8)
    ours = {
        claims.method_name(method): {
            eta: records.values(runs, metric, "percent") for eta, runs in by_eta.items()
        }
        for method in methods
        if (by_eta := inputs.results.at_etas(method))
    }
    if not ours:
        return
    same = task == paper.columns[0].task
    row = paper.rows[0].cells
    published = {float(c.eta or 0): row[c.key].value for c in paper.columns} if same else {}
    title, twin = (
        f"{task_name(task)}: fixed eta, mean and 95 % interval",
        inputs.results.is_twin(task),
    )
    figures.eta_curves(title, metric_name(metric), ours, published, twin, folder / "eta")
    yield Picture(
        "eta", f"{task_name(task)}: {metric_name(metric)} against eta", "08" if same else "real_eta"
    )


def _draw_measured(inputs: Inputs, folder: Path) -> Iterator[Picture]:
    """Draw Figures 1 and 3, and the times."""
    names = _names(inputs)
    for task, explained in inputs.gradcam.items():
        figures.attention(task_name(task), explained, names, folder / f"gradcam_{task}")
        caption = f"{task_name(task)}: Grad-CAM of the image encoder, deletion curves"
        yield Picture(f"gradcam_{task}", caption, "")
    if inputs.timing:
        task = inputs.timing["task"]
        figures.times(task_name(task), inputs.timing, names, folder / "times")
        caption = f"{task_name(task)}: seconds an epoch of every method"
        yield Picture("times", caption, "real_cost" if task in inputs.beyond else "09")
