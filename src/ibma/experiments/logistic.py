"""Fit scikit-learn's logistic regression to a task's features (stage `logistic`).

It is a reference that shows whether the set-up of the methods is weak. It uses the same training
and test rows, and the concatenated features of all modalities, standardised over the training rows.
CHOICE: the library's own regularisation, C = 1; nothing is tuned. A second reference reads no
features: it always answers with the largest class of the training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ibma import paths
from ibma.errors import tell
from ibma.files import read_json, write_json

if TYPE_CHECKING:
    from ibma.features.store import Features, Rows

VECTORS = ("vector", "expression")  # kinds of modalities that it reads
ITERATIONS = 5000
TOLERANCE = 1e-8  # at the library's 1e-4 rounding decides where it stops, and with it test rows
ABSENT = -1e4  # logit of a class that training rows lack


def judge_task(task: str) -> None:
    """Write the metrics of every test fold of a task, or why it is not run."""
    meta, runs = read_json(paths.meta(task), {}), []
    why = unfit(meta)
    if why:  # most tasks of most profiles: they do not wait for torch
        tell(f"{task}: logistic regression not run: {why}")
    else:
        from ibma.features import store

        features = store.opened(paths.FEATURES / task)
        runs = [judge(features, run) for run in range(max(meta["folds"], 1))]
    write_json(paths.logistic(task), {"missing": why, "runs": runs})


def unfit(meta: Mapping[str, Any]) -> str | None:
    """Return why logistic regression cannot read the features that a meta.json describes, if so."""
    if not meta or "missing" in meta:
        return str(meta.get("missing", "no features"))
    if meta["kind"] == "one_class":
        return "the training rows have one class"
    if meta["kind"] == "multilabel":
        return "a sample has several labels"
    for name, modality in meta["modalities"].items():
        if modality["kind"] not in VECTORS:
            what = "token ids" if modality["kind"] == "text" else modality["kind"]
            return f"'{name}' is {what}, no vector"
        if meta["absent"][name]:
            return f"samples lack '{name}'"
    return None


def judge(features: Features, run: int) -> dict[str, Any]:
    """Fit on the training rows of a run; return its fold, and on test the metrics of both."""
    import torch
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from ibma.network import tasks

    problem = tasks.build(features.meta["kind"], features.meta["classes"])
    assert isinstance(problem, tasks.Classify), "see unfit"
    train, test = features.training(run), features.test(run)
    x, y = _vectors(train), problem.target(train.labels()).numpy()
    regression = LogisticRegression(tol=TOLERANCE, max_iter=ITERATIONS)
    regressed = make_pipeline(StandardScaler(), regression).fit(x, y)
    majority = DummyClassifier(strategy="prior").fit(x, y)
    known = torch.from_numpy(majority.classes_)

    def metrics(of_known: NDArray[np.float64]) -> dict[str, Any]:
        logits = torch.full((len(test), problem.outputs), ABSENT, dtype=torch.float64)
        logits[:, known] = torch.from_numpy(of_known)
        return problem.metrics(logits, test.labels(), test.groups())

    decision = regressed.decision_function(_vectors(test))  # [n] for two classes: the log odds
    scores = decision if decision.ndim == 2 else np.stack([-decision / 2, decision / 2], axis=1)
    return {
        "fold": features.fold(run),
        "metrics": metrics(scores),
        "majority": metrics(majority.predict_log_proba(_vectors(test))),
    }


def _vectors(rows: Rows) -> NDArray[np.float64]:
    """Return the features of all modalities side by side, [n, D]."""
    arrays = rows.features.arrays.values()
    parts = [array[rows.index].reshape(len(rows), -1) for array in arrays]
    return np.concatenate(parts, axis=1).astype(np.float64)
