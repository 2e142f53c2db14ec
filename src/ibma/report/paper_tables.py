"""The paper's tables in the paper's shape: published and ours side by side.

Every number of a table is a `Line`; the table that is printed arranges them as the paper does, and
its CSV file lists them one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from ibma import paths, tables
from ibma.datasets import Card
from ibma.paper import audit, published
from ibma.paper.published import Target
from ibma.params import Params
from ibma.report import formatting, table
from ibma.report.inputs import Inputs
from ibma.report.table import Column, Mark, Number, Row, Scalar, Table, Value
from ibma.results import claims, fairness, records, significance, stats
from ibma.results.claims import ABSTRACT_ONLY, CONTROL, OURS
from ibma.results.forms import MIB, MIB_FORMS
from ibma.results.significance import Test
from ibma.results.stats import Paired, Total
from ibma.training.record import Record

METRIC_TABLES = (2, 3, 4, 5, 6, 7, 8, 9, 16)
IB_TABLE, BOUNDS_TABLE, ETA_TABLE = 5, 6, 8
TIMED = "minutes_per_epoch"  # the metric that stage `timing` measures, not the records
PROBED = "mauc/"  # metrics that stage `probe` measures: mAUC of one encoder alone
NO_FORM = "no form chosen: nothing to choose by, so each form has a row of its own"
OTHER_READING = {"acc2": "acc2_has0", "f1": "f1_has0"}
ADDED = ("ibma_plugin", "ibma_code")  # bounds of ours in the paper's table of bounds

ABSTRACTS = "Known from its abstract only: neither code nor text was available; ours is a reading."


class Verdict(StrEnum):
    """What a number of ours says about a published one."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    SAME = "direction holds"
    OPPOSITE = "direction fails"
    EQUAL = "no difference shown"
    NO_TEST = "no test"
    TWIN = "no verdict: TWIN"
    CONTROL = "control"
    DEVICE = "no verdict: another device"
    ONE_RUN = "no verdict: one run"
    NOT_RUN = "not run"


MEANINGS = {
    Verdict.INSIDE: "the published value lies in our 95 % interval",
    Verdict.OUTSIDE: "the published value lies outside our 95 % interval",
    Verdict.SAME: "a difference is shown (p < .05 after Holm) and it has the published sign",
    Verdict.OPPOSITE: "a difference is shown (p < .05 after Holm) and it has the other sign",
    Verdict.EQUAL: "p is .05 or more after Holm",
    Verdict.NO_TEST: "the runs do not differ among themselves, so there is no test",
    Verdict.TWIN: "generated data cannot judge a number about real data",
    Verdict.CONTROL: "a row of ours that the paper does not have",
    Verdict.DEVICE: "times of different machines cannot be compared",
    Verdict.ONE_RUN: "one run has no interval",
    Verdict.NOT_RUN: "there is no number; the notes say why",
}


@dataclass(frozen=True)
class Line:
    """One number of ours, and the published one where there is one.

    Attributes:
        row: label of its row.
        column: key of its column in `published.yaml`.
        target: task, method, metric and eta that it measures.
        unit: of both numbers.
        published: what the paper prints.
        ours: what the records hold; None where there is nothing.
        verdict: what ours says about the published number.
        reason: why there is no number.
        source: where ours comes from.
        other_reading: whether ours reads the metric the other way (see `OTHER_READING`).
    """

    row: str
    column: str
    target: Target
    unit: str
    published: Number | None
    ours: Number | None
    verdict: Verdict
    reason: str = ""
    source: str = ""
    other_reading: bool = False

    def flat(self) -> dict[str, Scalar]:
        """Return every part by its name."""
        nothing: dict[str, Scalar] = dict.fromkeys(("", "sd", "n", "low", "high", "mark"))
        paper = self.published.flat() if self.published else nothing
        ours = self.ours.flat() if self.ours else nothing
        apart = self.ours.value - self.published.value if self.ours and self.published else None
        return {
            "row": self.row,
            "task": self.target.task,
            "method": self.target.method,
            "metric": self.target.metric,
            "eta": self.target.eta,
            "unit": self.unit,
            "published": paper[""],
            "published sd": paper["sd"],
            "published mark": paper["mark"],
            "ours": ours[""],
            "sd": ours["sd"],
            "n": ours["n"],
            "low": ours["low"],
            "high": ours["high"],
            "mark": ours["mark"],
            "difference": apart,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "source": self.source,
        }


