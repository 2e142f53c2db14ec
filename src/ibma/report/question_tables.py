"""Build the tables on two questions: is fusion of any use, and has the bound a gradient?"""

from __future__ import annotations

from collections.abc import Sequence

from ibma.report import real_tables
from ibma.report.inputs import Inputs
from ibma.report.paper_tables import mean_of
from ibma.report.table import NOT_RUN, Column, Number, Row, Table, Value
from ibma.results import claims, fairness, records, regime, significance
from ibma.results.claims import OURS, SINGLE, method_name, metric_name, task_name
from ibma.results.resampling import Resampled
from ibma.training.record import Record


def build(inputs: Inputs) -> list[Table]:
    """Build every table that has a row."""
    points = [_points(inputs, task) for task in inputs.tasks]
    return [made for made in (_fusion(inputs), _at_work(inputs), *points) if made.rows]


# --- is fusion of any use? -----------------------------------------------------------------------


def _fusion(inputs: Inputs) -> Table:
    """`real_fusion`: the best network of one modality against networks of all modalities."""
    resampled = Resampled(inputs.results)
    rows = [row for task in inputs.tasks if (row := _fusion_row(inputs, resampled, task))]
    headings = ("Task", "Metric", "Best modality", "Alone", "Best method of all", "Joint")
    return Table(
        "real_fusion",
        "Is fusion of any use over one modality?",
        "IBMA's encoder and head on one modality, and methods on all modalities, equally tuned.",
        inputs.results.is_twin(*inputs.tasks),
        (
            *map(Column, headings),
            Column("Best minus alone"),
            Column("IBMA minus alone"),
            Column("Can judge fusion"),
        ),
        tuple(rows),
        (
            "The best modality and the best joint method are the ones with the best mean on test: "
            "that favours each of them. Intervals of differences are those of the claims, over "
            "runs and test rows where records hold predictions. The verdict on IBMA is that of the "
            "claim; the best joint method gets none, as the test chose it.",
            "Can judge fusion: yes if a joint method has a higher mean than the best modality "
            "alone. If none has, the task cannot compare ways of fusion. Nor can a task where "
            "neither the best modality nor IBMA has a mean above chance (50 %, for accuracy 1/K "
            "with K classes), nor generated data (TWIN).",
            *inputs.left_out(inputs.tasks),
        ),
    )


def _fusion_row(inputs: Inputs, resampled: Resampled, task: str) -> Row | None:
    metric = inputs.results.headline(task)
    means = real_tables.scores(inputs, [task]).get(task, {})
    single = claims.candidates(SINGLE, inputs.params)
    alone = {method: mean for method, mean in means.items() if method in single}
    joint = {method: mean for method, mean in means.items() if method not in alone}
    if not alone or not joint:
        return None
    one, best = (max(some, key=lambda method: some[method]) for some in (alone, joint))
    runs = [inputs.results.of(task, method) for method in (one, best)]
    shown = [mean_of(own, metric) for own in runs]
    test = real_tables.claim_tests(inputs)[SINGLE].get(task)
    ours = inputs.results.of(task, OURS)
    apart = [
        _apart(resampled, runs[1], runs[0], metric),
        real_tables.difference(test) if test else _apart(resampled, ours, runs[0], metric),
    ]
    sides = alone[one], joint.get(OURS, joint[best])
    fit = "yes" if joint[best] > alone[one] else "no"
    if max(sides) <= _chance(inputs, task, metric):
        fit = "no: at chance"
    if inputs.results.is_twin(task):
        fit = "TWIN"
    names = method_name(one), shown[0], method_name(best), shown[1]
    return Row((task_name(task), metric_name(metric), *names, *apart, fit))


def _apart(
    resampled: Resampled, ours: Sequence[Record], theirs: Sequence[Record], metric: str
) -> Value:
    """Return a mean difference in points with the interval that a claim has."""
    found = significance.compare(resampled, ours, theirs, metric, "percent")
    if found is None:
        return NOT_RUN
    paired, total = found
    low, high = (total.low, total.high) if total else (None, None)
    return Number(paired.difference, n=paired.n, low=low, high=high, signed=True)


def _chance(inputs: Inputs, task: str, metric: str) -> float:
    """Return what guessing gives of the metric that a task is judged by, in percent."""
    return 100 / len(inputs.features[task]["classes"]) if metric == "accuracy" else 50.0


# --- has the bound a gradient? -------------------------------------------------------------------


def _at_work(inputs: Inputs) -> Table:
    """`real_regime`: the bound's gradient over that of cross-entropy, and the largest phi."""
    rows = [
        Row((task_name(task), method_name(method), *_regime(runs)), records.folder(runs))
        for task in inputs.tasks
        for method, runs in inputs.results.of_task(task).items()
        if any(regime.peak_share(run) is not None for run in runs)
    ]
    headings = (
        "Task",
        "Method",
        "Share of the alignment",
        "Share of the whole bound",
        "Largest phi",
    )
    return Table(
        "real_regime",
        "Does the bound have a gradient?",
        "The norm of the bound's gradient over that of cross-entropy, and the largest phi.",
        inputs.results.is_twin(*inputs.tasks),
        tuple(map(Column, (*headings, "Active"))),
        tuple(rows),
        (
            "Shares: the largest over epochs and representations, mean over runs. Under "
            f"{regime.ACTIVE:.0%} in every run the bound is called inactive: the method then "
            "trains its network alone.",
            "Largest phi: mean over samples and representations in the last epoch; 1 is one-hot, "
            "1/K is uniform.",
            *inputs.left_out(inputs.tasks),
        ),
    )


def _regime(runs: Sequence[Record]) -> tuple[Value, ...]:
    shares = [share for run in runs if (share := regime.alignment_share(run)) is not None]
    whole = [share for run in runs if (share := regime.peak_share(run)) is not None]
    sharp = [
        sum(last) / len(last)
        for run in runs
        if (last := [v[-1] for name, v in run.regime.items() if name.startswith("phi_max/")])
    ]
    numbers = [Number(sum(one) / len(one), "times") if one else None for one in (shares, whole)]
    largest = Number(sum(sharp) / len(sharp), "fraction") if sharp else None
    idle = sum(map(regime.inactive, runs))
    said = "yes" if not idle else "inactive" if idle == len(runs) else f"inactive in {idle} runs"
    return (*numbers, largest, said)


# --- where nothing can be chosen -----------------------------------------------------------------


def _points(inputs: Inputs, task: str) -> Table:
    """`points_<task>`: every method at every lr and weight decay, where nothing can be tuned."""
    by_method = {
        method: runs
        for method, runs in inputs.results.of_task(task).items()
        if fairness.points_in_turn(runs)
    }
    points = fairness.points_in_turn([run for runs in by_method.values() for run in runs])
    metric = inputs.results.headline(task)
    rows = [
        Row((method_name(method), *(_at(runs, point, metric) for point in points)))
        for method, runs in by_method.items()
    ]
    names = [f"{lr:g}, {decay:g}" for lr, decay in points]
    return Table(
        f"points_{task}",
        f"{task_name(task)}: every method at every learning rate and weight decay",
        f"{metric_name(metric)} in percent. Each column has one learning rate and weight decay.",
        inputs.results.is_twin(task),
        (Column("Method"), *(Column(name, "Learning rate, weight decay") for name in names)),
        tuple(rows) if len(points) > 1 else (),
        ("The training data has no anomaly to tune by, so runs use the columns in turn.",),
    )


def _at(runs: Sequence[Record], point: tuple[float, float], metric: str) -> Value:
    there = [run for run in runs if fairness.point(run) == point]
    return mean_of(there, metric) or NOT_RUN
