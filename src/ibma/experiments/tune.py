"""Choice of lr, weight decay and eta by cross-validation inside the training split (paper B.2).

The functions here take a `TrainingSet`; no test row can be reached from it. Every method tries the
same number of grid points (`tuning.budget`) on the same folds. For a data set with test folds the
choice is made once per test fold, on that fold's training rows only.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ibma.errors import IbmaError
from ibma.features.store import HoldOut, TrainingSet
from ibma.files import write_json
from ibma.params import Tuning
from ibma.training import record
from ibma.training.loop import Cell, Fit, Setting, predict


def grid(tuning: Tuning, reads_eta: bool) -> list[Setting]:
    """The `budget` grid points a method may try, drawn once with a fixed seed, in grid order.

    Methods that do not read eta have fewer combinations; if their grid is smaller than the budget,
    all of it is tried.
    """
    etas: Sequence[float | None] = tuning.grid["eta"] if reads_eta else [None]
    optimiser = list(itertools.product(tuning.grid["lr"], tuning.grid["weight_decay"]))
    points = [Setting(*pair, eta) for pair, eta in itertools.product(optimiser, etas)]
    drawn = np.random.default_rng(0).permutation(len(points))[: tuning.budget]
    return [points[i] for i in sorted(drawn)]


def tune(cell: Cell, tuning: Tuning, out: Path, reads_eta: bool) -> None:
    """Write `<out>/<method>.json`: every fold's score and the choice per test fold.

    Finished trials of an interrupted call are kept in a file beside it and not repeated. A task
    without a metric to select by (one-class: train holds no anomaly) tries nothing and takes the
    middle point of the grid.
    """
    settings = grid(tuning, reads_eta)
    target, partial = out / f"{cell.method}.json", out / f".{cell.method}.partial.json"
    key = _key(cell, tuning, settings)
    if target.exists() and json.loads(target.read_text()).get("key") == key:
        return
    scores = _kept(partial, key)
    runs = range(max(cell.features.meta["folds"], 1)) if cell.task.selection else ()
    for run in runs:
        for score in _trials(cell, tuning, settings, run, scores):
            scores.append(score)
            write_json(partial, {"key": key, "scores": scores})
    write_json(
        target,
        {
            "key": key,
            "task": cell.task_name,
            "method": cell.method,
            "metric": cell.task.selection,
            "grid": tuning.grid,
            "folds": tuning.folds,
            "epochs": tuning.epochs,
            "choices": [_choose(scores, cell.features.fold(run)) for run in runs]
            or [{"run_fold": None, **vars(settings[len(settings) // 2]), "score": None}],
            "scores": scores,
        },
    )
    partial.unlink(missing_ok=True)


def _key(cell: Cell, tuning: Tuning, settings: Sequence[Setting]) -> str:
    return record.key_of(
        {
            "cell": cell.key(0, Setting(0.0, 0.0, None)),
            "tuning": [tuning.folds, tuning.epochs],
            "settings": [vars(setting) for setting in settings],
        }
    )


def _kept(partial: Path, key: str) -> list[dict[str, Any]]:
    if not partial.exists():
        return []
    content = json.loads(partial.read_text())
    return list(content["scores"]) if content["key"] == key else []


def _trials(
    cell: Cell,
    tuning: Tuning,
    settings: Sequence[Setting],
    run: int,
    done: Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    run_fold = cell.features.fold(run)
    known = {_identity(row) for row in done}
    training = cell.features.training(run)
    for fold, (learn, judge) in enumerate(training.hold_outs(tuning.folds)):
        for setting in settings:
            row = {"run_fold": run_fold, "fold": fold, **vars(setting)}
            if _identity(row) not in known:
                yield row | {"score": _score(cell, tuning, setting, run, fold, learn, judge)}


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("run_fold", "fold", "lr", "weight_decay", "eta"))


def _score(
    cell: Cell,
    tuning: Tuning,
    setting: Setting,
    run: int,
    fold: int,
    learn: TrainingSet,
    judge: HoldOut,
) -> float:
    model = cell.build(run, setting, tuning.epochs, seed=fold)
    fit = Fit(
        model,
        learn,
        setting,
        seed=fold,
        epochs=tuning.epochs,
        batch_size=cell.batch_size,
        device=cell.device,
    )
    fit.run(f"tune {cell.task_name} {cell.method} fold {fold} {setting.lr} {setting.eta}")
    logits, _ = predict(model, judge, cell.device)
    metrics = cell.task.metrics(logits, judge.labels(), judge.groups())
    value = metrics[str(cell.task.selection)]
    return 0.0 if value is None else value


def _choose(scores: Sequence[Mapping[str, Any]], run_fold: int | None) -> dict[str, Any]:
    """The setting with the best mean score; the first in grid order wins a tie."""
    mine = [row for row in scores if row["run_fold"] == run_fold]
    names = ("lr", "weight_decay", "eta")
    points = list(dict.fromkeys(tuple(row[name] for name in names) for row in mine))
    means = [
        float(np.mean([row["score"] for row in mine if tuple(row[n] for n in names) == point]))
        for point in points
    ]
    best = int(np.argmax(means))
    return {
        "run_fold": run_fold,
        **dict(zip(names, points[best], strict=True)),
        "score": means[best],
    }


def chosen(path: Path, run_fold: int | None, eta: float | None) -> Setting:
    """The setting of a run; a number for `eta` overrides the choice of a method that reads it.

    Raises IbmaError when the tuning stage has not run.
    """
    if not path.exists():
        raise IbmaError(f"{path}: missing: run `dvc repro tune` first")
    choices = json.loads(path.read_text())["choices"]
    choice = next(c for c in choices if c["run_fold"] in (run_fold, None))
    reads_eta = choice["eta"] is not None
    return Setting(
        choice["lr"],
        choice["weight_decay"],
        eta if reads_eta and eta is not None else choice["eta"],
    )
