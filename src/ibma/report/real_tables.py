"""Tables on real data that the paper does not have, and what they say about its claims.

Every method stands in them, the control `ce3` and the variants of IBMA among the rivals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ibma import datasets
from ibma.files import read_json
from ibma.paper import published
from ibma.params import Params
from ibma.report import formatting
from ibma.report.paper_tables import MARKS, ReportTable
from ibma.results import records, significance, stats
from ibma.results.records import Cells
from ibma.results.significance import ABLATION, BASELINE, BEYOND, BOUND, CONTROL, OURS
from ibma.training.record import Record

LABELS = {
    "accuracy": "Accuracy",
    "acc2": "Acc-2, zero left out",
    "acc2_has0": "Acc-2, zero counted",
    "f1": "F1, zero left out",
    "f1_has0": "F1, zero counted",
    "auc": "AUC",
    "mauc": "mAUC",
}
CLAIMS = {  # opponent -> what a win of IBMA would mean
    ABLATION: "alignment helps",
    "ibma_vib": "IBB beats VIB",
    "ibma_apib": "IBB beats APIB",
    "ibma_club": "IBB beats CLUB",
    BOUND: "IBB beats the best of VIB, APIB, CLUB",
    "ibma_plugin": "IBB beats a bound whose compression half has a gradient",
    CONTROL: "IBB does something: against the same network, eta = 0",
    BASELINE: "IBMA beats the best baseline",
    "ibma_code": "IBB beats the bound of the released code",
    "omib": "IBMA beats OMIB",
}
RIVALS = {  # opponent -> its name in the picture that sums the claims up
    CONTROL: "ce3 (eta = 0)",
    ABLATION: "no alignment",
    "ibma_vib": "VIB",
    "ibma_apib": "APIB",
    "ibma_club": "CLUB",
    "ibma_plugin": "plug-in",
    BASELINE: BASELINE,
}
NOT_RUN = "not run: no record"
BETTER, WORSE, EQUAL = "IBMA better", "IBMA worse", "no difference shown"
ALPHA = 0.05
FOLDS = (
    "run k tests on fold k mod {folds}, and a pair shares its fold and its seed. Folds differ in "
    "their test samples, so that a difference is tried on several test sets; but the runs are not "
    "independent, since they share training samples, and those on one fold their test samples: "
    "intervals are too narrow and plain p-values too small."
)
ONE_TEST_SET = (
    "every run meets the same test samples, and a pair shares its seed: a difference is told from "
    "the luck of initialisation and order, not from that of the test samples."
)


def build(params: Params, root: Path) -> list[ReportTable]:
    """The overview, then every table that has a line."""
    here = records.cells(params, root)
    known = tasks(params, here)
    found = [
        _claims(here, known, _tests(root, here, known)),
        *(_every_metric(params, here, task) for task in known),
        _ib_losses(params, here, known),
        _at_etas(params, root, known),
        _tuned(params, root, here, known),
        _cost(root, here, known),
    ]
    return [_overview(params, here, known), *(table for table in found if table.lines)]


def tasks(params: Params, here: Cells) -> list[str]:
    """Tasks beyond the paper that have records."""
    known = significance.beyond(params, published.load())
    return [task for task in known if records.of_task(here, task)]


def _tests(root: Path, here: Cells, known: Sequence[str]) -> list[dict[str, Any]]:
    """Tests on these tasks whose numbers are still there."""
    return [
        test
        for test in significance.stored(root)
        if test["table"] == BEYOND
        and test["task"] in known
        and all(
            records.values(here.get((test["task"], method), ()), test["metric"], "percent")
            for method in (test["baseline"], OURS)
        )
    ]


def by_rival(root: Path, here: Cells, known: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Task and metric, one above the other -> name in `RIVALS` -> test."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for test in _tests(root, here, known):
        if test["opponent"] in RIVALS:
            panel = f"{test['task']}\n{_label(test['metric'])}"
            found.setdefault(panel, {})[RIVALS[test["opponent"]]] = test
    return found


def _table(
    key: str,
    title: str,
    caption: str,
    unit: str,
    columns: Sequence[str],
    lines: Sequence[tuple[str, ...]],
    notes: Sequence[str],
    own: Sequence[Record],
) -> ReportTable:
    twin = any(one.source == "twin" for one in own)
    return ReportTable(
        key, title, caption, unit, twin, tuple(lines), tuple(notes), columns=tuple(columns)
    )


def _all(here: Cells, known: Sequence[str]) -> list[Record]:
    return [one for task in known for one in records.of_task(here, task)]


# --- every method --------------------------------------------------------------------------------


def scores(here: Cells, known: Sequence[str]) -> dict[str, dict[str, float]]:
    """Task -> method -> mean over runs of the metric that the task is judged by, in percent."""
    means: dict[str, dict[str, float]] = {}
    for (task, method), own in here.items():
        found = records.values(own, records.selection(own), "percent")
        if task in known and found:
            means.setdefault(task, {})[method] = stats.summary(found).mean
    return means


def _overview(params: Params, here: Cells, known: Sequence[str]) -> ReportTable:
    """`real_data`: method x task, the metric that each task is judged by, and the mean rank."""
    judged = {task: records.selection(records.of_task(here, task)) for task in known}
    methods = [*params.methods, *params.variants]
    columns = {
        task: _marked([here.get((task, method), ()) for method in methods], judged[task])
        for task in known
    }
    ranks = stats.mean_ranks(means) if len(means := scores(here, known)) > 1 else {}
    lines = [
        (
            method,
            *(columns[task][row] or NOT_RUN for task in known),
            f"{ranks[method]:.2f}" if method in ranks else "",
        )
        for row, method in enumerate(methods)
    ]
    notes = ["The best and the second best of a column are marked over all its rows."]
    if ranks:
        notes.append(
            f"Ranks over {len(known)} tasks: {_friedman(means)}; ranks closer than "
            f"{stats.critical_difference(len(ranks), len(known)):.1f} do not differ (Nemenyi, "
            "5 %). Tasks made of one data set are not independent."
        )
    if "ravdess" not in params.tasks:
        notes.append(
            "ravdess, mosi_features, mosi_features3, her2st, her2st_one_class: not run: they are "
            "in profile open (`ibma profile open`)."
        )
    return _table(
        BEYOND,
        "Real data beyond the paper",
        "Every method on real data that anybody can get: mean, sd over runs.",
        "percent",
        ("Method", *(f"{task}, {_label(judged[task])}" for task in known), "Mean rank"),
        lines,
        notes,
        _all(here, known),
    )


def _every_metric(params: Params, here: Cells, task: str) -> ReportTable:
    """`real_<task>`: method x metric."""
    own = records.of_task(here, task)
    metrics = [name for name in own[0].metrics if name != "mauc_defined"]
    methods = [*params.methods, *params.variants]
    cells = [here[task, method] for method in methods]
    columns = [_marked(cells, metric, interval=True) for metric in metrics]
    lines = [
        (
            method,
            str(len(cells[row])),
            *(column[row] or ("undefined" if cells[row] else NOT_RUN) for column in columns),
            f"runs/{task}/{method}" if cells[row] else "",
        )
        for row, method in enumerate(methods)
    ]
    card = datasets.load(params.tasks[task]["dataset"]).CARD
    notes = [
        "The best and the second best of a column are marked over all its rows, the control and "
        "the variants of IBMA included. [..]: 95 % t interval of the mean over runs.",
        f"{task}: {_pairing(own)}",
        *card.notes,
    ]
    return _table(
        f"real_{task}",
        f"{task}: every metric of every method",
        f"{card.title}. Mean, sd and 95 % interval over n runs.",
        "percent",
        ("Method", "n", *map(_label, metrics), "Runs"),
        lines,
        notes,
        own,
    )


def _label(metric: str) -> str:
    kind, _, name = metric.partition("/")
    if name:
        return f"{kind.upper()} {name}"
    return LABELS.get(metric, metric.replace("acc", "Acc-"))


def _marked(cells: Sequence[Sequence[Record]], metric: str, interval: bool = False) -> list[str]:
    """One column: a metric (percent) of every cell, the best two marked; empty where undefined."""
    found = [records.values(own, metric, "percent") for own in cells]
    sums = [stats.summary(values) if values else None for values in found]
    printed = [formatting.number(one.mean, "percent") if one else "" for one in sums]
    ranked = sorted({text for text in printed if text}, key=float, reverse=True)
    marks = dict(zip(ranked, MARKS, strict=False)) if len(ranked) > 1 else {}
    return [
        f"{formatting.mean_sd(one, 'percent')} "
        f"{formatting.interval(one.low, one.high, 'percent') if interval else ''}".strip()
        + marks.get(text, "")
        if one
        else ""
        for one, text in zip(sums, printed, strict=True)
    ]


def _pairing(own: Sequence[Record]) -> str:
    """What pairs of runs on a task can and cannot show."""
    folds = {one.fold for one in own}
    return ONE_TEST_SET if folds <= {None} else FOLDS.format(folds=len(folds))


def _friedman(blocks: Mapping[Any, Mapping[Any, float]]) -> str:
    """Friedman's test in words; blocks: block -> treatment -> value."""
    found = stats.friedman(blocks)
    if found is None:
        return "too few for Friedman's test"
    return f"Friedman chi2 {found.statistic:.1f}, p = {found.p:.2g}, Kendall's W {found.w:.2f}"


