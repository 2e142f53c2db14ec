"""Tables on tasks that the paper does not have, and what they say about its claims.

Every method is in them: the control and the forms of IBMA are among the rivals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from ibma import datasets, paths, tables
from ibma.report import formatting, table
from ibma.report.inputs import Inputs
from ibma.report.paper_tables import ABSTRACTS, mean_of, mean_of_defined, numbers_of, timing_note
from ibma.report.table import NOT_RUN, Column, Number, Row, Scalar, Table, Value
from ibma.results import claims, fairness, records, resampling, significance, stats, studies
from ibma.results.claims import CONTROL, OURS, Claim, method_name, metric_name, task_name
from ibma.results.significance import ALPHA, Test
from ibma.training.record import Record

OMIB = "omib"  # the rival whose IB losses are shown next to IBMA's
LOGISTIC, MAJORITY = "Logistic regression", "Majority class"
CAREFUL = (
    "With few runs intervals are wide and tests are careful. In simulated studies without a "
    "difference, with 400 test rows, the t-test at 5 % found one in 2 of 100 at most (3 runs) and "
    "4 of 100 at most (5 or 10 runs)."
)
ENDS = {"range of means": "range", "range by luck": "critical"}  # rows below the etas
FOLDED = (
    "The folds share training rows. So the range by luck is wider, by the factor of Nadeau and "
    "Bengio. Friedman's test is left out: it takes runs for independent."
)
CONCAT = "concat"  # the simplest network, to which times are compared
FOLDS = (
    "run k tests on fold k mod {folds}. Two methods are compared run by run, with the same fold "
    "and seed. Runs are not independent: all of them share training samples, and runs on one fold "
    "share their test samples. Intervals of differences account for this. Intervals of means do "
    "not: they are too narrow."
)
ONE_TEST_SET = (
    "all runs have the same test samples. Two methods are compared run by run, with the same seed. "
    "Variance over runs is due to initialisation and order of samples, not to the choice of test "
    "samples."
)


class Verdict(StrEnum):
    """What a paired test says about IBMA."""

    BETTER = "IBMA better"
    WORSE = "IBMA worse"
    SAME = "equivalent"
    EQUAL = "no difference shown"
    NO_TEST = "no test"
    UNEQUAL = "no claim: unequal settings"


def build(inputs: Inputs) -> list[Table]:
    """Build the leaderboard, then every table that has a row."""
    tables = [
        _claims(inputs),
        _uncertainty(inputs),
        *(_every_metric(inputs, task) for task in inputs.beyond),
        _ib_losses(inputs),
        _at_etas(inputs),
        _tuned(inputs),
        _cost(inputs),
    ]
    return [leaderboard(inputs), *(made for made in tables if made.rows)]


# --- every method --------------------------------------------------------------------------------


def scores(inputs: Inputs, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return task -> method -> mean of the metric that the task is judged by, in percent."""
    means: dict[str, dict[str, float]] = {}
    for task in tasks:
        metric = inputs.results.headline(task)
        for method, runs in inputs.results.of_task(task).items():
            if summary := records.summary(runs, metric, "percent"):
                means.setdefault(task, {})[method] = summary.mean
    return means