def build(inputs: Inputs) -> list[Table]:
    """Build the paper's tables in order, then the audit."""
    metrics = {n: _metrics(inputs, inputs.paper.table(n)) for n in METRIC_TABLES}
    tests = {n: _tests(inputs, inputs.paper.table(n)) for n in significance.TABLES}
    ordered = [made for _, made in sorted({**metrics, **tests}.items())]
    return [_sizes(inputs), *ordered, _audit(inputs)]


# --- Table 1 -------------------------------------------------------------------------------------

SIZE_COLUMNS = (
    Column("Data set"),
    *(Column(who, "Classes") for who in ("paper", "official", "ours")),
    *(Column(who, "Training size") for who in ("paper", "official", "ours")),
    *(Column(who, "Test size") for who in ("paper", "official", "ours")),
    Column("Dropped"),
    Column("Remark"),
)


def _sizes(inputs: Inputs) -> Table:
    """Table 1: every data set of the paper, then the profile's others."""
    paper = inputs.paper.table(1)
    printed = {row.key: row.cells for row in paper.rows}
    task_of = {entry.dataset: task for task, entry in reversed(inputs.params.tasks.items())}
    rows, notes = [], []
    for name in dict.fromkeys((*printed, *(task.dataset for task in inputs.params.tasks.values()))):
        card = tables.dataset(inputs.params, name).CARD
        task = task_of.get(name)
        why = inputs.absent(task) if task else "not run: not in this profile"
        meta = inputs.features[task] if task and not why else {}
        rows.append(_size_row(card, meta, printed.get(name, {}), why))
        if meta.get("folds"):
            notes.append(
                f"{card.title}: run k tests on fold k mod {meta['folds']}; sizes of run 0."
            )
        notes += [f"{card.title}: {note}" for note in card.notes]
    twin = any(meta.get("source") == "twin" for meta in inputs.features.values())
    title, caption = f"Table 1: {paper.title}", paper.caption
    return Table("01", title, caption, twin, SIZE_COLUMNS, tuple(rows), tuple(notes))


def _size_row(
    card: Card, meta: Mapping[str, Any], printed: Mapping[str, published.Cell], why: str
) -> Row:
    """Classes, training and test size of one data set; ours are of run 0 where there are folds."""
    train, test = card.official.train, card.official.test
    official = {"classes": len(card.classes), "train": train, "test": test}
    ours = {"classes": len(meta["classes"])} | _split_sizes(meta) if meta else {}
    counts: list[Value] = []
    for measure, count in official.items():
        paper = printed[measure].value if measure in printed else None
        counts += [_count(paper), _count(count), _count(ours.get(measure))]
    remark = why or ("TWIN" if meta.get("source") == "twin" else "")
    return Row((card.title, *counts, meta.get("dropped"), remark))


def _count(count: float | None) -> Number | None:
    return None if count is None else Number(count, "count")


def _split_sizes(meta: Mapping[str, Any]) -> dict[str, int]:
    """Training and test size of run 0, which tests on fold 0 where there is no fixed split."""
    counts = meta["counts"]
    test = counts.get("fold0" if meta["folds"] else "test", 0)
    return {"train": sum(counts.values()) - test - counts.get("valid", 0), "test": test}


# --- tables of metrics ---------------------------------------------------------------------------


def _metrics(inputs: Inputs, paper: published.Table) -> Table:
    """Build a table of metrics; rows and columns of tasks outside the profile are left out."""
    lines = lines_of(inputs, paper.number)
    tasks = list(dict.fromkeys(str(target.task) for target in targets(paper)))
    title = f"Table {paper.number}: {paper.title}"
    columns = _columns(paper, lines)
    return Table(
        f"{paper.number:02d}",
        title,
        f"In the paper: {paper.caption}",
        inputs.results.is_twin(*tasks),
        columns,
        tuple(_pivot(inputs.params, paper, lines)),
        (*_reasons(lines), *_notes(inputs, paper, tasks)),
        tuple(line.flat() for line in lines),
        {IB_TABLE: "its data set", ETA_TABLE: "the row"}.get(paper.number, "the column"),
    )


def lines_of(inputs: Inputs, number: int) -> list[Line]:
    """Return every number of one of the paper's tables of metrics."""
    paper = inputs.paper.table(number)
    return [*_marked(list(_published_lines(inputs, paper))), *_added_lines(inputs, paper)]