# --- the paper's claims --------------------------------------------------------------------------


def _claims(here: Cells, known: Sequence[str], tests: Sequence[Mapping[str, Any]]) -> ReportTable:
    """`real_claims`: IBMA against each rival that a claim of the paper, or of ours, names."""
    lines, notes = [], []
    for opponent, claim in CLAIMS.items():
        family = [test for test in tests if test["opponent"] == opponent]
        tested = {test["task"]: test for test in family}
        for task in known:
            empty = (claim, task, opponent, *("",) * 10, "not run: no pair of records")
            lines.append(_claim(here, claim, tested[task]) if task in tested else empty)
        if family:
            notes.append(f"{claim} ({opponent}): {_counted(family)}.")
    notes += [
        "One family of Holm's correction is one opponent over all tasks of this table.",
        f"Verdict: by the t-test after Holm at {ALPHA:.0%}. d_z: mean difference over the standard "
        "deviation of differences.",
        "p, folds corrected: the t-test with the variance that Nadeau and Bengio (Machine Learning "
        "52, 2003) give runs whose training samples overlap; before Holm.",
        "The best baseline of a task, and the best of VIB, APIB and CLUB, is the one with the best "
        "mean on test, as in the paper: that favours it. The control is not among the baselines.",
        *(f"{task}: {_pairing(records.of_task(here, task))}" for task in known),
    ]
    return _table(
        "real_claims",
        "Real data: the claims, tested",
        "IBMA minus an opponent, paired runs, the metric that the task is judged by.",
        "percent",
        (
            "Claim",
            "Task",
            "Opponent",
            "n",
            "IBMA",
            "Opponent (mean, sd)",
            "Difference",
            "95 % interval",
            "t-test p",
            "Wilcoxon p",
            "p after Holm",
            "p, folds corrected",
            "d_z [95 % BCa]",
            "Verdict",
        ),
        lines,
        notes,
        _all(here, known),
    )