def leaderboard(inputs: Inputs) -> Table:
    """Build `leaderboard`: method x task, the metric that each task is judged by, and mean ranks.

    Generated data ranks nothing: its columns have no marks, and ranks are those over real tasks.
    """
    metrics = {task: inputs.results.headline(task) for task in inputs.tasks}
    columns = {task: _column(inputs, task, metric) for task, metric in metrics.items()}
    runs_on = {task: inputs.params.methods_of(task) for task in inputs.tasks}
    means = scores(inputs, inputs.real)
    ranks = stats.mean_ranks(means) if len(means) > 1 else {}
    rows = [
        Row(
            (
                method_name(method),
                *(
                    columns[task][method] or (NOT_RUN if method in runs_on[task] else None)
                    for task in inputs.tasks
                ),
                *([Number(ranks[method], "rank") if method in ranks else None] if ranks else []),
            ),
            ours=method == OURS,
        )
        for method in sorted(
            inputs.params.methods, key=lambda method: ranks.get(method, len(ranks))
        )
    ]
    notes = ["The best and the second best of a column are marked over all its rows."]
    if any(method not in own for own in runs_on.values() for method in inputs.params.methods):
        notes.append("A cell is empty where the task has no such modality.")
    notes += inputs.left_out(inputs.tasks)
    if set(inputs.params.methods) & set(claims.ABSTRACT_ONLY):
        notes.append(ABSTRACTS)
    if ranks:
        apart = stats.critical_difference(len(ranks), len(means))
        notes.append(
            f"Ranks over {len(means)} tasks: {_friedman(means)}; ranks closer than {apart:.1f} "
            "are not shown to differ (Nemenyi, 5 %). Tasks made of one data set are not "
            "independent."
        )
    twins = {task: " (TWIN)" if task not in inputs.real else "" for task in inputs.tasks}
    groups = [
        Column(metric_name(metrics[task]), task_name(task) + twins[task]) for task in inputs.tasks
    ]
    return Table(
        "leaderboard",
        "Every method on every task",
        "The metric that each task is judged by, in percent.",
        len(inputs.real) < len(inputs.tasks),
        (Column("Method"), *groups, *([Column("Mean rank")] if ranks else [])),
        tuple(rows),
        tuple(notes),
        tuple(
            row for task, metric in metrics.items() for row in _data(task, metric, columns[task])
        ),
    )


def _data(task: str, metric: str, column: Mapping[str, Number | None]) -> list[dict[str, Scalar]]:
    """Return one column as flat rows, by the keys of records."""
    return [
        {
            "task": task,
            "method": method,
            "metric": metric,
            "mean": number.value,
            **{part: value for part, value in number.flat().items() if part not in ("", "note")},
        }
        for method, number in column.items()
        if number
    ]


def _column(inputs: Inputs, task: str, metric: str) -> dict[str, Number | None]:
    """Return method -> its number, the best two of real data marked; None where there is none."""
    methods, unit = list(inputs.params.methods), records.unit_of(metric)
    numbers = [mean_of(inputs.results.of(task, method), metric, unit) for method in methods]
    lower = metric == "mae"
    twin = inputs.results.is_twin(task)
    marked = numbers if twin else table.mark(numbers, lower_is_better=lower)
    return dict(zip(methods, marked, strict=True))


def _every_metric(inputs: Inputs, task: str) -> Table:
    """`real_<task>`: method x metric."""
    by_method = inputs.results.of_task(task)
    first = next(iter(by_method.values()))[0]
    metrics = [name for name in first.metrics if name != "mauc_defined"]
    columns = [_column(inputs, task, metric) for metric in metrics]
    rows = []
    for method in inputs.params.methods_of(task):
        runs = by_method.get(method, ())
        missing = "undefined" if runs else inputs.results.why(task, method)
        numbers: list[Value] = [column[method] or missing for column in columns]
        name, folder = method_name(method), records.folder(runs)
        rows.append(Row((name, len(runs), *numbers), folder, ours=method == OURS))
    lines = {
        LOGISTIC: _reference(inputs, task, "metrics", metrics),
        MAJORITY: _reference(inputs, task, "majority", metrics),
    }
    rows += [Row((name, *line), paths.logistic(task).as_posix()) for name, line in lines.items()]
    entry = inputs.params.tasks[task]
    card = datasets.card(tables.dataset(inputs.params, entry.dataset), entry.options)
    notes = [
        "The best and the second best of a column are marked over all its rows, the control and "
        "the forms of IBMA included.",
        f"{LOGISTIC}: scikit-learn's, on the concatenated features of all modalities; fitted once "
        "per test fold, not tuned, never marked as best.",
        f"{MAJORITY}: the answer is always the largest class of the training rows.",
        f"{task_name(task)}: {_pairing(inputs, task)}",
        *inputs.left_out([task]),
        *card.notes,
    ]
    return Table(
        f"real_{task}",
        f"{task_name(task)}: every metric of every method",
        f"{card.title}. In percent (MAE and correlation as they are), over n runs.",
        inputs.results.is_twin(task),
        (Column("Method"), Column("n"), *(Column(metric_name(metric)) for metric in metrics)),
        tuple(rows),
        tuple(notes),
        tuple(
            row
            for metric, column in zip(metrics, columns, strict=True)
            for row in _data(task, metric, column)
        )
        + tuple(
            row for name, line in lines.items() for row in _flat(task, name, metrics, line[1:])
        ),
    )