def targets(paper: published.Table) -> Iterator[Target]:
    """Yield what the cells of one of the paper's tables measure."""
    for row in paper.rows:
        yield from (paper.target(row.key, column.key) for column in paper.columns)


def _published_lines(inputs: Inputs, paper: published.Table) -> Iterator[Line]:
    """Yield our number for every one that the paper prints on a task of the profile."""
    for row in paper.rows:
        for column in paper.columns:
            target = paper.target(row.key, column.key)
            if target.task not in inputs.params.tasks or column.key not in row.cells:
                continue
            target = _with_best_form(inputs, target)
            printed = _printed(row.cells[column.key], column.unit)
            label = f"{row.label}, {claims.task_name(row.task)}" if row.task else row.label
            yield from _readings_of(inputs, label, column, target, printed)


def _readings_of(
    inputs: Inputs, label: str, column: published.Column, target: Target, printed: Number | None
) -> Iterator[Line]:
    """Compare one number, by both definitions of its metric where the paper does not say which."""
    yield _line(inputs, label, column, target, printed)
    if other := OTHER_READING.get(str(target.metric)):
        line = _line(inputs, label, column, replace(target, metric=other), printed)
        yield replace(line, other_reading=True)


def _added_lines(inputs: Inputs, paper: published.Table) -> Iterator[Line]:
    """Yield rows of ours that the paper does not have, one for each task that its rows name."""
    methods = (CONTROL, *ADDED) if paper.number == BOUNDS_TABLE else (CONTROL,)
    forms = MIB_FORMS if any(row.method == MIB for row in paper.rows) else ()
    for method in (*methods, *forms):
        for task in dict.fromkeys(row.task for row in paper.rows):
            place = f", {claims.task_name(task)}" if task else ""
            label = f"{claims.method_name(method)}{place} (added here)"
            for column in paper.columns:
                target = Target(column.task or task, method, column.metric, column.eta)
                if method in forms and str(target.task) not in inputs.unchosen_forms:
                    continue
                if target.task in inputs.params.tasks and target.eta is None:
                    readings = _readings_of(inputs, label, column, target, None)
                    yield from (line for line in readings if line.ours)


def _line(
    inputs: Inputs, label: str, column: published.Column, target: Target, printed: Number | None
) -> Line:
    """Compare one number; rows of ours have no published one."""
    if target.metric == TIMED:
        ours, source = _timed(inputs, target), paths.TIMING.as_posix()
    elif str(target.metric).startswith(PROBED):
        ours, source = _probed(inputs, target), paths.PROBE.as_posix()
    else:
        ours, source = _measured(inputs, target, column.unit)
    line = Line(label, column.key, target, column.unit, printed, ours, Verdict.NOT_RUN)
    if ours is None:
        return replace(line, reason=_why(inputs, target))
    return replace(line, verdict=_verdict(inputs, target, printed, ours), source=source)


def _measured(inputs: Inputs, target: Target, unit: str) -> tuple[Number | None, str]:
    """Return the mean over runs, and the folder of the records."""
    method, results = str(target.method), inputs.results
    if target.eta is None:
        runs = results.of(target.task, method)
    else:
        studied = target.task == inputs.params.sensitivity.task
        runs = results.at_eta(method, target.eta) if studied else ()
    return mean_of(runs, str(target.metric), unit), records.folder(runs)


def mean_of(runs: Sequence[Record], metric: str, unit: str = "percent") -> Number | None:
    """Return the mean of a metric over runs; None where no run defines it."""
    return table.mean(records.summary(runs, metric, unit), unit)


def mean_of_defined(values: Iterable[float | None], unit: str) -> Number | None:
    """Return the mean in a unit of those values of a metric that are defined; None of none."""
    numbers = [records.SCALES.get(unit, 1.0) * one for one in values if one is not None]
    if not numbers:
        return None
    return table.mean(stats.summary(numbers, records.RANGES.get(unit, stats.UNBOUNDED)), unit)


def _timed(inputs: Inputs, target: Target) -> Number | None:
    """Return median minutes an epoch with quartiles."""
    measured = inputs.timing.get("methods", {}).get(target.method)
    if measured is None or inputs.timing["task"] != target.task:
        return None
    median, low, high = (measured[name] / 60 for name in ("median", "low", "high"))
    return Number(median, "minutes", low=low, high=high)


