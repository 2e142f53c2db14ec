"""Tables by declaration: what `published.yaml` prints beside what the records hold.

A table is a list of lines, one per published cell and one per control row, each with the published
number, ours, how far apart they are, how sure we are and where ours came from. Every writer prints
the same strings.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ibma import datasets
from ibma.datasets import Card
from ibma.files import read_json
from ibma.paper import audit, published
from ibma.paper.audit import Check
from ibma.params import Params
from ibma.report import formatting
from ibma.results import records, significance, stats
from ibma.results.records import Cells, of_task, values
from ibma.results.significance import CONTROL, OURS
from ibma.training.record import Record

METRIC_TABLES = (2, 3, 4, 5, 6, 7, 8, 9, 16)
TIMED = "minutes_per_epoch"  # the metric that stage `timing` measures, not the records
PROBED = "mauc/"  # metrics that stage `probe` measures: mAUC of one encoder alone
MIB, MIB_FORMS = "mib", ("mib_e", "mib_l", "mib_c")  # the paper prints the best of the three
OTHER_READING = {"acc2": "acc2_has0", "f1": "f1_has0"}
MARKS = BEST, SECOND = " (best)", " (second)"  # at the end of a number, as CSV has them
OUR_READING = {"mmib": "MMIB", "dclf": "DCLF"}  # methods that only their abstract tells of
ADDED = {  # rows of ours in the paper's tables: method -> label
    "ibma_plugin": "Plug-in IB in IBMA, against running marginals (ours)",
    "ibma_code": "the bound of the authors' released code (ours)",
}

VERDICTS = {
    "inside": "the published value lies in our 95 % interval",
    "outside": "the published value lies outside our 95 % interval",
    "direction holds": "the difference has the published sign",
    "direction fails": "the difference has not the published sign",
    "no verdict: TWIN": "generated data cannot judge a number about real data",
    "control": "a row of ours that the paper does not have",
    "no verdict: another device": "times of different machines do not compare",
    "no verdict: one run": "one run has no interval",
    "not run": "no number: the reason stands behind it",
}


@dataclass(frozen=True)
class Line:
    """One number of a table, as it is printed everywhere."""

    row: str
    measure: str
    published: str
    ours: str
    n: str
    difference: str
    interval: str
    verdict: str
    records: str  # folder of the records, or empty


COLUMNS = (
    "Row",
    "Measure",
    "Published",
    "Ours (mean, sd)",
    "n",
    "Difference",
    "95 % interval",
    "Verdict",
    "Records",
)
SIZE_COLUMNS = (
    "Data set",
    "Measure",
    "Published",
    "Official release",
    "Ours",
    "Difference",
    "Dropped",
    "Remark",
)


@dataclass(frozen=True)
class SizeLine:
    """One count of Table 1, as it is printed everywhere."""

    row: str
    measure: str
    published: str
    official: str
    ours: str
    difference: str
    dropped: str
    remark: str


AnyLine = Line | SizeLine | Check | tuple[str, ...]


@dataclass(frozen=True)
class ReportTable:
    """A table of the report; twin says whether generated data made any number in it."""

    key: str
    title: str
    caption: str
    unit: str
    twin: bool
    lines: tuple[AnyLine, ...]
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = COLUMNS

    @property
    def name(self) -> str:
        """What its files are called, without their endings."""
        return f"table_{self.key}" if self.key.isdigit() else self.key

    @property
    def heading(self) -> str:
        """The title with its mark."""
        return f"{self.title} (TWIN)" if self.twin else self.title

    @property
    def legend(self) -> str:
        """What its numbers are in, and what bold and underlined mean."""
        if self.columns != COLUMNS:
            return f"Unit: {self.unit}."
        words = f"Unit: {self.unit}; sd: sample standard deviation over seeds."
        if any(cell.endswith(MARKS) for line in self.lines for cell in cells_of(line)):
            words += (
                " Best (bold) and second best (underlined) of each measure among the paper's rows, "
                "of the published numbers and of ours."
            )
        return words


@dataclass(frozen=True)
class Found:
    """What the stages left behind, beside the records of the grid.

    forms: `best_forms`. timed, probed: what stages `timing` and `probe` wrote, empty when they have
    not run. etas: `records.at_etas`. missing: task -> why it has no features.
    """

    here: Cells
    forms: Mapping[str, str]
    timed: Mapping[str, Any]
    probed: Sequence[Mapping[str, Any]]
    etas: Mapping[float, Sequence[Record]]
    missing: Mapping[str, str]


def build(params: Params, root: Path) -> list[ReportTable]:
    """Every table of the report, in order."""
    paper = published.load()
    tests = significance.stored(root)
    found = Found(
        here=records.cells(params, root),
        forms=best_forms(params, root),
        timed=read_json(root / "data/timing.json", {}),
        probed=read_json(root / "data/probe.json", []),
        etas=records.at_etas(params, root),
        missing={task: why for task in params.tasks if (why := _not_run(_meta(root, task)))},
    )
    metrics = {n: _metrics(params, found, paper.table(n)) for n in METRIC_TABLES}
    tested = {n: _tests(params, found.here, paper.table(n), tests) for n in significance.TABLES}
    return [
        _sizes(params, root, paper),
        *(table for _, table in sorted({**metrics, **tested}.items())),
        _audit(root),
    ]


# --- Table 1 -------------------------------------------------------------------------------------


def _sizes(params: Params, root: Path, paper: published.Published) -> ReportTable:
    """Table 1: every data set of the paper, then the profile's others."""
    table = paper.table(1)
    printed = {row.key: row for row in table.rows}
    tasks_of: dict[str, list[str]] = {}
    for task, entry in params.tasks.items():
        tasks_of.setdefault(entry["dataset"], []).append(task)
    metas = {name: _meta(root, tasks[0]) for name, tasks in tasks_of.items()}
    lines: list[SizeLine] = []
    notes: list[str] = []
    for name in dict.fromkeys((*printed, *tasks_of)):
        card, meta = datasets.load(name).CARD, metas.get(name)
        cells_ = printed[name].cells if name in printed else {}
        why = _not_run(meta) if name in tasks_of else "not run: not in this profile"
        lines += _size_lines(card, meta, cells_, why)
        if meta and meta.get("folds"):
            notes.append(
                f"{card.title}: run k tests on fold k mod {meta['folds']}; sizes of run 0."
            )
        notes += [f"{card.title}: {note}" for note in card.notes]
    twin = any(meta and meta.get("source") == "twin" for meta in metas.values())
    return ReportTable(
        "01",
        "Table 1: " + table.title,
        table.caption,
        "count",
        twin,
        tuple(lines),
        tuple(notes),
        SIZE_COLUMNS,
    )