def _reference(inputs: Inputs, task: str, of: str, metrics: Sequence[str]) -> tuple[Value, ...]:
    """Return n and every metric of a reference on a task, or why it was not run.

    Args:
        of: metrics (logistic regression) or majority.
    """
    told = inputs.logistic.get(task) or {"missing": "no stage logistic"}
    if told["missing"]:
        return (0, *(f"not run: {told['missing']}" for _ in metrics))
    runs, numbers = [one[of] for one in told["runs"]], list[Value]()
    for name in metrics:
        found = (run.get(name) for run in runs)
        numbers.append(mean_of_defined(found, records.unit_of(name)) or "undefined")
    return (len(runs), *numbers)


def _flat(
    task: str, name: str, metrics: Sequence[str], numbers: Sequence[Value]
) -> list[dict[str, Scalar]]:
    """Return the numbers of a reference as rows of the CSV."""
    method = name.lower().replace(" ", "_")
    return [
        row
        for metric, number in zip(metrics, numbers, strict=True)
        if isinstance(number, Number)
        for row in _data(task, metric, {method: number})
    ]


def _pairing(inputs: Inputs, task: str) -> str:
    """Say what pairs of runs on a task can and cannot show."""
    folds = {run.fold for runs in inputs.results.of_task(task).values() for run in runs}
    return ONE_TEST_SET if folds <= {None} else FOLDS.format(folds=len(folds))


def _friedman(blocks: Mapping[Any, Mapping[Any, float]]) -> str:
    """Say what Friedman's test gives; blocks: block -> treatment -> value."""
    test = stats.friedman(blocks)
    if test is None:
        return "too few for Friedman's test"
    return f"Friedman chi2 {test.statistic:.1f}, p = {test.p:.2g}, Kendall's W {test.w:.2f}"


# --- the paper's claims --------------------------------------------------------------------------


def claim_tests(inputs: Inputs) -> dict[str, dict[str, Test]]:
    """Return opponent -> task -> test, on tasks that the paper does not have."""
    tests: dict[str, dict[str, Test]] = {claim.opponent: {} for claim in claims.CLAIMS}
    for test in inputs.tests:
        if test.table == significance.BEYOND and test.compared.task in inputs.beyond:
            tests[test.opponent][test.compared.task] = test
    return tests


def _claims(inputs: Inputs) -> Table:
    """`real_claims`: IBMA against each rival that a claim of the paper, or of ours, names."""
    tests = claim_tests(inputs)
    rows, data = [], []
    asked = [one for one in claims.CLAIMS if claims.candidates(one.opponent, inputs.params)]
    for claim in asked if inputs.beyond else ():
        by_task = tests[claim.opponent]
        said = [judge(inputs, claim.opponent, task, by_task.get(task)) for task in inputs.beyond]
        cells = [
            difference(by_task[task]) if task in by_task else why
            for task, why in zip(inputs.beyond, said, strict=True)
        ]
        rows.append(Row((claim.claim, method_name(claim.opponent), counted(said), *cells)))
        data += [
            _claim_data(inputs, claim, task, by_task.get(task)) | {"verdict": why}
            for task, why in zip(inputs.beyond, said, strict=True)
        ]
    tasks = [Column(task_name(task)) for task in inputs.beyond]
    return Table(
        "real_claims",
        "The claims, tested",
        "IBMA minus its opponent on paired runs, in points of the task's metric.",
        inputs.results.is_twin(*inputs.beyond),
        (Column("Claim"), Column("IBMA against"), Column("In sum"), *tasks),
        tuple(rows),
        (
            _what_varies(inputs),
            "p: of that t-test after Holm's correction, one family for each row. A verdict is "
            f"given at {ALPHA:.0%}; `real_uncertainty` has the correction over the whole page.",
            CAREFUL,
            f"Equivalent: no difference is shown, and TOST shows at {ALPHA:.0%}, after Holm's "
            f"correction in the same family, that it is below {significance.MARGIN:g} point, a "
            "margin fixed before. Detectable: the smallest true difference that the test finds "
            f"{stats.POWER:.0%} of the time.",
            "Unequal settings: learning rate and weight decay of the two were not chosen by the "
            "same rule from the same points. Such a difference says nothing about the methods.",
            "Where test folds share training samples the variance over runs is that of Nadeau and "
            "Bengio (Machine Learning 52, 2003). The CSV file adds means, the paired t-test and "
            "Wilcoxon's over runs alone, and effect sizes d_z.",
            "The best baseline of a task, and the best of VIB, APIB and CLUB, is the one with the "
            "best mean on test, as in the paper: that favours it. The control is not among the "
            "baselines.",
            *(["The paper's tasks have Tables 10 to 15."] if inputs.beyond != inputs.tasks else []),
            *(f"{task_name(task)}: {_pairing(inputs, task)}" for task in inputs.beyond),
            *inputs.left_out(inputs.beyond),
        ),
        tuple(data),
    )