def _probed(inputs: Inputs, target: Target) -> Number | None:
    """Return the mAUC of one encoder alone."""
    metric, _, modality = str(target.metric).partition("/")
    known = inputs.probe if inputs.results.of(target.task, target.method) else ()
    own = [row for row in known if (row["method"], row["modality"]) == (target.method, modality)]
    return mean_of_defined((row["metrics"][metric] for row in own), "percent")


def _verdict(inputs: Inputs, target: Target, printed: Number | None, ours: Number) -> Verdict:
    if printed is None:
        return Verdict.CONTROL
    if inputs.results.is_twin(target.task):
        return Verdict.TWIN
    if target.metric == TIMED:
        return Verdict.DEVICE
    if ours.low is None or ours.high is None:
        return Verdict.ONE_RUN
    return Verdict.INSIDE if ours.low <= printed.value <= ours.high else Verdict.OUTSIDE


def _why(inputs: Inputs, target: Target) -> str:
    """Return why there is no number."""
    task, method = str(target.task), str(target.method)
    if absent := inputs.absent(task):
        return absent
    if target.metric == TIMED:
        return "not run: not timed in this profile"
    if target.eta is not None:
        return inputs.results.why(task, method, target.eta)
    if method == MIB:
        none_chosen = task in inputs.unchosen_forms
        return NO_FORM if none_chosen else inputs.results.why(task, MIB_FORMS[0])
    if not inputs.results.of(task, method):
        return inputs.results.why(task, method)
    if str(target.metric).startswith(PROBED):
        return "not run: not probed in this profile"
    return f"not run: {target.metric} is undefined in every run"


def _printed(cell: published.Cell, unit: str) -> Number:
    # the paper prints nats with three digits; ours need four to show anything
    mark = Mark.BEST if cell.best else Mark.SECOND if cell.second else Mark.NONE
    return Number(cell.value, "fraction" if unit == "nats" else unit, cell.sd, mark=mark)


def _marked(lines: Sequence[Line]) -> list[Line]:
    """Mark our best and second best number of every measure, over the paper's rows."""
    measures: dict[tuple[str | None, str | None], list[int]] = {}
    for place, line in enumerate(lines):
        measures.setdefault((line.target.task, line.target.metric), []).append(place)
    marked = list(lines)
    for (_, metric), places in measures.items():
        lower = str(metric).startswith(audit.LOWER_IS_BETTER)
        if lines[places[0]].target.eta is not None:  # one method at several etas
            continue
        numbers = table.mark([lines[place].ours for place in places], lower_is_better=lower)
        for place, number in zip(places, numbers, strict=True):
            marked[place] = replace(lines[place], ours=number)
    return marked


def _with_best_form(inputs: Inputs, target: Target) -> Target:
    """Let MIB's row show its best form."""
    if target.method != MIB:
        return target
    return replace(target, method=inputs.best_forms.get(str(target.task), MIB))


# --- arranged as the paper does ------------------------------------------------------------------


def _columns(paper: published.Table, lines: Sequence[Line]) -> tuple[Column, ...]:
    used = {line.column for line in lines}
    columns = [Column(paper.row_header)]
    for column in paper.columns:
        if column.key in used:
            unit = formatting.NAMES.get(column.unit, "")
            said = not unit or "(" in column.label or unit in column.label.lower()
            group = column.label if said else f"{column.label} ({unit})"
            columns += [Column(reading, group) for reading in _readings(column)]
    return tuple(columns)


def _readings(column: published.Column) -> tuple[str, ...]:
    two = column.metric in OTHER_READING
    return ("paper", "ours", "ours, zero counted") if two else ("paper", "ours")


def _pivot(params: Params, paper: published.Table, lines: Sequence[Line]) -> Iterator[Row]:
    """Yield a row for every label, its numbers in the order of the columns."""
    used = {line.column for line in lines}
    cells = {(line.row, line.column, line.other_reading): line for line in lines}
    for label in dict.fromkeys(line.row for line in lines):
        methods = {line.target.method for line in lines if line.row == label}
        known = " (known from its abstract only)" if methods <= set(ABSTRACT_ONLY) else ""
        values: list[Value] = [label + known]
        for column in paper.columns:
            if column.key in used:
                line = cells.get((label, column.key, False))
                values += [line.published if line else None, _shown(params, line)]
                if column.metric in OTHER_READING:
                    values.append(_shown(params, cells.get((label, column.key, True))))
        yield Row(tuple(values), ours=methods == {OURS})