def _size_lines(
    card: Card, meta: Mapping[str, Any] | None, printed: Mapping[str, published.Cell], why: str
) -> Iterator[SizeLine]:
    """Classes, training and test size of one data set; ours are of run 0 where there are folds."""
    official = {
        "classes": len(card.classes),
        "train": card.official.train,
        "test": card.official.test,
    }
    ours: dict[str, int] = {}
    if meta and not why:
        ours = {"classes": len(meta["classes"])} | _split_sizes(meta)
    twin = meta is not None and meta.get("source") == "twin"
    for measure in official:
        paper = printed[measure].value if measure in printed else None
        count = ours.get(measure)
        apart = None if twin or paper is None or count is None else count - paper
        yield SizeLine(
            card.title,
            measure,
            _count(paper),
            _count(official[measure]),
            _count(count),
            "" if apart is None else f"{apart:+,.0f}",
            str(meta["dropped"]) if meta and ours and measure == "train" else "",
            why or ("TWIN" if twin else ""),
        )


def _not_run(meta: Mapping[str, Any] | None) -> str:
    """Why a task has no features; empty when it has."""
    if meta is None:
        return "not run: no features"
    return f"not run: {meta['missing']}" if "missing" in meta else ""


def _count(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"


def _split_sizes(meta: Mapping[str, Any]) -> dict[str, int]:
    """Training and test size of run 0, which tests on fold 0 where there is no fixed split."""
    counts = meta["counts"]
    test = counts.get("fold0" if meta["folds"] else "test", 0)
    return {"train": sum(counts.values()) - test - counts.get("valid", 0), "test": test}


def _meta(root: Path, task: str) -> dict[str, Any] | None:
    meta: dict[str, Any] | None = read_json(root / "data/features" / task / "meta.json", None)
    return meta


# --- tables of metrics ---------------------------------------------------------------------------


def _metrics(params: Params, found: Found, table: published.Table) -> ReportTable:
    """A table whose cells are metrics of (task, method); rows of other tasks are left out."""
    compared: list[tuple[published.Target, Line]] = []
    for row in table.rows:
        for column in table.columns:
            target = table.target(row.key, column.key)
            if target.task not in params.tasks or column.key not in row.cells:
                continue
            target = _of_best_form(target, found.forms)
            printed = row.cells[column.key]
            if target.metric == TIMED:
                line = _time_line(found.timed, row.label, column, target, printed)
            else:
                line = _metric_line(found, row.label, column, target, printed)
            compared.append((target, line))
            if target.metric in OTHER_READING:
                column, target = _other_reading(column, target)
                line = _metric_line(found, row.label, column, target, printed)
                compared.append((target, line))
    lines = list(_marked(compared))
    controls = {CONTROL: "CE3: IBMA's network without a bound (control)"}
    if table.number == 6:
        controls |= ADDED
    for method, label in controls.items():
        for task, column in dict.fromkeys((str(t.task), c) for t, c in _targets(table)):
            lines += _control_lines(found.here, found.timed, label, method, task, column)
    tasks = dict.fromkeys(target.task for target, _ in _targets(table))
    twin = any(r.source == "twin" for task in tasks for r in of_task(found.here, task))
    notes = [f"{task}: {why}" for task, why in found.missing.items() if task in tasks]
    notes += [note for task in tasks for note in _label_notes(found.here, task)]
    if table.number == 5:
        notes += [note for task in tasks for note in _bound_notes(found.here, str(task))]
    notes += _method_notes(params, table, found)
    return ReportTable(
        f"{table.number:02d}",
        f"Table {table.number}: {table.title}",
        table.caption,
        table.unit,
        twin,
        tuple(lines),
        tuple(notes),
    )


def _marked(compared: Sequence[tuple[published.Target, Line]]) -> Iterator[Line]:
    """Mark our best and second best number of every measure, as the paper marks its own.

    Compared are our numbers in the rows of the paper, as they are printed: equal ones share their
    mark. A measure with fewer than two different numbers has no mark. Rows of ours (controls) are
    not among `compared`: the paper does not have them, so they neither get nor take a mark.
    """
    numbers: dict[tuple[str | None, str | None], set[float]] = {}
    for target, line in compared:
        if line.ours:
            numbers.setdefault((target.task, target.metric), set()).add(_leading(line.ours))
    for target, line in compared:
        lower = str(target.metric).startswith(audit.LOWER_IS_BETTER)
        ranked = sorted(numbers.get((target.task, target.metric), ()), reverse=not lower)
        mark = ""
        if line.ours and len(ranked) > 1:
            mark = dict(zip(ranked, MARKS, strict=False)).get(_leading(line.ours), "")
        yield replace(line, ours=line.ours + mark)


def _leading(ours: str) -> float:
    """The mean or median that a printed number of ours begins with."""
    return float(ours.split()[0])


def _other_reading(
    column: published.Column, target: published.Target
) -> tuple[published.Column, published.Target]:
    """The same column with scores of zero counted as not negative, not left out."""
    metric = OTHER_READING[str(target.metric)]
    label = f"{column.label}, zero counted"
    return replace(column, label=label, metric=metric), replace(target, metric=metric)


def best_forms(params: Params, root: Path) -> dict[str, str]:
    """Task -> the form of MIB with the best five-fold score inside train (never on test)."""
    best = {}
    for task in params.tasks:
        scores = {}
        for form in MIB_FORMS:
            tuned = read_json(root / "data/tune" / task / f"{form}.json", None)
            if tuned:  # empty where the task's data is not here
                scores[form] = sum(choice["score"] or 0.0 for choice in tuned["choices"])
        if scores:
            best[task] = max(scores, key=lambda form: scores[form])
    return best


def _of_best_form(target: published.Target, forms: Mapping[str, str]) -> published.Target:
    """MIB's row shows its best form."""
    if target.method != MIB:
        return target
    return replace(target, method=forms.get(str(target.task), MIB_FORMS[0]))


def _time_line(
    timed: Mapping[str, Any],
    row: str,
    column: published.Column,
    target: published.Target,
    printed: published.Cell | None,
) -> Line:
    """Median minutes per epoch with quartiles; the method in `target` may be a control's."""
    measure = _measure(target.task, column.label)
    shown = "" if printed is None else _printed(printed, "minutes")
    found = (
        timed.get("methods", {}).get(target.method) if timed.get("task") == target.task else None
    )
    if found is None:
        return Line(row, measure, shown, "", "", "", "", "not run: not timed in this profile", "")
    median, low, high = (found[name] / 60.0 for name in ("median", "low", "high"))
    twin = timed["source"] == "twin"
    verdict = "no verdict: TWIN" if twin else "no verdict: another device"
    return Line(
        row,
        measure,
        shown,
        f"{median:.5f} ({low:.5f} to {high:.5f})",
        str(timed["rounds"]),
        "",
        "",
        "control" if printed is None else verdict,
        "data/timing.json",
    )


def _control_lines(
    here: Cells,
    timed: Mapping[str, Any],
    label: str,
    method: str,
    task: str,
    column: published.Column,
) -> list[Line]:
    """A row of ours under one column of the paper; nothing where there is no record."""
    if column.metric == TIMED:
        target = published.Target(task, method, TIMED, None)
        line = _time_line(timed, label, column, target, None)
        return [line] if line.ours else []
    found = values(here.get((task, method), ()), str(column.metric), column.unit)
    if not found or column.eta is not None:
        return []
    ours = stats.summary(found)
    printed = formatting.mean_sd(ours, column.unit)
    interval = formatting.interval(ours.low, ours.high, column.unit)
    measure, records = _measure(task, column.label), f"runs/{task}/{method}"
    return [Line(label, measure, "", printed, str(ours.n), "", interval, "control", records)]


def _method_notes(params: Params, table: published.Table, found: Found) -> Iterator[str]:
    """What a reader must know of some rows."""
    targets = [target for target, _ in _targets(table) if target.task in params.tasks]
    methods = {target.method for target in targets}
    if MIB in methods:
        mine = dict.fromkeys(str(target.task) for target in targets)
        chosen = ", ".join(f"{t}: {found.forms[t]}" for t in mine if t in found.forms)
        yield f"MIB is the best of E-, L- and C-MIB by the five-fold score inside train ({chosen})."
    if any(target.metric in OTHER_READING for target in targets):
        yield (
            "Acc-2 and F1 come in two readings and the paper does not say which: utterances of "
            "score 0 left out, or (zero counted) negative against the rest."
        )
    for method, name in OUR_READING.items():
        if method in methods:
            yield f"{name} is our reading of its abstract; no code or text was to be had."
    timed = found.timed
    if timed and any(target.metric == TIMED for target in targets):
        yield (
            f"Times: median and quartiles of {timed['rounds']} epochs after warm-up, all methods "
            f"in turn in one process on {timed['device']} with {timed['threads']} thread(s); one "
            "epoch includes the refresh of centroids and Q."
        )
    if any(str(target.metric).startswith(PROBED) for target in targets):
        yield (
            "One encoder alone: a logistic regression on its frozen output, its strength chosen on "
            "held-out groups of train."
        )


def _label_notes(here: Cells, task: str | None) -> Iterator[str]:
    """How many labels of a multi-label task have an AUC on its test split."""
    found = {one.metrics.get("mauc_defined") for one in of_task(here, task)} - {None}
    if found:
        counts = ", ".join(f"{count:.0f}" for count in sorted(found))  # type: ignore[type-var]
        yield f"{task}: mAUC is the mean over the {counts} labels that have both classes in test."


def _bound_notes(here: Cells, task: str) -> Iterator[str]:
    """IBB itself beside the plug-in IB losses, and the part of it that no training moves."""
    records = [one for one in here.get((task, OURS), ()) if one.params.get("eta")]
    terms = sorted({name for one in records for name in one.history if name.startswith("ibb/")})
    last = {name: [r.history[name][-1] / r.params["eta"] for r in records] for name in terms}
    shown = [f"{name.removeprefix('ibb/')} {_mean(values_)}" for name, values_ in last.items()]
    fixed = sorted({name for one in records for name in one.ib if name.startswith("u/")})
    constant = [
        f"{name.removeprefix('u/')} {_mean([one.ib[name] for one in records])}" for name in fixed
    ]
    if shown:
        yield (
            f"{task}: IBB of IBMA in its last epoch, in nats: {', '.join(shown)}; of it U, which "
            f"no training moves: {', '.join(constant)}. The IB losses are plug-in estimates."
        )


def _mean(numbers: Sequence[float]) -> str:
    return f"{sum(numbers) / len(numbers):.4f}"


def _targets(table: published.Table) -> Iterator[tuple[published.Target, published.Column]]:
    for row in table.rows:
        for column in table.columns:
            yield table.target(row.key, column.key), column


def _metric_line(
    found: Found,
    row: str,
    column: published.Column,
    target: published.Target,
    printed: published.Cell,
) -> Line:
    task, method = str(target.task), str(target.method)
    measure, shown = _measure(task, column.label), _printed(printed, column.unit)
    records = list(found.here.get((task, method), ()))
    folder = f"runs/{task}/{method}"
    numbers = values(records, str(target.metric), column.unit)
    if target.eta is not None:
        records = list(found.etas.get(target.eta, ()))
        folder += f"_eta_{target.eta:g}"
        numbers = values(records, str(target.metric), column.unit)
    elif str(target.metric).startswith(PROBED):
        numbers = _probed(found.probed, method, str(target.metric))
        folder = "data/probe.json"
    if not numbers or not records:
        return Line(row, measure, shown, "", "", "", "", _why(found, task, method, target), "")
    ours = stats.summary(numbers)
    verdict = "no verdict: TWIN" if records[0].source == "twin" else _inside(printed.value, ours)
    difference = formatting.number(ours.mean - printed.value, column.unit, sign=True)
    return Line(
        row,
        measure,
        shown,
        formatting.mean_sd(ours, column.unit),
        str(ours.n),
        difference,
        formatting.interval(ours.low, ours.high, column.unit),
        verdict,
        folder,
    )


def _probed(rows: Sequence[Mapping[str, Any]], method: str, metric: str) -> list[float]:
    """Percent over seeds of `mauc/<modality>`, from the rows of stage `probe`."""
    name, _, modality = metric.partition("/")
    mine = [row for row in rows if (row["method"], row["modality"]) == (method, modality)]
    return [100 * row["metrics"][name] for row in mine if row["metrics"][name] is not None]


def _why(found: Found, task: str, method: str, target: published.Target) -> str:
    if task in found.missing:
        return found.missing[task]
    if (task, method) not in found.here:
        return f"not run: no method {method} in this profile"
    if target.eta is not None:
        return "not run: no record at this eta"
    if str(target.metric).startswith(PROBED):
        return "not run: not probed in this profile"
    if found.here[task, method]:
        return f"not run: {target.metric} is undefined in every run"
    return "not run: no record"


def _inside(printed: float, ours: stats.Summary) -> str:
    if ours.low is None or ours.high is None:
        return "no verdict: one run"
    return "inside" if ours.low <= printed <= ours.high else "outside"


# --- significance --------------------------------------------------------------------------------


def _tests(
    params: Params, here: Cells, table: published.Table, tests: Sequence[Mapping[str, Any]]
) -> ReportTable:
    """Tables 10 to 15: baseline, ours and p beside the published ones."""
    key = f"{table.number:02d}"
    mine = [test for test in tests if test["table"] == key and _is_behind(test, here)]
    lines, notes = [], []
    for row in table.rows:
        if row.task not in params.tasks:
            continue
        of_row = {test["opponent"]: test for test in mine if test["row"] == row.key}
        control = of_row.pop(CONTROL, None)
        if not of_row:
            lines.append(_untested(row))
        for test in of_row.values():
            lines += _test_lines(here, table, row, test)
            notes.append(_test_note(row.label, test))
        if control:
            notes.append(_test_note(f"{row.label}, the control", control))
    twin = any(r.source == "twin" for row in table.rows for r in of_task(here, row.task))
    notes.append(
        f"Holm's correction runs over the {sum(row.task in params.tasks for row in table.rows)} "
        "row(s) of this table. Pairing seeds on one test set shows that a difference is not luck "
        "of the initialisation; it cannot show that it would hold on another test set."
    )
    return ReportTable(
        key,
        f"Table {table.number}: {table.title}",
        table.caption,
        table.unit,
        twin,
        tuple(lines),
        tuple(notes),
    )


def _is_behind(test: Mapping[str, Any], here: Cells) -> bool:
    """Whether the records that a test was made of are still there."""
    return all(here.get((test["task"], method)) for method in (test["baseline"], OURS))


def _untested(row: published.Row) -> Line:
    shown = f"{row.cells['p_value'].value:.1e}"
    return Line(row.label, "p-value", shown, "", "", "", "", "not run: no pair of records", "")


def _test_lines(
    here: Cells, table: published.Table, row: published.Row, test: Mapping[str, Any]
) -> Iterator[Line]:
    unit = table.unit
    for key, method in (("baseline", test["baseline"]), ("ours", OURS)):
        ours = stats.summary(values(here[str(row.task), method], test["metric"], unit))
        yield Line(
            row.label,
            f"{method} ({test['metric']}, {unit})",
            _number(row.cells[key], unit),
            formatting.mean_sd(ours, unit),
            str(ours.n),
            "",
            formatting.interval(ours.low, ours.high, unit),
            "",
            f"runs/{row.task}/{method}",
        )
    gap = row.cells["ours"].value - row.cells["baseline"].value
    shown = "undefined" if test["p"] is None else f"p = {test['p']:.2g}"
    yield Line(
        row.label,
        "difference, paired t-test",
        f"{formatting.number(gap, unit, sign=True)}, p = {row.cells['p_value'].value:.1e}",
        shown,
        str(test["n"]),
        formatting.number(test["difference"], unit, sign=True),
        formatting.interval(test["low"], test["high"], unit),
        "direction holds" if test["difference"] * gap > 0 else "direction fails",
        "",
    )


def _test_note(label: str, test: Mapping[str, Any]) -> str:
    def number(name: str) -> str:
        return "undefined" if test.get(name) is None else f"{test[name]:.2g}"

    effect = number("effect")
    if test.get("effect_low") is not None:
        effect += f" [{number('effect_low')}, {number('effect_high')}]"
    note = (
        f"{label}, against {test['baseline']}: p after Holm {number('holm')}, Wilcoxon p "
        f"{number('wilcoxon_p')}, effect size d_z {effect}, n = {test['n']}."
    )
    return f"{note} {test['note']}".strip()


# --- audit ---------------------------------------------------------------------------------------


def _audit(root: Path) -> ReportTable:
    """What stage `audit` found in the paper's own numbers: no number of ours is in it."""
    checks = [Check(**check) for check in read_json(root / "data/audit.json", [])]
    return ReportTable(
        "audit",
        "Audit of the published tables",
        f"Do the numbers that the paper prints agree with each other? {audit.summary(checks)}",
        "as printed",
        False,
        tuple(checks),
        (
            "A printed number stands for every value that rounds to it; a check fails only if no "
            "such values fit.",
            "p-values: the printed means, sds and n = 10 allow a range of p, from correlation -1 "
            "to 1 of the paired runs; the correlation that gives the printed p stands beside it.",
        ),
        audit.COLUMNS,
    )


# --- numbers as text -----------------------------------------------------------------------------


def _measure(task: str | None, label: str) -> str:
    return f"{task}: {label}"


def _printed(cell: published.Cell, unit: str) -> str:
    """With its mark: the paper prints the best bold and the second best underlined."""
    mark = BEST if cell.best else SECOND if cell.second else ""
    return _number(cell, unit) + mark


def _number(cell: published.Cell, unit: str) -> str:
    """As the paper prints it: nats have three digits there, four here."""
    unit = "fraction" if unit == "nats" else unit
    sd = "" if cell.sd is None else f" ± {formatting.number(cell.sd, unit)}"
    return formatting.number(cell.value, unit) + sd


# --- writers -------------------------------------------------------------------------------------


def cells_of(line: AnyLine) -> tuple[str, ...]:
    """The strings of a line in the order of its table's columns."""
    if isinstance(line, tuple):
        return line
    return tuple(getattr(line, field.name) for field in fields(line))


def write_csv(table: ReportTable, path: Path) -> None:
    """One header line that carries TWIN where it applies, the column names, the lines."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f"# {table.heading}"])
        writer.writerow(table.columns)
        writer.writerows(cells_of(line) for line in table.lines)