def _what_varies(inputs: Inputs) -> str:
    """Say what the interval of a difference is over."""
    said = {test.total.se_samples is not None for test in inputs.tests if test.total}
    if said == {False}:
        return (
            "Intervals are over runs alone: these records hold no predictions, so that nothing "
            "says what other test rows would give."
        )
    return (
        "Intervals are over runs and test rows: the variance over runs plus that over test rows "
        "drawn again within their speakers, videos or patients. Other speakers, videos or patients "
        "may differ by more."
    )


def _uncertainty(inputs: Inputs) -> Table:
    """`real_uncertainty`: every claim's difference, with what makes it uncertain taken apart."""
    tests = claim_tests(inputs)
    rows = [
        Row(
            (
                method_name(claim.opponent),
                task_name(task),
                Number(one.difference, low=one.low, high=one.high, signed=True),
                *_uncertain(test),
                verdict(test).value,
            )
        )
        for claim in claims.CLAIMS
        for task, test in tests[claim.opponent].items()
        for one in [test.paired]
    ]
    measured = (
        "Over runs",
        "Over test rows",
        "Over both",
        "p",
        "Holm",
        "Holm, page",
        "TOST p",
        "TOST Holm",
    )
    headings = ("IBMA against", "Task", *measured, "Detectable", "Verdict")
    return Table(
        "real_uncertainty",
        "What the claims rest on",
        "Each difference in points and its 95 % interval over runs, over test rows, and over both.",
        inputs.results.is_twin(*inputs.beyond),
        tuple(map(Column, headings)),
        tuple(rows),
        (
            _what_varies(inputs),
            "Over runs: paired t interval. Over test rows: percentiles of "
            f"{resampling.RESAMPLES} bootstrap draws within groups, the same for all runs.",
            "p, Holm, TOST and detectable are of the interval over both. Holm: one family for each "
            "opponent, of differences and of equivalence (TOST) apart; page: all claims and tables "
            f"of this page together. TOST: that the difference is below {significance.MARGIN:g} "
            "point.",
            CAREFUL,
            *inputs.left_out(inputs.beyond),
        ),
    )


def _uncertain(test: Test) -> list[Value]:
    """Return the intervals over test rows and over both, p-values, and what could be detected."""
    total, difference = test.total, test.paired.difference
    if total is None:
        return ["undefined"] * 8
    rows: Value = "no predictions"
    if total.samples_low is not None:
        ends = total.samples_low, total.samples_high
        rows = Number(difference, low=ends[0], high=ends[1], signed=True)
    both = Number(difference, low=total.low, high=total.high, signed=True)
    p_values = (total.p, test.holm, test.page, total.equivalent_p, test.equivalent)
    return [
        rows,
        both,
        *(None if p is None else Number(p, "p") for p in p_values),
        Number(total.detectable),
    ]


def difference(test: Test) -> Number:
    """Return IBMA minus the opponent, with the verdict where a difference is shown."""
    one, said = test.paired, verdict(test)
    low, high = test.interval
    words = [formatting.p_value(test.holm)]
    if said in (Verdict.BETTER, Verdict.WORSE, Verdict.SAME):
        words.insert(0, said.removeprefix("IBMA "))
    if said in (Verdict.BETTER, Verdict.WORSE) and _within(test):
        words.append(f"within {significance.MARGIN:g} point")
    elif said == Verdict.EQUAL and test.total:
        words.append(f"detectable {formatting.number(test.total.detectable, 'percent')}")
    return Number(
        one.difference, "percent", n=one.n, low=low, high=high, signed=True, note=", ".join(words)
    )