def _shown(params: Params, line: Line | None) -> Value:
    """Return our number with its verdict, or `not run`."""
    if line is None:
        return None
    if line.ours is None:
        return line.reason.partition(":")[0]
    told = (Verdict.INSIDE, Verdict.OUTSIDE, Verdict.DEVICE, Verdict.ONE_RUN)
    words = [line.verdict.value] if line.verdict in told else []
    if line.ours.n not in (None, params.seeds):
        words.append(f"n = {line.ours.n}")
    return replace(line.ours, note=", ".join(words))


def _reasons(lines: Sequence[Line]) -> list[str]:
    """Say why numbers are missing, once for each reason."""
    counts = Counter(line.reason for line in lines if line.reason)
    return [f"{count} of {len(lines)} numbers: {reason}" for reason, count in counts.items()]


# --- notes ---------------------------------------------------------------------------------------


def _notes(inputs: Inputs, paper: published.Table, tasks: Sequence[str]) -> Iterator[str]:
    """Yield what a reader must know of some rows and columns."""
    ours = [target for target in targets(paper) if target.task in inputs.params.tasks]
    methods = {target.method for target in ours}
    for task in tasks:
        yield from _label_notes(inputs, task)
        if paper.number == IB_TABLE:
            yield from _bound_notes(inputs, task)
    if paper.number == IB_TABLE and ours:
        yield (
            "Ours: joint tables are averaged over the test split, losses over labels. The paper's "
            "section 3.1 speaks of training data."
        )
    yield from inputs.left_out(tasks)
    yield from _turn_notes(inputs, tasks)
    if ours and paper.number != ETA_TABLE:
        yield "Our best and second best are marked among the paper's rows only."
    if MIB in methods:
        yield from _form_notes(inputs, tasks)
    if any(target.metric in OTHER_READING for target in ours):
        yield (
            "The paper does not say which definition of Acc-2 and F1 it uses. Ours leave out "
            "utterances of score 0, or (zero counted) count them as positive."
        )
    if methods & set(ABSTRACT_ONLY):
        yield ABSTRACTS
    if inputs.timing and any(target.metric == TIMED for target in ours):
        yield timing_note(inputs.timing, methods)
    if any(str(target.metric).startswith(PROBED) for target in ours):
        yield (
            "One encoder alone: a logistic regression on its frozen output; its regularisation is "
            "chosen on held-out groups of the training split."
        )
        if CONTROL not in inputs.params.probe.methods:
            yield f"{claims.method_name(CONTROL)} is not probed in this profile."


def _form_notes(inputs: Inputs, tasks: Sequence[str]) -> Iterator[str]:
    """Say which form of MIB its row shows on each task."""
    best = inputs.best_forms
    chosen = ", ".join(
        f"{claims.task_name(t)}: {claims.method_name(best[t])}" for t in tasks if t in best
    )
    if chosen:
        yield (
            f"MIB is the form (E-, L- or C-MIB) with the best cross-validation score ({chosen}); "
            "the paper reports the best of the three."
        )
    if unchosen := [claims.task_name(t) for t in tasks if t in inputs.unchosen_forms]:
        yield (
            f"{', '.join(unchosen)}: training data gives no score, so no form of MIB is chosen. "
            "The paper prints the best of the three; ours have a row each, without a verdict."
        )


def _turn_notes(inputs: Inputs, tasks: Iterable[str]) -> Iterator[str]:
    """Say on which tasks runs differ by more than their start, because nothing can be tuned."""
    for task in tasks:
        runs = [run for own in inputs.results.of_task(task).values() for run in own]
        if len(fairness.points_in_turn(runs)) > 1:
            yield (
                f"{claims.task_name(task)}: nothing in train shows which setting is good. Run k of "
                "every method takes the next point of learning rate and weight decay, at the "
                "middle eta, so ± and intervals hold the spread over these points."
            )


def timing_note(timing: Mapping[str, Any], methods: Collection[str | None]) -> str:
    """Say how times were measured.

    Args:
        methods: those that the table has.
    """
    club = (
        " CLUB is computed by moments; its published form over all pairs gives the same value and "
        "takes longer (docs/performance.md)."
    )
    return (
        f"Times: median and quartiles of {timing['rounds']} epochs after warm-up, all methods in "
        f"turn in one process on {timing['device']} with "
        f"{formatting.plural(timing['threads'], 'thread')}; an epoch includes the refresh of "
        f"centroids and Q.{club if 'ibma_club' in methods else ''}"
    )


