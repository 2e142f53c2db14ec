"""Tables of the studies: where the bound can act, where it does, and what noise does."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ibma.report import formatting, table
from ibma.report.inputs import Inputs
from ibma.report.table import NOT_RUN, Column, Number, Row, Scalar, Table, Value
from ibma.results import records, regime, separation, stats, studies
from ibma.results.claims import CONTROL, OURS, method_name, metric_name, task_name
from ibma.results.studies import Point
from ibma.training.record import Record

TUNED = "ibma_tuned"  # IBMA whose beta stage tune chooses
NOISE_IN = {"train": "training", "test": "test", "both": "both"}


def build(inputs: Inputs) -> list[Table]:
    """Build every table of the studies that has a row."""
    tables = [_regime(), _regimes(inputs), _noise(inputs)]
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
        "Worked out from the formula: -V in nats, for K classes of equal size, equally far apart.",
        False,
        tuple(columns),
        tuple(rows),
        (
            "Start: classes coincide. End: they are as far apart as K unit vectors can be. "
            "Highest: on the way, at the separation (distance over the largest one) beside it; "
            "beta moves the place and not the height.",
            "Printed: vectors are not normalised, and their entries have unit variance. Width D is "
            "then the same as unit vectors at beta D.",
        ),
    )


# --- where it does -------------------------------------------------------------------------------


def _regimes(inputs: Inputs) -> Table:
    """`regimes`: one line a task: where alignment acts, and whether it helps there."""
    study = inputs.params.regimes
    rivals = (*study.forms[1:], study.control)
    rows, data, regimes = [], [], formatting.plural(len(list(study.points())), "regime")
    for task in study.tasks:
        if found := studies.points(inputs.results, task):
            rows.append(_regimes_row(inputs, task, found, rivals))
            data += [row for point in found for row in _point_rows(task, point)]
    columns = [Column("Task"), Column("Classes"), Column("Active regimes"), Column("Share")]
    for rival in rivals:
        group = f"IBMA minus {method_name(rival)}"
        columns += [Column("where active", group), Column("better / worse", group)]
        columns += [Column("where inactive", group)]
    columns.append(Column(f"{method_name(TUNED)} minus {method_name(study.control)}"))
    twin = any(inputs.results.is_twin(task) for task in study.tasks)
    return Table(
        "regimes",
        "Where does the bound act, and does it help there?",
        f"IBMA in {regimes} (phi x beta x eta) with the learning rate and weight decay of "
        f"{method_name(study.control)}; points of the task's metric.",
        twin,
        tuple(columns),
        tuple(rows),
        (
            "Share: norm of the gradient of eta times the alignment terms over that of "
            "cross-entropy, the largest over epochs and modalities; median and range over "
            f"regimes. Active: {regime.ACTIVE:.0%} or more.",
            "Where active: per run the mean over all active regimes, then mean and interval over "
            "runs. No regime is picked by its result on test.",
            f"Better / worse: regimes with p < {studies.ALPHA:g} (paired t-test, Holm over the "
            "regimes of a task). The rival without alignment is trained in the same regime.",
            f"{method_name(TUNED)}: beta is chosen inside train, like a learning rate.",
            "The CSV file has a row for every regime.",
        ),
        tuple(data),
    )


def _regimes_row(inputs: Inputs, task: str, found: Sequence[Point], rivals: Sequence[str]) -> Row:
    active = [one for one in found if one.active]
    inactive = [one for one in found if not one.active]
    shares = [one.share for one in found]
    values: list[Value] = [
        task_name(task),
        len(inputs.features[task]["classes"]) if task in inputs.features else None,
        f"{len(active)} of {len(found)}",
        Number(statistics.median(shares), "times", low=min(shares), high=max(shares)),
    ]
    for rival in rivals:
        better, worse = studies.counts(found, rival)
        values += [_mean(active, rival), f"{better} / {worse}", _mean(inactive, rival)]
    ours, theirs = (inputs.results.of(task, m) for m in (TUNED, inputs.params.regimes.control))
    tuned = studies.differences(ours, theirs, inputs.results.headline(task))
    values.append(_apart(list(tuned.values())) or NOT_RUN)
    return Row(tuple(values))


def _mean(some: Sequence[Point], rival: str) -> Value:
    one = studies.mean_apart(some, rival)
    return "none" if one is None else table.signed(one)


def _apart(values: Sequence[float]) -> Number | None:
    return table.signed(stats.summary(values)) if values else None


def _point_rows(task: str, point: Point) -> list[dict[str, Scalar]]:
    """Return a regime as flat rows, one for each rival."""
    rows: list[dict[str, Scalar]] = []
    for rival, by_run in point.apart.items():
        regime_: dict[str, Scalar] = {"task": task, "phi": point.phi, "beta": point.beta}
        regime_ |= {"eta": point.eta, "share": point.share, "rival": rival}
        if number := _apart(list(by_run.values())):
            parts: dict[str, Scalar] = {"low": number.low, "high": number.high, "n": number.n}
            rows.append(regime_ | {"difference": number.value} | parts)
    return rows


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
                    numbers = _methods(study.methods, by_method, metric)
                    rows.append(Row((*head, *numbers, _against(by_method, metric))))
    tasks = [task for task in study.tasks if inputs.results.of_study("noise", task)]
    metrics = dict.fromkeys(metric_name(inputs.results.headline(task)) for task in tasks)
    return Table(
        "noise",
        "Noise in one modality",
        f"{', '.join(metrics)} in percent with Gaussian noise in one modality.",
        any(inputs.results.is_twin(task) for task in tasks),
        (
            *(Column(label) for label in ("Task, modality", "Noise in", "Level")),
            *(Column(method_name(method)) for method in study.methods),
            Column(f"{method_name(OURS)} minus {method_name(CONTROL)}"),
        ),
        tuple(rows),
        (
            "Level: standard deviation of the noise over that of each feature on the training "
            "rows. Every sample keeps its noise, and a run draws the same at every level.",
            "Every method keeps the learning rate, weight decay and weight that cross-validation "
            "chose without noise.",
        ),
    )


def _methods(
    methods: Sequence[str], by_method: Mapping[str, Sequence[Record]], metric: str
) -> list[Value]:
    sums = [records.summary(by_method.get(m, ()), metric, "percent") for m in methods]
    return [table.mean(one, "percent") or NOT_RUN for one in sums]


def _against(by_method: Mapping[str, Sequence[Record]], metric: str) -> Value:
    ours, theirs = by_method.get(OURS, ()), by_method.get(CONTROL, ())
    return _apart(list(studies.differences(ours, theirs, metric).values())) or NOT_RUN