def _claim_data(inputs: Inputs, claim: Claim, task: str, test: Test | None) -> dict[str, Scalar]:
    """Return everything that is known of one comparison; None where it was not tested."""
    metric, rival = (test.compared.metric, test.rival) if test else ("", "")
    sides = [inputs.results.of(task, method) if test else () for method in (OURS, rival)]
    ours, theirs = (records.summary(runs, metric, "percent") for runs in sides)
    return {
        "claim": claim.claim,
        "task": task,
        "opponent": claim.opponent,
        "method": rival or None,
        "metric": metric or None,
        "ibma": ours.mean if ours else None,
        "ibma sd": ours.sd if ours else None,
        "rival": theirs.mean if theirs else None,
        "rival sd": theirs.sd if theirs else None,
        **numbers_of(test),
        "holm equivalent": test.equivalent if test else None,
    }


def judge(inputs: Inputs, opponent: str, task: str, test: Test | None) -> str:
    """Return the verdict on IBMA against an opponent on a task, or why there is none."""
    if test is not None:
        return verdict(test).value
    compared = significance.Compared(task, task, inputs.results.headline(task), "percent")
    other = significance.rival(inputs.results, inputs.paper, compared, opponent)
    sides = [inputs.results.of(task, method) for method in (OURS, other)]
    unequal = all(sides) and fairness.unfair(*sides)
    return Verdict.UNEQUAL.value if unequal else NOT_RUN


def verdict(test: Test) -> Verdict:
    """Say what a paired test shows after Holm's correction."""
    if test.total is None or test.holm is None:
        return Verdict.NO_TEST
    if test.holm >= ALPHA:
        return Verdict.SAME if _within(test) else Verdict.EQUAL
    return Verdict.BETTER if test.paired.difference > 0 else Verdict.WORSE


def _within(test: Test) -> bool:
    """Return whether a difference is shown to be within the margin of equivalence."""
    return test.equivalent is not None and test.equivalent < ALPHA


def counted(verdicts: Iterable[str]) -> str:
    """Count the verdicts on some comparisons; those that were not run are left out."""
    counts = Counter(verdicts)
    del counts[NOT_RUN]
    if not counts:
        return NOT_RUN
    said = [f"{counts[v]} {v.removeprefix('IBMA ')}" for v in Verdict if counts[v]]
    return f"{', '.join(said)} of {formatting.plural(counts.total(), 'task')}"


# --- IB losses -----------------------------------------------------------------------------------


def _ib_methods(inputs: Inputs) -> list[str]:
    """List the methods whose IB losses are shown: the control, OMIB and every form of IBMA."""
    forms = {**inputs.params.train_ibma, **inputs.params.ablation, **inputs.params.bounds}
    return list(dict.fromkeys((CONTROL, OMIB, *forms)))


def _terms(runs: Sequence[Record]) -> list[str]:
    """List the plug-in IB losses of some runs; U, which no training changes, is not one."""
    names = dict.fromkeys(name for run in runs for name in run.ib)
    return [name for name in names if not name.startswith("u/")]


def _ib_losses(inputs: Inputs) -> Table:
    """`real_ib`: plug-in IB losses of the untrained and of the trained network."""
    rows = [
        Row((task_name(task), method_name(method), term, *_moved(runs, term)), records.folder(runs))
        for task in inputs.beyond
        for method in _ib_methods(inputs)
        if (runs := inputs.results.of(task, method))
        for term in _terms(runs)
    ]
    return Table(
        "real_ib",
        "Real data: IB losses before and after training",
        "Plug-in IB losses on the test features, in nats.",
        inputs.results.is_twin(*inputs.beyond),
        tuple(map(Column, ("Task", "Method", "Term", "Before", "After", "Change", "n"))),
        tuple(rows),
        (
            "Before: the same network as initialised, its batch statistics set by one pass over "
            "train.",
            "Change: interval over runs; where folds share training rows, that of Nadeau and "
            "Bengio.",
            *inputs.left_out(inputs.beyond),
        ),
    )


def _moved(runs: Sequence[Record], term: str) -> tuple[Value, ...]:
    """Return the loss before and after training, its change, and n."""
    before, after = [run.ib_before[term] for run in runs], [run.ib[term] for run in runs]
    changes = [b - a for a, b in zip(before, after, strict=True)]
    change = studies.over_runs(changes, significance.overlap(runs))
    ends = (Number(one.mean, "nats", one.sd) for one in map(stats.summary, (before, after)))
    moved = Number(change.mean, "nats", None, change.n, change.low, change.high, signed=True)
    return (*ends, moved, change.n)