def _label_notes(inputs: Inputs, task: str) -> Iterator[str]:
    """Say how many labels of a multi-label task have an AUC on its test split."""
    runs = [run for own in inputs.results.of_task(task).values() for run in own]
    found = sorted({n for run in runs if (n := run.metrics.get("mauc_defined")) is not None})
    if found:
        counts = ", ".join(f"{count:.0f}" for count in found)
        name = claims.task_name(task)
        yield f"{name}: mAUC is the mean over the {counts} labels that have both classes in test."


def _bound_notes(inputs: Inputs, task: str) -> Iterator[str]:
    """Say how large IBB itself is, and which part of it no training moves."""
    runs = [run for run in inputs.results.of(task, OURS) if run.params.get("eta")]
    terms = sorted({name for run in runs for name in run.history if name.startswith("ibb/")})
    constants = sorted({name for run in runs for name in run.ib if name.startswith("u/")})

    def listed(names: Sequence[str], prefix: str, numbers: Mapping[str, list[float]]) -> str:
        means = {name: sum(numbers[name]) / len(numbers[name]) for name in names}
        texts = {name: formatting.number(mean, "nats") for name, mean in means.items()}
        return ", ".join(f"{name.removeprefix(prefix)} {text}" for name, text in texts.items())

    last = {name: [run.history[name][-1] / run.params["eta"] for run in runs] for name in terms}
    fixed = {name: [run.ib[name] for run in runs] for name in constants}
    if terms:
        yield (
            f"{claims.task_name(task)}: IBB of IBMA in its last epoch, in nats: "
            f"{listed(terms, 'ibb/', last)}. U is a part of it that training does not change: "
            f"{listed(constants, 'u/', fixed)}. The IB losses above are plug-in estimates."
        )


# --- significance --------------------------------------------------------------------------------

TEST_COLUMNS = (
    Column("Row"),
    *(Column(name, "Paper") for name in ("opponent", "its mean", "IBMA", "p")),
    *(Column(name, "Ours") for name in ("opponent", "its mean", "IBMA", "difference")),
    *(Column(name, "Ours") for name in ("p over runs", "p after Holm", "Wilcoxon p over runs")),
    *(Column(name, "Ours") for name in ("effect size d_z over runs", "verdict")),
)


def _tests(inputs: Inputs, paper: published.Table) -> Table:
    """Tables 10 to 15: the published test and ours."""
    key = f"{paper.number:02d}"
    published_rows = [row for row in paper.rows if row.task in inputs.params.tasks]
    rows, notes, data = [], [], []
    for row in published_rows:
        tests = [test for test in inputs.tests if (test.table, test.compared.row) == (key, row.key)]
        theirs = audit.tested_opponent(inputs.paper, paper, row)
        if all(test.opponent == CONTROL for test in tests):
            rows.append(_untested(row, theirs, paper.unit))
        for test in tests:
            verdict = _test_verdict(inputs, row, test)
            rows.append(_test_row(inputs, row, theirs, test, verdict))
            data.append(_test_data(row, test, verdict))
            if test.paired.note:
                name = claims.method_name(test.rival)
                notes.append(f"{row.label}, against {name}: {test.paired.note}.")
    if published_rows:
        notes += [
            f"Holm's correction runs over {formatting.plural(len(published_rows), 'row')}, of the "
            "t-test over runs and, where records hold predictions, over test rows; so does the "
            "interval. p and Wilcoxon's p are over runs alone, as the paper's are: they show that "
            "a difference is not luck of the initialisation, not that it holds on other test rows."
        ]
    if published_rows and paper.number not in significance.OPPONENTS:
        notes.append(
            f"Our best baseline is the method of Table {paper.compares} in this profile with the "
            "best mean on test, which favours it. MIB takes part as the form that cross-validation "
            "chose, or with every form where nothing chose."
        )
    tasks = dict.fromkeys(str(row.task) for row in published_rows)
    notes += [*inputs.left_out(tasks), *_turn_notes(inputs, tasks)]
    twin = inputs.results.is_twin(*(row.task for row in published_rows))
    title = f"Table {paper.number}: {paper.title}"
    columns = TEST_COLUMNS[:-1] if twin else TEST_COLUMNS  # generated data gets no verdict
    cut = tuple(replace(row, values=row.values[: len(columns)]) for row in rows)
    return Table(
        key, title, f"In the paper: {paper.caption}", twin, columns, cut, tuple(notes), tuple(data)
    )


