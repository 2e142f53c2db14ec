"""Write the first lines of the page: whether IBMA does what the paper says, and on which data.

Generated data judges nothing: everything that is counted here is on real data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ibma.paper import audit
from ibma.report import formatting, paper_tables, real_tables
from ibma.report.inputs import Inputs
from ibma.report.real_tables import Verdict
from ibma.results import significance
from ibma.results.claims import ABLATION, BASELINE, CONTROL, OURS, task_name

WIDTH = 512  # of the paper's representations
# families of tests that count. Table 14 is about bounds, and its control is that of Table 10
COUNTED = ("10", "11", "12", "13", "15", significance.BEYOND)


@dataclass(frozen=True)
class Answer:
    """The answer in a sentence, what it rests on, and the points behind it."""

    headline: str
    data: str
    points: tuple[str, ...]


def answer(inputs: Inputs) -> Answer:
    """Sum up a report."""
    theirs = () if inputs.own else (*_published(inputs), *_audit(inputs))
    points = (*_places(inputs), *_several(inputs), *theirs)
    return Answer(_headline(inputs), _data(inputs), points)


def _headline(inputs: Inputs) -> str:
    """Answer the question, or say why this profile cannot."""
    if not inputs.tasks:
        return (
            "Nothing was run yet: the tables hold the paper's numbers, and why there are no more."
        )
    twins = len(inputs.tasks) - len(inputs.real)
    if twins > len(inputs.real):
        return (
            f"This profile cannot say. The data of {twins} of its {len(inputs.tasks)} tasks is "
            "generated (TWIN): such numbers show that the code runs and say nothing about the "
            "paper."
        )
    rivals = _verdicts(inputs, BASELINE)
    if not rivals:
        verdicts = {real_tables.judge(inputs, BASELINE, task, None) for task in inputs.real}
        unequal = Verdict.UNEQUAL in verdicts
        why = "were tuned by unequal rules" if unequal else "have no records in common"
        return f"This profile cannot say yet: IBMA and the best baselines {why}."
    total, better, worse = len(rivals), _all(rivals, Verdict.BETTER), _all(rivals, Verdict.WORSE)
    said = "Yes" if better == total else "In part" if better else "Not shown"
    if (untested := _all(rivals, Verdict.NO_TEST)) == total:
        return (
            "This profile cannot say: runs of IBMA and of the best baselines do not differ among "
            f"themselves on {'any task' if total > 1 else 'the task'}, so there is no test."
        )
    parts = [f"IBMA is better than the best baseline on {better} and worse on {worse}"]
    if untested:
        parts[0] += f" (no test is possible on {untested})"
    for opponent, words in (
        (ABLATION, "alignment helps"),
        (CONTROL, "IBMA beats the same network without a bound"),
    ):
        if others := _verdicts(inputs, opponent):
            tested = f" of {len(others)}" if len(others) != total else ""
            parts.append(f"{words} on {_all(others, Verdict.BETTER)}{tested}")
    theirs = len(set(rivals) - set(inputs.beyond))
    tasks = formatting.plural(total, "task") + (f" ({theirs} of the paper)" if theirs else "")
    scale = "" if inputs.own or theirs else f" {_scale(inputs)}"
    return f"{said}. Of {tasks}, {'; '.join(parts)}.{scale}"


def _verdicts(inputs: Inputs, opponent: str) -> dict[str, list[Verdict]]:
    """Return real task -> what its tests against an opponent show: one, or one for each slide."""
    said: dict[str, list[Verdict]] = {}
    for test in inputs.tests:
        task = test.compared.task
        if test.opponent == opponent and test.table in COUNTED and task in inputs.real:
            said.setdefault(task, []).append(real_tables.verdict(test))
    return said


def _all(verdicts: Mapping[str, Sequence[Verdict]], wanted: Verdict) -> int:
    """Count the tasks on which every test has a verdict."""
    return sum(all(one == wanted for one in own) for own in verdicts.values())


def _scale(inputs: Inputs) -> str:
    """Say how far from the paper's study these tasks are."""
    small = "small networks" if inputs.params.training.width < WIDTH else "networks"
    return (
        f"This is about {small} on open data that the paper does not have: no number is comparable "
        "with the paper's."
    )


def _data(inputs: Inputs) -> str:
    """Say which data and which set-up the answer is about."""
    params, training = inputs.params, inputs.params.training
    names = ", ".join(map(task_name, inputs.real)) or "none"
    unit = training.phi == "unit"
    vectors = "unit vectors" if unit else "raw vectors"
    printed = " (the paper's section 3.1 has no normalisation)" if unit else ""
    eta = "chosen by cross-validation" if params.eta is None else f"{params.eta:g} everywhere"
    alone = sum("modality" in one.hparams for one in params.methods.values())
    methods = formatting.plural(len(params.methods) - alone, "method")
    if alone:
        methods += f" and {formatting.plural(alone, 'single-modality network')}"
    return (
        f"Real data: {names}. {methods}, {params.seeds} runs each, "
        f"{training.epochs} epochs, width {training.width}. Similarity phi: {vectors}, beta "
        f"{training.beta:g}{printed}, eta {eta}."
    )


def _places(inputs: Inputs) -> Iterator[str]:
    """Say where IBMA has the highest mean, alone or not."""
    scores = {t: m for t, m in real_tables.scores(inputs, inputs.real).items() if OURS in m}
    if not scores:
        return
    alone = shared = 0
    for means in scores.values():
        rounded = {name: formatting.rounded(mean, "percent") for name, mean in means.items()}
        ours = rounded.pop(OURS)
        best = max(rounded.values(), default=-math.inf)
        alone += ours > best
        shared += ours == best
    ties = f", shares it on {shared}" if shared else ""
    tasks = formatting.plural(len(scores), "real task")
    yield f"Of {tasks}, IBMA has the highest mean alone on {alone}{ties}."


def _several(inputs: Inputs) -> Iterator[str]:
    """Say how tasks with several tests are counted."""
    for task, own in _verdicts(inputs, BASELINE).items():
        if len(own) > 1:
            yield (
                f"{task_name(task)} has {len(own)} tests against the best baseline; it counts as "
                "better or worse where all of them are."
            )


def _published(inputs: Inputs) -> Iterator[str]:
    """Count the verdicts on published numbers, each once: tables repeat some of them."""
    verdicts = {
        line.target: line.verdict
        for number in paper_tables.METRIC_TABLES
        for line in paper_tables.lines_of(inputs, number)
        if line.published and not line.other_reading
    }
    counts = Counter(verdicts.values())
    judged = [v for v in (paper_tables.Verdict.INSIDE, paper_tables.Verdict.OUTSIDE) if counts[v]]
    if judged:
        shown = ", ".join(f"{counts[v]} {v.value}" for v in judged)
        yield f"Published numbers in our 95 % intervals: {shown}."
    else:
        yield "No published number is judged: no task of the paper was run on real data."


def _audit(inputs: Inputs) -> Iterator[str]:
    yield f"The paper's own numbers against each other: {audit.summary(inputs.checks)}"