def ib_moves(inputs: Inputs) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """Return task -> term -> method -> mean IB loss (nats) before and after training."""
    moves: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for task in inputs.beyond:
        for method in _ib_methods(inputs):
            runs = inputs.results.of(task, method)
            for term in _terms(runs):
                before = sum(run.ib_before[term] for run in runs) / len(runs)
                after = sum(run.ib[term] for run in runs) / len(runs)
                by_method = moves.setdefault(task_name(task), {}).setdefault(term, {})
                by_method[method_name(method)] = (before, after)
    return moves


# --- eta -----------------------------------------------------------------------------------------


def _at_etas(inputs: Inputs) -> Table:
    """`real_eta`: methods at fixed etas, and whether eta matters more than luck does."""
    at = inputs.params.sensitivity
    by_method = eta_runs(inputs)
    metric = inputs.results.headline(at.task)
    first, *others = by_method or [""]
    columns = [Column("eta"), *(Column(method_name(method)) for method in by_method)]
    columns += [Column(f"{method_name(m)} minus {method_name(first)}") for m in others]
    rows = []
    for eta in at.etas:
        runs = {method: own.get(eta, ()) for method, own in by_method.items()}
        if any(runs.values()):
            means = [mean_of(own, metric) or NOT_RUN for own in runs.values()]
            apart = [
                table.signed(studies.apart(runs[method], runs[first], metric)) for method in others
            ]
            rows.append(Row((f"{eta:g}", *means, *apart)))
    complete = {method: _by_run(own, metric) for method, own in by_method.items()}
    shared = significance.overlap(next(iter(by_method[first].values()))) if by_method else 0.0
    spans = {method: stats.range_of_means(own, shared) for method, own in complete.items()}
    if any(spans.values()):
        for name, part in ENDS.items():
            ends = (Number(getattr(span, part)) if span else None for span in spans.values())
            rows.append(Row((name, *ends, *[None] * len(others))))
    notes = [
        f"{method_name(method)}: {_insensitive(span, complete[method], shared)}"
        for method, span in spans.items()
        if span
    ]
    if shared:
        notes.append(FOLDED)
    notes += inputs.left_out([at.task])
    return Table(
        "real_eta",
        f"Real data: {task_name(at.task)} at fixed eta",
        f"{metric_name(metric)} in percent at every eta; cross-validation chose everything else. "
        "Intervals of differences are over runs; where folds share training rows, those of Nadeau "
        "and Bengio.",
        inputs.results.is_twin(at.task),
        tuple(columns),
        tuple(rows),
        tuple(notes),
    )


def eta_runs(inputs: Inputs) -> dict[str, dict[float, Sequence[Record]]]:
    """Return method -> eta -> records at fixed etas, on a task that the paper does not have."""
    if inputs.params.sensitivity.task not in inputs.beyond:
        return {}
    methods = inputs.params.sensitivity.methods
    return {method: runs for method in methods if (runs := inputs.results.at_etas(method))}


def _by_run(runs: Mapping[float, Sequence[Record]], metric: str) -> dict[int, dict[float, float]]:
    """Return run -> eta -> percent, of the runs that have every eta."""
    by_run: dict[int, dict[float, float]] = {}
    for eta, own in runs.items():
        for run in own:
            if (value := records.value(run, metric)) is not None:
                by_run.setdefault(run.seed, {})[eta] = 100 * value
    return {run: by_eta for run, by_eta in by_run.items() if len(by_eta) == len(runs)}


def _insensitive(
    span: stats.Range, by_run: Mapping[int, Mapping[float, float]], shared: float
) -> str:
    """Say whether the range of means over eta is more than luck."""
    tested = "" if shared else f"; {_friedman(by_run)}"
    return (
        f"the {len(next(iter(by_run.values())))} means over eta have a range of {span.range:.1f} "
        f"points; by luck alone it is below {span.critical:.1f} in 95 of 100 (studentized range; "
        f"sd {span.sd:.1f} without the means of run and eta, {len(by_run)} runs), so eta "
        f"{'matters' if span.range > span.critical else 'is not shown to matter'}{tested}."
    )


