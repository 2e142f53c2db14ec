"""Build the tables of the studies: what the bound can reach, the regimes, and noise."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from ibma.report import formatting, table
from ibma.report.inputs import Inputs
from ibma.report.paper_tables import mean_of
from ibma.report.table import NOT_RUN, Column, Number, Row, Table, Value
from ibma.results import regime, separation, significance, studies
from ibma.results.claims import CONTROL, OURS, method_name, metric_name, task_name
from ibma.results.studies import Point
from ibma.training.record import Record

TUNED = "ibma_tuned"  # IBMA whose beta stage tune chooses
NOISE_APART = f"{method_name(OURS)} minus {method_name(CONTROL)}"  # a column of table `noise`
NOISE_IN = {"train": "training", "test": "test", "both": "both"}


def build(inputs: Inputs) -> list[Table]:
    """Build every table of the studies that has a row."""
    tables = [_regime(), *_regimes(inputs), _noise(inputs)]
    return [made for made in tables if made.rows]


# --- where the bound can act ---------------------------------------------------------------------


def _regime() -> Table:
    """`regime`: the closed form of IBB's alignment term for K classes in every regime of phi."""
    rows = []
    for classes in separation.CLASSES:
        courses = [separation.course(classes, one.sharpness) for one in separation.REGIMES]
        numbers = [courses[0].start, courses[0].highest]
        numbers += [number for one in courses for number in (one.at, one.end)]
        rows.append(Row((classes, *(Number(number, "") for number in numbers))))
    columns = [Column("Classes K"), Column("Start: ln K"), Column("Highest")]
    for one in separation.REGIMES:
        columns += [Column("highest at", one.name), Column("end", one.name)]
    return Table(
        "regime",
        "What the alignment term of IBB can reach",
        "Computed from the formula: -V in nats, for K classes of equal size, equally far apart.",
        False,
        tuple(columns),
        tuple(rows),
        (
            "Start: classes coincide. End: they are as far apart as K unit vectors can be. "
            "Highest: between start and end; the separation (distance over the largest one) is "
            "beside it. Beta moves the place of the highest value, not the value.",
            "Printed: raw vectors whose entries have unit variance. Width D then equals unit "
            "vectors at beta D.",
        ),
    )


# --- where it does -------------------------------------------------------------------------------


def _regimes(inputs: Inputs) -> Iterator[Table]:
    """`regimes`: one line a task: where alignment acts, and whether it helps there.

    `regime_points` beside it has a line a regime.
    """
    study = inputs.params.regimes
    rivals = (*study.forms[1:], study.control)
    found = {task: studies.points(inputs.results, task) for task in study.tasks}
    found = {task: points for task, points in found.items() if points}
    twin = inputs.results.is_twin(*study.tasks)
    yield _by_task(inputs, found, rivals, twin)
    yield _by_regime(found, rivals, twin)


def _by_task(
    inputs: Inputs, found: Mapping[str, Sequence[Point]], rivals: Sequence[str], twin: bool
) -> Table:
    study = inputs.params.regimes
    regimes = formatting.plural(len(list(study.points())), "regime")
    columns = [Column("Task"), Column("Classes"), Column("Regimes"), Column("Share")]
    for rival in rivals:
        group = f"IBMA minus {method_name(rival)}"
        columns += [Column(band, group) for band in (*regime.BANDS, "better / worse")]
    columns.append(Column(f"{method_name(TUNED)} minus {method_name(study.control)}"))
    return Table(
        "regimes",
        "Where does the bound act, and does it help there?",
        f"IBMA in {regimes} (phi x beta x eta) with the learning rate and weight decay of "
        f"{method_name(study.control)}; points of the task's metric.",
        twin,
        tuple(columns),
        tuple(_regimes_row(inputs, task, points, rivals) for task, points in found.items()),
        (
            "Share: norm of the gradient of eta times the alignment terms over that of "
            "cross-entropy, the largest over epochs and modalities; median and range over "
            f"regimes. Inactive: under {regime.ACTIVE:.0%}. Weaker or stronger: than "
            "cross-entropy. Regimes: numbers of inactive / weaker / stronger ones.",
            "Differences: the mean over all regimes of the column in each run, then mean and "
            "interval over runs. No regime is chosen by its test result.",
            f"Better / worse: regimes with p < {significance.ALPHA:g} (paired t-test, Holm over "
            "the regimes of a task). The rival without alignment is trained in the same regime.",
            "Where folds share training rows, variances are those of Nadeau and Bengio. Test rows "
            "are not drawn again: predictions of these runs are not committed.",
            f"{method_name(TUNED)}: beta is chosen inside the training split.",
            "Every regime: `regime_points.md`.",
            *inputs.left_out(found),
        ),
    )