def _claim(here: Cells, claim: str, test: Mapping[str, Any]) -> tuple[str, ...]:
    def p(name: str) -> str:
        return "" if test.get(name) is None else f"{test[name]:.2g}"

    def mean(method: str) -> str:
        found = records.values(here[test["task"], method], test["metric"], "percent")
        return formatting.mean_sd(stats.summary(found), "percent")

    effect = "" if test["effect"] is None else f"{test['effect']:.2f}"
    if test["effect_low"] is not None:
        effect += f" [{test['effect_low']:.2f}, {test['effect_high']:.2f}]"
    return (
        claim,
        test["task"],
        test["baseline"],
        str(test["n"]),
        mean(OURS),
        mean(test["baseline"]),
        formatting.number(test["difference"], "percent", sign=True),
        formatting.interval(test["low"], test["high"], "percent"),
        p("p"),
        p("wilcoxon_p"),
        p("holm"),
        _corrected(here[test["task"], OURS], test),
        effect,
        verdict(test),
    )


def _corrected(runs: Sequence[Record], test: Mapping[str, Any]) -> str:
    """The p-value of the t-test where runs on several folds share training samples; else empty."""
    if test["t"] is None or runs[0].fold is None:
        return ""
    overlap = sum(one.n_test / one.n_train for one in runs) / len(runs)
    return f"{stats.resampled_p(test['t'], test['n'], overlap):.2g}"


def verdict(test: Mapping[str, Any]) -> str:
    """A paired test in words."""
    if test["p"] is None:
        return f"no test: {test['note']}"
    if test["holm"] >= ALPHA:
        return EQUAL
    return BETTER if test["difference"] > 0 else WORSE


def _counted(family: Sequence[Mapping[str, Any]]) -> str:
    said = [verdict(test) for test in family]
    counts = f"{said.count(BETTER)} better, {said.count(WORSE)} worse, {said.count(EQUAL)} no"
    untested = sum(test["p"] is None for test in family)
    return f"{counts} difference shown, {untested} without a test, of {len(family)} tasks"


# --- IB losses -----------------------------------------------------------------------------------


def ib_terms(own: Sequence[Record]) -> list[str]:
    """Names of the plug-in IB losses of a task; U, which no training moves, is not one."""
    names = dict.fromkeys(name for one in own for name in one.ib)
    return [name for name in names if not name.startswith("u/")]


