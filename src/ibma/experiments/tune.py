"""Choice of lr, weight decay and eta by cross-validation inside the training split (paper B.2).

The functions here take a `TrainingSet`; no test row can be reached from it. Every method tries the
same number of grid points (`tune.budget`) on the same folds. For a data set with test folds the
choice is made once per test fold, on that fold's training rows only.
"""

from __future__ import annotations

import functools
import itertools
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ibma import methods, paths
from ibma.experiments.progress import run_all
from ibma.features import store
from ibma.features.store import HoldOut, TrainingSet
from ibma.files import held, read_json, write_json
from ibma.params import Params, Tune
from ibma.training import record, run
from ibma.training.cell import Cell, Setting, why_not_run
from ibma.training.loop import Fit, configure_torch, predict, select_device

Score = dict[str, Any]  # run_fold, fold, lr, weight_decay, eta, score


@dataclass(frozen=True, eq=False)  # its identity is a key
class Trials:
    """Every grid point of a method on one fold of one run's training split.

    Args:
        run: gives the training split. fold: of the cross-validation inside it.
    """

    cell: Cell
    tuning: Tune
    settings: tuple[Setting, ...]
    run: int
    fold: int

    @functools.cached_property
    def path(self) -> Path:
        """Return where the store holds the scores."""
        ingredients = {
            "cell": self.cell.key(self.run, Setting(0.0, 0.0, None), run.environment(self.cell)),
            "tune": [self.tuning.folds, self.tuning.epochs, self.fold],
            "settings": self.settings,
        }
        key = record.key_of(ingredients)
        return paths.store() / key[:2] / f"{key}.json"

    def __str__(self) -> str:
        """Return the name that people read."""
        return f"{self.cell.task} {self.cell.method} fold {self.fold}"


def grid(tuning: Tune, reads_eta: bool) -> tuple[Setting, ...]:
    """Return the `budget` grid points a method may try, drawn once with a fixed seed, in order.

    Methods that do not read eta have fewer combinations; if their grid is smaller than the budget,
    all of it is tried.
    """
    etas: Sequence[float | None] = tuning.grid.eta if reads_eta else [None]
    optimiser = list(itertools.product(tuning.grid.lr, tuning.grid.weight_decay))
    points = [Setting(*pair, eta) for pair, eta in itertools.product(optimiser, etas)]
    drawn = np.random.default_rng(0).permutation(len(points))[: tuning.budget]
    return tuple(points[i] for i in sorted(drawn))


def tune_task(params: Params, task: str, only: str | None = None) -> None:
    """Choose a setting for every method on a task, and write each choice with all its scores.

    Args:
        only: one method; the choices of the others stay as they are.

    Raises:
        IbmaError: a trial failed; finished ones are kept.
    """
    names = [only] if only else list(params.methods)
    with held(paths.TUNING / task):
        if why := why_not_run(task):
            print(f"{task}: not run: {why}", file=sys.stderr)
            chosen: dict[str, dict[str, Any]] = {}
        else:
            chosen = choose(params, [Cell.of(params, task, name) for name in names])
        if only is None:
            shutil.rmtree(paths.TUNING / task, ignore_errors=True)
        (paths.TUNING / task).mkdir(parents=True, exist_ok=True)
        for name, content in chosen.items():
            write_json(paths.choice(task, name), content)