def _regimes_row(inputs: Inputs, task: str, found: Sequence[Point], rivals: Sequence[str]) -> Row:
    by_band = {band: [one for one in found if one.band == band] for band in regime.BANDS}
    shares = [one.share for one in found]
    values: list[Value] = [
        task_name(task),
        len(inputs.features[task]["classes"]) if task in inputs.features else None,
        " / ".join(str(len(some)) for some in by_band.values()),
        Number(statistics.median(shares), "times", low=min(shares), high=max(shares)),
    ]
    for rival in rivals:
        better, worse = studies.counts(found, rival)
        values += [_mean(some, rival) for some in by_band.values()] + [f"{better} / {worse}"]
    ours, theirs = (inputs.results.of(task, m) for m in (TUNED, inputs.params.regimes.control))
    values.append(table.signed(studies.apart(ours, theirs, inputs.results.headline(task))))
    return Row(tuple(values))


def _mean(some: Sequence[Point], rival: str) -> Value:
    one = studies.mean_apart(some, rival)
    return "none" if one is None else table.signed(one)


def _by_regime(found: Mapping[str, Sequence[Point]], rivals: Sequence[str], twin: bool) -> Table:
    rows = []
    for task, points in found.items():
        for one in points:
            place = task_name(task), one.phi, f"{one.beta:g}", f"{one.eta:g}"
            apart = [_mean([one], rival) for rival in rivals]
            rows.append(Row((*place, Number(one.share, "times"), *apart)))
    columns = [Column(label) for label in ("Task", "Phi", "Beta", "Eta", "Share")]
    columns += [Column(f"IBMA minus {method_name(rival)}") for rival in rivals]
    return Table(
        "regime_points",
        "Every regime of the bound",
        "Differences in points of the task's metric, for every regime of the table `regimes`.",
        twin,
        tuple(columns),
        tuple(rows),
        ("Columns: see the table of regimes. Intervals are not corrected for their number.",),
    )


# --- noise ---------------------------------------------------------------------------------------


def _noise(inputs: Inputs) -> Table:
    """`noise`: the metric of every method at every level of noise in one modality."""
    study, rows = inputs.params.noise, []
    for task, modality in study.tasks.items():
        metric = inputs.results.headline(task)
        for place, by_level in studies.levels(inputs.results, task).items():
            for level, by_method in by_level.items():
                if by_method and (level or place == studies.PLACES[0]):
                    where = NOISE_IN[place] if level else "none"
                    head = (f"{task_name(task)}, {modality}", where, f"{level:g}")
                    runs = {method: by_method.get(method, ()) for method in study.methods}
                    means = [mean_of(own, metric) or NOT_RUN for own in runs.values()]
                    rows.append(Row((*head, *means, _against(by_method, metric))))
    tasks = [task for task in study.tasks if inputs.results.of_study("noise", task)]
    metrics = dict.fromkeys(metric_name(inputs.results.headline(task)) for task in tasks)
    return Table(
        "noise",
        "Noise in one modality",
        f"{', '.join(metrics)} in percent with Gaussian noise in one modality.",
        inputs.results.is_twin(*tasks),
        (
            *(Column(label) for label in ("Task, modality", "Noise in", "Level")),
            *(Column(method_name(method)) for method in study.methods),
            Column(NOISE_APART),
        ),
        tuple(rows),
        (
            "Level: standard deviation of the noise over that of each feature on the training "
            "rows. Every sample keeps its noise, and a run draws the same at every level.",
            "Every method keeps the learning rate, weight decay and weight that cross-validation "
            "chose without noise.",
            "Intervals of differences: over runs; where folds share training rows, those of Nadeau "
            "and Bengio.",
            *inputs.left_out(tasks),
        ),
    )


def _against(by_method: Mapping[str, Sequence[Record]], metric: str) -> Value:
    ours, theirs = by_method.get(OURS, ()), by_method.get(CONTROL, ())
    return table.signed(studies.apart(ours, theirs, metric))