def _tuned(inputs: Inputs) -> Table:
    """`real_tuned`: what cross-validation inside train says about eta, and what it chose."""
    etas = sorted(inputs.params.tune.grid.eta)
    rows = []
    for task in inputs.beyond:
        for method in inputs.params.methods:
            tuned = inputs.results.choices.get((task, method), {})
            chosen = [choice["eta"] for choice in tuned.get("choices", ())]
            if any(eta is not None for eta in chosen):
                counts = ", ".join(f"{e:g} x {chosen.count(e)}" for e in etas if e in chosen)
                by_eta = [_validated(tuned["scores"], eta) for eta in etas]
                metric = tuned["metric"]
                name = metric_name(metric) if metric else "none"
                rows.append(Row((task_name(task), method_name(method), name, *by_eta, counts)))
    headings = ("Task", "Method", "Metric", *(f"eta = {eta:g}" for eta in etas), "Chosen (x folds)")
    return Table(
        "real_tuned",
        "Real data: eta chosen inside the training split",
        "Score over folds of every eta that was tried in percent, and how often each was chosen.",
        inputs.results.is_twin(*inputs.beyond),
        tuple(map(Column, headings)),
        tuple(rows),
        (
            "Score: mean over folds of the best learning rate and weight decay tried at that eta; "
            "empty: not tried. Where there are test folds the "
            "choice is made once for each fold, on its training rows.",
            "Metric none: one-class training data has no anomaly, so nothing is tried and runs "
            "take the points of the grid in turn.",
        ),
    )


def _validated(trials: Sequence[Mapping[str, Any]], eta: float) -> Number | None:
    """Return the mean score over folds of the best setting at an eta, in percent."""
    by_setting: dict[tuple[float, float], list[float]] = {}
    for trial in trials:
        if trial["eta"] == eta:
            setting = (trial["lr"], trial["weight_decay"])
            by_setting.setdefault(setting, []).append(100 * trial["score"])
    means = [sum(numbers) / len(numbers) for numbers in by_setting.values()]
    return Number(max(means)) if means else None


# --- cost ----------------------------------------------------------------------------------------


def _cost(inputs: Inputs) -> Table:
    """`real_cost`: seconds an epoch, and relative to the control and to concat."""
    timing = inputs.timing if inputs.timing.get("task") in inputs.beyond else {}
    methods, task = timing.get("methods", {}), timing.get("task", "")
    rows = [
        Row(
            (method_name(method), *_times(methods, method), *_size(inputs.results.of(task, method)))
        )
        for method in (inputs.params.methods_of(task) if timing else ())
    ]
    against = [f"Times {method_name(other)}" for other in (CONTROL, CONCAT)]
    size = ("Parameters, thousands", "MFLOP a sample")
    return Table(
        "real_cost",
        "Real data: seconds an epoch, and size",
        f"All methods in turn in one process on {task_name(task)}.",
        inputs.results.is_twin(*inputs.beyond),
        tuple(map(Column, ("Method", "Seconds", *against, *size))),
        tuple(rows),
        (timing_note(timing, timing["methods"]), *untimed(inputs)) if timing else (),
    )


def untimed(inputs: Inputs) -> list[str]:
    """Say which methods of the timed task have no times, in one line; nothing where all have."""
    task, measured = inputs.timing["task"], inputs.timing["methods"]
    missing = [method_name(one) for one in inputs.params.methods_of(task) if one not in measured]
    if not missing:
        return []
    return [
        f"Not timed: {', '.join(missing)}. Times were measured before these methods were in the "
        "profile, and times of another day cannot be compared."
    ]


def _times(methods: Mapping[str, Any], method: str) -> tuple[Value, ...]:
    """Return seconds an epoch with quartiles, and relative to the control and to concat."""
    if method not in methods:
        return (NOT_RUN, None, None)
    one = methods[method]
    seconds = Number(one["median"], "seconds", low=one["low"], high=one["high"])
    return (seconds, *(_relative(one["median"], methods, other) for other in (CONTROL, CONCAT)))


def _size(runs: Sequence[Record]) -> tuple[Value, Value]:
    """Return thousands of parameters, and millions of operations of a prediction."""
    if not runs or not runs[0].cost:
        return NOT_RUN, NOT_RUN
    cost = runs[0].cost
    return Number(cost["parameters"] / 1e3, "count"), Number(cost["flops"] / 1e6, "plain")


def _relative(median: float, methods: Mapping[str, Any], other: str) -> Value:
    return Number(median / methods[other]["median"], "times") if other in methods else None