def choose(params: Params, cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Try what the store lacks; return method -> its choice, with all scores behind it."""
    wanted = {cell.method: _trials(params.tune, cell) for cell in cells}
    every = [trials for of_method in wanted.values() for trials in of_method]
    missing = {one: (try_settings, one) for one in every if _kept(one) is None}
    if missing:
        run.warm_up(cells[0])
    for one, future in run_all(params.engine, params.device, "tune", missing):
        write_json(one.path, {"scores": future.result()})
    print(f"tune: {len(every) - len(missing)} kept, {len(missing)} tried", file=sys.stderr)
    return {cell.method: _choice(params.tune, cell, wanted[cell.method]) for cell in cells}


def _trials(tuning: Tune, cell: Cell) -> list[Trials]:
    """Return a method's trials; none where train holds nothing to select by (one class)."""
    if not cell.problem().selection:
        return []
    settings = grid(tuning, methods.find(cell.method_file).reads_eta)
    runs = range(max(cell.meta["folds"], 1))
    return [
        Trials(cell, tuning, settings, each, fold)
        for each in runs
        for fold in range(len(_hold_outs(cell.features, cell.meta["digest"], each, tuning.folds)))
    ]


@functools.lru_cache(maxsize=64)
def _hold_outs(
    features: Path, _: str, run: int, folds: int
) -> tuple[tuple[TrainingSet, HoldOut], ...]:
    """Return the folds of a run's training split; computed once, before processes are forked."""
    return tuple(store.opened(features).training(run).hold_outs(folds))


def _kept(one: Trials) -> list[Score] | None:
    """Return the stored scores of some trials; None where there are none, or damaged ones."""
    try:
        return list(read_json(one.path, {})["scores"])
    except (ValueError, KeyError, TypeError):
        return None


def try_settings(one: Trials) -> list[Score]:
    """Train on a fold with every setting and score what was held out."""
    cell = one.cell
    configure_torch(cell.threads, cell.compile)
    device = select_device(cell.device)
    learn, judge = _hold_outs(cell.features, cell.meta["digest"], one.run, one.tuning.folds)[
        one.fold
    ]
    learn = learn.joined(cell.tables(one.run, device))
    scores = []
    for setting in one.settings:
        model = cell.build(one.run, setting, one.tuning.epochs, seed=one.fold, on=device)
        fit = Fit(
            model,
            learn,
            setting,
            seed=one.fold,
            epochs=one.tuning.epochs,
            batch_size=cell.batch_size,
            device=device,
            quiet=True,
        )
        fit.run(f"tune {one}")
        logits, _ = predict(model, judge, device)
        metrics = cell.problem().metrics(logits, judge.labels(), judge.groups())
        value = metrics[str(cell.problem().selection)]
        where = {"run_fold": cell.fold(one.run), "fold": one.fold}
        scores.append({**where, **setting._asdict(), "score": 0.0 if value is None else value})
    return scores


def _choice(tuning: Tune, cell: Cell, trials: Sequence[Trials]) -> dict[str, Any]:
    """Return the best setting per test fold, with every score it was chosen by.

    Without trials it is the middle point of the grid. `key` is a digest of the code and parameters
    that train this cell: by it DVC sees that stages which read this choice are stale.
    """
    scores = [score for one in trials for score in _kept(one) or ()]
    runs = range(max(cell.meta["folds"], 1)) if trials else ()
    middle = grid(tuning, methods.find(cell.method_file).reads_eta)
    untried = {"run_fold": None, **middle[len(middle) // 2]._asdict(), "score": None}
    return {
        "key": cell.key(0, Setting(0.0, 0.0, None), run.environment(cell)),
        "task": cell.task,
        "method": cell.method,
        "metric": cell.problem().selection,
        "grid": tuning.grid.model_dump(),
        "folds": tuning.folds,
        "epochs": tuning.epochs,
        "choices": [_best(scores, cell.fold(each)) for each in runs] or [untried],
        "scores": scores,
    }


def _best(scores: Sequence[Mapping[str, Any]], run_fold: int | None) -> dict[str, Any]:
    """Return the setting with the best mean score; the first in grid order wins a tie."""
    mine = [row for row in scores if row["run_fold"] == run_fold]
    points = list(dict.fromkeys(_setting(row) for row in mine))
    means = [float(np.mean([r["score"] for r in mine if _setting(r) == p])) for p in points]
    best = int(np.argmax(means))
    return {"run_fold": run_fold, **points[best]._asdict(), "score": means[best]}


def _setting(row: Mapping[str, Any]) -> Setting:
    return Setting(row["lr"], row["weight_decay"], row["eta"])