def _ib_losses(params: Params, here: Cells, known: Sequence[str]) -> ReportTable:
    """`real_ib`: plug-in IB losses of the untrained and of the trained network."""
    methods = (CONTROL, "omib", *params.variants)
    lines = [
        (task, method, term, *_moved(here[task, method], term), f"runs/{task}/{method}")
        for task in known
        for method in methods
        if here.get((task, method))
        for term in ib_terms(records.of_task(here, task))
    ]
    return _table(
        "real_ib",
        "Real data: IB losses before and after training",
        "Plug-in IB losses on the test features, mean and sd over runs.",
        "nats",
        ("Task", "Method", "Term", "Before", "After", "Change", "95 % interval", "n", "Runs"),
        lines,
        (
            "Before: the same network as initialised, its batch statistics set by one pass over "
            "train. The interval is that of the mean change.",
        ),
        _all(here, known),
    )


def _moved(own: Sequence[Record], term: str) -> tuple[str, str, str, str, str]:
    """Before, after, change, its interval, n."""
    before, after = ([of[term] for of in losses] for losses in _losses(own))
    change = stats.summary([b - a for a, b in zip(before, after, strict=True)])
    return (
        formatting.mean_sd(stats.summary(before), "nats"),
        formatting.mean_sd(stats.summary(after), "nats"),
        formatting.number(change.mean, "nats", sign=True),
        formatting.interval(change.low, change.high, "nats"),
        str(change.n),
    )


def ib_moves(
    params: Params, here: Cells, known: Sequence[str]
) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """Task -> term -> method -> mean IB loss (nats) before and after training."""
    moves: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for task in known:
        for method in (CONTROL, "omib", *params.variants):
            if own := here.get((task, method)):
                for term in ib_terms(own):
                    before, after = (
                        sum(of[term] for of in losses) / len(losses) for losses in _losses(own)
                    )
                    of_term = moves.setdefault(task, {}).setdefault(term, {})
                    of_term[method] = (before, after)
    return moves