def _untested(row: published.Row, theirs: str, unit: str) -> Row:
    return Row((row.label, *_theirs(row, theirs, unit), *("not run",) * 3, *(None,) * 6))


def _theirs(row: published.Row, opponent: str, unit: str) -> tuple[Value, ...]:
    """Return the paper's opponent, both means and the p-value."""
    means = (_printed(row.cells[key], unit) for key in ("baseline", "ours"))
    return (opponent, *means, Number(row.cells["p_value"].value, "p"))


def _test_row(inputs: Inputs, row: published.Row, theirs: str, test: Test, verdict: Verdict) -> Row:
    unit, task = test.compared.unit, test.compared.task
    sides = [inputs.results.of(task, method) for method in (test.rival, OURS)]
    means = [mean_of(runs, test.compared.metric, unit) for runs in sides]
    nothing: tuple[Value, ...] = (None,) * 4
    paper = nothing if test.opponent == CONTROL else _theirs(row, theirs, unit)
    one = test.paired
    low, high = test.interval
    difference = Number(one.difference, unit, n=one.n, low=low, high=high, signed=True)
    p_values = [_p(p) for p in (one.p, test.holm, one.wilcoxon_p)]
    name = claims.method_name(test.rival)
    ours = (name, *means, difference, *p_values, _effect(test), verdict.value)
    return Row((row.label, *paper, *ours))


def _test_data(row: published.Row, test: Test, verdict: Verdict) -> dict[str, Scalar]:
    own: dict[str, Scalar] = {
        "row": row.label,
        "task": test.compared.task,
        "metric": test.compared.metric,
        "unit": test.compared.unit,
        "opponent": test.opponent,
        "method": test.rival,
        "published opponent": row.cells["baseline"].value,
        "published IBMA": row.cells["ours"].value,
        "published p": row.cells["p_value"].value,
    }
    return own | numbers_of(test) | {"verdict": verdict.value}


def numbers_of(test: Test | None) -> dict[str, Scalar]:
    """Return every number of a test by its name; None each where there is no test."""
    paired, total = (test.paired, test.total) if test else (None, None)
    return {
        **{name: getattr(paired, name, None) for name in Paired.__dataclass_fields__},
        **{f"total {name}": getattr(total, name, None) for name in Total.__dataclass_fields__},
        "holm": test.holm if test else None,
        "holm page": test.page if test else None,
    }


def _p(p: float | None) -> Value:
    return "undefined" if p is None else Number(p, "p")


def _effect(test: Test) -> Value:
    one = test.paired
    if one.effect is None:
        return None
    return Number(one.effect, "effect", low=one.effect_low, high=one.effect_high)


def _test_verdict(inputs: Inputs, row: published.Row, test: Test) -> Verdict:
    """Compare the direction of a difference with the published one, where one is shown."""
    if inputs.results.is_twin(test.compared.task):
        return Verdict.TWIN
    if test.opponent == CONTROL:
        return Verdict.CONTROL
    if test.holm is None:
        return Verdict.NO_TEST
    if test.holm >= significance.ALPHA:
        return Verdict.EQUAL
    gap = row.cells["ours"].value - row.cells["baseline"].value
    return Verdict.SAME if test.paired.difference * gap > 0 else Verdict.OPPOSITE


# --- audit ---------------------------------------------------------------------------------------


def _audit(inputs: Inputs) -> Table:
    """Arrange what stage `audit` says about the paper's own numbers; no number of ours is in it."""
    return Table(
        "audit",
        "Audit of the published tables",
        "Do the numbers that the paper prints agree with each other? "
        + audit.summary(inputs.checks),
        False,
        tuple(Column(name) for name in audit.COLUMNS),
        tuple(Row(tuple(vars(check).values())) for check in inputs.checks),
        (
            "A printed number means every value that rounds to it; a check fails only if no such "
            "values fit.",
            "p-values: with the printed means, sds and n = 10 a p-value says how paired runs are "
            "correlated; the range is over the rounding of all numbers. A range below 0 or above "
            f"{audit.VERY_HIGH} is named, one above {audit.HIGH} fails.",
            "Table 1 is compared with the official releases, as the data set cards give them.",
        ),
    )
