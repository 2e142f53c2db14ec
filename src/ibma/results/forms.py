"""Choose the form that stands for MIB: E-, L- and C-MIB are three methods, the paper has one row.

CHOICE: the one with the best cross-validation score.
"""

from __future__ import annotations

from ibma.results.records import Results

MIB, MIB_FORMS = "mib", ("mib_e", "mib_l", "mib_c")  # the paper prints the best of the three


def best_forms(results: Results) -> dict[str, str]:
    """Return task -> the form of MIB with the best five-fold score inside train, never on test.

    Tasks whose training data gives no score, such as one-class data, are left out.
    """
    best = {}
    for task in results.params.tasks:
        scores = {
            form: sum(found)
            for form in MIB_FORMS
            for choices in [results.choices.get((task, form), {}).get("choices", ())]
            if (found := [one["score"] for one in choices if one["score"] is not None])
        }
        if scores:
            best[task] = max(scores, key=lambda form: scores[form])
    return best


def unchosen_forms(results: Results) -> list[str]:
    """List the tasks with records of forms of MIB among which nothing could choose."""
    best = best_forms(results)
    return [
        task
        for task in results.params.tasks
        if task not in best and any(results.of(task, form) for form in MIB_FORMS)
    ]