def _losses(own: Sequence[Record]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    return [one.ib_before for one in own], [one.ib for one in own]


# --- eta -----------------------------------------------------------------------------------------


def _at_etas(params: Params, root: Path, known: Sequence[str]) -> ReportTable:
    """`real_eta`: variants at fixed etas, and whether eta matters more than luck does."""
    at = params.sensitivity
    found = _runs_at_etas(params, root) if at.task in known else {}
    first = next(iter(found.values()), {})
    metric = records.selection(_flat(first))
    lines, notes = [], []
    for variant, runs in found.items():
        for eta, own in runs.items():
            if values := records.values(own, metric, "percent"):
                one = stats.summary(values)
                against = () if variant == at.variants[0] else first.get(eta, ())
                pairs = records.pairs(own, against, metric, "percent")
                lines.append(
                    (
                        variant,
                        f"{eta:g}",
                        formatting.mean_sd(one, "percent"),
                        formatting.interval(one.low, one.high, "percent"),
                        *_apart(pairs),
                        str(one.n),
                        f"runs/{at.task}/{at.name(variant, eta)}",
                    )
                )
        notes += [f"{variant}: {note}" for note in _insensitive(runs, metric)]
    minus = f"Minus {at.variants[0]} at that eta"
    return _table(
        "real_eta",
        f"Real data: {at.task} at fixed eta",
        f"{_label(metric)} of every eta; all else as the five-fold choice.",
        "percent",
        ("Method", "eta", "Mean, sd", "95 % interval", minus, "Its 95 % interval", "n", "Runs"),
        lines,
        notes,
        [one for runs in found.values() for one in _flat(runs)],
    )


def _runs_at_etas(params: Params, root: Path) -> dict[str, dict[float, list[Record]]]:
    """Variant -> eta -> records, of those that have any."""
    found: dict[str, dict[float, list[Record]]] = {}
    for variant in params.sensitivity.variants:
        runs = records.at_etas(params, root, variant)
        if any(runs.values()):
            found[variant] = {eta: own for eta, own in runs.items() if own}
    return found


def _flat(runs: Mapping[float, Sequence[Record]]) -> list[Record]:
    return [one for own in runs.values() for one in own]


def _apart(pairs: Sequence[tuple[float, float]]) -> tuple[str, str]:
    """Mean difference of paired runs and its interval."""
    if not pairs:
        return "", ""
    one = stats.summary([a - b for a, b in pairs])
    interval = formatting.interval(one.low, one.high, "percent")
    return formatting.number(one.mean, "percent", sign=True), interval


def eta_curves(params: Params, root: Path) -> dict[str, dict[float, list[float]]]:
    """Variant -> eta -> percent of every run, of the metric that the task is judged by."""
    found = _runs_at_etas(params, root)
    metric = records.selection(_flat(next(iter(found.values()), {})))
    return {
        variant: {eta: records.values(own, metric, "percent") for eta, own in runs.items()}
        for variant, runs in found.items()
    }


def _insensitive(runs: Mapping[float, Sequence[Record]], metric: str) -> list[str]:
    """Is the range of means over eta more than luck? Every eta meets the same runs."""
    by_run: dict[int, dict[float, float]] = {}
    for eta, own in runs.items():
        for one in own:
            if (value := records.value(one, metric)) is not None:
                by_run.setdefault(one.seed, {})[eta] = 100 * value
    whole = {run: of for run, of in by_run.items() if len(of) == len(runs)}
    found = stats.range_of_means(whole)
    if found is None:
        return []
    return [
        f"the {len(runs)} means over eta have a range of {found.range:.1f} points; by luck alone "
        f"it is below {found.critical:.1f} in 95 of 100 (studentized range; sd {found.sd:.1f} "
        f"where run and eta are taken out, {len(whole)} runs), so eta "
        f"{'matters' if found.range > found.critical else 'is not shown to matter'}; "
        f"{_friedman(whole)}."
    ]


def _tuned(params: Params, root: Path, here: Cells, known: Sequence[str]) -> ReportTable:
    """`real_tuned`: what cross-validation inside train says of eta, and what it chose."""
    etas = sorted(params.tuning.grid["eta"])
    lines = []
    for task in known:
        for method in params.variants:
            found = read_json(root / "data/tune" / task / f"{method}.json", {})
            chosen = [choice["eta"] for choice in found.get("choices", ())]
            if chosen:
                counts = ", ".join(f"{e:g} x {chosen.count(e)}" for e in etas if e in chosen)
                by_eta = [_validated(found["scores"], eta) for eta in etas]
                lines.append((task, method, str(found["metric"] or "none"), *by_eta, counts))
    return _table(
        "real_tuned",
        "Real data: eta chosen inside the training split",
        "Five-fold score of every eta that was tried, and how often each was chosen.",
        "percent",
        ("Task", "Method", "Metric", *(f"eta = {eta:g}" for eta in etas), "Chosen (x folds)"),
        lines,
        (
            "Score: mean over folds of the best learning rate and weight decay tried at that eta; "
            "empty: not among the points that the budget allowed. Where there are test folds the "
            "choice is made once per fold, on its training rows.",
            "Metric none: one-class training data shows no anomaly, so nothing is tried and the "
            "middle point of the grid is taken.",
        ),
        _all(here, known),
    )


def _validated(trials: Sequence[Mapping[str, Any]], eta: float) -> str:
    """Mean score over folds of the best setting at an eta, in percent."""
    by_setting: dict[tuple[float, float], list[float]] = {}
    for trial in trials:
        if trial["eta"] == eta:
            setting = (trial["lr"], trial["weight_decay"])
            by_setting.setdefault(setting, []).append(100 * trial["score"])
    means = [sum(found) / len(found) for found in by_setting.values()]
    return formatting.number(max(means), "percent") if means else ""


# --- cost ----------------------------------------------------------------------------------------


def _cost(root: Path, here: Cells, known: Sequence[str]) -> ReportTable:
    """`real_cost`: seconds per epoch, side by side, relative to the control and to concat."""
    timed = read_json(root / "data/timing.json", {})
    methods = timed.get("methods", {}) if timed.get("task") in known else {}
    lines = [
        (
            method,
            f"{one['median']:.3f}",
            f"{one['low']:.3f} to {one['high']:.3f}",
            *_relative(one["median"], methods, CONTROL),
            *_relative(one["median"], methods, "concat"),
        )
        for method, one in methods.items()
    ]
    return _table(
        "real_cost",
        "Real data: seconds per epoch",
        f"All methods in turn in one process on {timed.get('task')}.",
        "seconds",
        ("Method", "Median", "Quartiles", "Against ce3", "Against concat"),
        lines,
        (
            f"{timed.get('rounds')} epochs after warm-up on {timed.get('device')} with "
            f"{timed.get('threads')} thread(s); an epoch includes the refresh of centroids and Q.",
        ),
        _all(here, known),
    )


def _relative(median: float, methods: Mapping[str, Any], other: str) -> Iterator[str]:
    yield f"{median / methods[other]['median']:.2f}" if other in methods else ""
