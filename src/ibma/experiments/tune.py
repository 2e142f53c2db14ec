"""Choose lr, weight decay and main weight by cross-validation inside train (paper B.2).

Tuning is equal by construction. Every method tries the same pairs of (lr, weight decay) in the same
order, on the same folds. At the best pair it tries the other values of its main weight: a factor
on the weights of its own (`Method.own_weights`), or else eta, as many of either. A method that adds
nothing to the task losses (Concat, BiGated, CE3, Unimodal) has no weight and nothing more to try.

The functions here take a `TrainingSet`; no test row can be reached from it. For a data set with
test folds the choice is made once per test fold, on that fold's training rows only. CHOICE: phi(X)
and U are those of the whole training split, not of a fold's part of it. So bounds that read them
(plug-in, CLUB, APIB) see, through the class centroids, labels of rows that are held out.

Where training data shows nothing to choose by (one class), nothing is tried: run k of every method
trains at point k mod the number of points, so that pairs of runs are at equal points.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ibma import methods, paths
from ibma.errors import IbmaError, one_line, tell
from ibma.experiments.progress import run_all
from ibma.features import store
from ibma.features.store import HoldOut, TrainingSet
from ibma.files import held, read_json, remove, write_json
from ibma.network.method import Method
from ibma.params import Grid, Params, Tune
from ibma.training import record, run
from ibma.training.cell import Cell, Setting, skipped
from ibma.training.loop import Fit, configure_torch, predict, select_device

Score = dict[str, Any]  # run_fold, fold, score and the fields of a setting


@dataclass(frozen=True, eq=False)  # its identity is a key
class Split:
    """The training split of a cell's run, inside which its settings are tried."""

    cell: Cell
    run: int

    def folds(self, count: int) -> tuple[tuple[TrainingSet, HoldOut], ...]:
        """Return the folds of its cross-validation."""
        return _hold_outs(self.cell.features, self.cell.meta["digest"], self.run, count)

    @classmethod
    def all_of(cls, cell: Cell) -> list[Split]:
        """Return a split for each test fold; none where train holds nothing to choose by."""
        count = max(cell.meta["folds"], 1) if cell.problem().selection else 0
        return [cls(cell, run) for run in range(count)]


@dataclass(frozen=True, eq=False)  # its identity is a key
class Trials:
    """Some settings of a method on one fold of a training split."""

    split: Split
    tuning: Tune
    settings: tuple[Setting, ...]
    fold: int

    @functools.cached_property
    def path(self) -> Path:
        """Return where the store holds the scores."""
        cell = self.split.cell
        ingredients = {
            "cell": cell.key(self.split.run, Setting(0.0, 0.0, None), run.environment(cell)),
            "tune": [self.tuning.folds, self.tuning.epochs, self.fold],
            "settings": self.settings,
        }
        return paths.kept(record.key_of(ingredients))

    def __str__(self) -> str:
        """Return the name that people read."""
        return f"{self.split.cell.task} {self.split.cell.method} fold {self.fold}"


def points(grid: Grid, model: type[Method]) -> tuple[Setting, ...]:
    """Return every pair of (lr, weight decay), with a method's main weight unchanged."""
    eta = grid.middle_eta if model.reads_eta else None
    return tuple(Setting(lr, weight_decay, eta) for lr, weight_decay in grid.points)


def weights(grid: Grid, model: type[Method], at: Setting) -> tuple[Setting, ...]:
    """Return the other values of a method's main weight at a pair; none if it has no weight."""
    every: list[Setting] = []
    if model.own_weights:
        every = [at._replace(weight_factor=factor) for factor in grid.weight_factor]
    elif model.reads_eta:
        every = [at._replace(eta=eta) for eta in grid.eta]
    return tuple(setting for setting in every if setting != at)


def tune_task(params: Params, task: str, only: str | None = None) -> None:
    """Choose a setting for every method on a task, and write each choice with all its scores.

    Args:
        only: one method; the choices of the others stay as they are.

    Raises:
        IbmaError: a trial failed; finished ones are kept.
    """
    names = [only] if only else list(params.methods_of(task))
    with held(paths.TUNING / task):
        if skipped(task):
            chosen: dict[str, dict[str, Any]] = {}
        else:
            chosen = choose(params, [Cell.of(params, task, name) for name in names])
        if only is None:
            remove(paths.TUNING / task)
        (paths.TUNING / task).mkdir(parents=True, exist_ok=True)
        for name, content in chosen.items():
            write_json(paths.choice(task, name), content)


def choose(params: Params, cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Try what the store lacks; return method -> its choice, with all scores behind it.

    Raises:
        IbmaError: a trial failed, or there are fewer runs than points that they take in turn.
    """
    grid, tried = params.tune.grid, Tried(params)
    for cell in cells:
        if cell.problem().selection is None and params.seeds < len(grid.points):
            raise IbmaError(
                f"params.yaml: seeds: {params.seeds}: expected {len(grid.points)} or more, a run "
                f"at every point of tune.grid: on {cell.task} train shows nothing to choose by"
            )
    splits = {cell.method: Split.all_of(cell) for cell in cells}
    every = [split for of_method in splits.values() for split in of_method]
    models = {split: methods.find(split.cell.method_file) for split in every}
    tried.complete({split: points(grid, models[split]) for split in every})
    best = {split: tried.best(split)[0] for split in every}
    tried.complete({split: weights(grid, models[split], best[split]) for split in every})
    tell(f"tune: {tried.kept} kept, {tried.new} tried")
    return {cell.method: _choice(params.tune, cell, splits[cell.method], tried) for cell in cells}


class Tried:
    """The scores of all trials so far.

    Attributes:
        scores: split -> every fold's score of every setting tried on it, in order.
        kept, new: how many trials the store held, and how many were tried now.
    """

    def __init__(self, params: Params) -> None:
        self.params, self.kept, self.new = params, 0, 0
        self.scores: dict[Split, list[Score]] = {}

    def complete(self, wanted: Mapping[Split, tuple[Setting, ...]]) -> None:
        """Try some settings on all folds of each split, but for what the store holds."""
        tuning = self.params.tune
        trials = [
            Trials(split, tuning, settings, fold)
            for split, settings in wanted.items()
            if settings
            for fold in range(len(split.folds(tuning.folds)))
        ]
        missing = {one: (try_settings, one) for one in trials if _kept(one) is None}
        if missing:
            run.warm_up(trials[0].split.cell)
        engine, device, threads = self.params.engine, self.params.device, self.params.cpu_threads
        for one, future in run_all(engine, device, "tune", missing, threads=threads):
            write_json(one.path, {"scores": future.result()})
        self.kept, self.new = self.kept + len(trials) - len(missing), self.new + len(missing)
        for one in trials:
            self.scores.setdefault(one.split, []).extend(_kept(one) or ())

    def best(self, split: Split) -> tuple[Setting, float]:
        """Return the setting with the best mean score, and the score; the first wins a tie."""
        by_setting: dict[Setting, list[float]] = {}
        for row in self.scores[split]:
            setting = Setting.of(row)
            by_setting.setdefault(setting, []).append(row["score"])
        means = {setting: float(np.mean(values)) for setting, values in by_setting.items()}
        best = max(means, key=lambda setting: means[setting])
        return best, means[best]


@functools.lru_cache(maxsize=64)
def _hold_outs(
    features: Path, _: str, run: int, folds: int
) -> tuple[tuple[TrainingSet, HoldOut], ...]:
    """Return the folds of a run's training split; computed once, before processes are forked.

    Raises:
        IbmaError: Every class has fewer samples than there are folds.
    """
    try:
        found = tuple(store.opened(features).training(run).hold_outs(folds))
        if min(len(learn) for learn, _ in found) < 2:
            raise ValueError("a fold leaves less than two to train on.")
    except ValueError as error:  # scikit-learn's, where even the largest class is too small
        raise IbmaError(
            f"{features}: training samples of run {run}: {one_line(error)} Lower tune.folds in "
            "params.yaml, or add samples"
        ) from None
    return found


def _kept(one: Trials) -> list[Score] | None:
    """Return the stored scores of some trials; None where there are none, or damaged ones."""
    try:
        scores: list[Score] | None = read_json(one.path, {}).get("scores")
        return scores
    except IbmaError:
        remove(one.path)
        return None


def try_settings(one: Trials) -> list[Score]:
    """Train on a fold with every setting and score what was held out.

    Raises:
        IbmaError: at one of them losses or predictions are no numbers.
    """
    cell, run = one.split.cell, one.split.run
    configure_torch(cell.threads, cell.compile)
    device = select_device(cell.device)
    learn, judge = one.split.folds(one.tuning.folds)[one.fold]
    learn = learn.joined(cell.tables(run, device))
    scores = []
    for setting in one.settings:
        model = cell.build(run, setting, one.tuning.epochs, seed=one.fold, on=device)
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
        try:
            logits, _ = predict(model, judge, device)
        except IbmaError as error:
            raise IbmaError(f"tune {one}: at lr {setting.lr:g} {error}") from None
        metrics = cell.problem().metrics(logits, judge.labels(), judge.groups())
        value = metrics[str(cell.problem().selection)]
        where = {"run_fold": cell.fold(run), "fold": one.fold}
        scores.append({**where, **setting._asdict(), "score": 0.0 if value is None else value})
    return scores


def _choice(tuning: Tune, cell: Cell, splits: Sequence[Split], tried: Tried) -> dict[str, Any]:
    """Return the best setting per test fold, with every score and the rule it was chosen by.

    Without trials it is every point in turn. `key` is a digest of the code and parameters that
    train this cell: by it DVC sees that stages which read this choice are stale.
    """
    chosen = [
        {"run_fold": cell.fold(split.run), **setting._asdict(), "score": score}
        for split in splits
        for setting, score in [tried.best(split)]
    ]
    in_turn = [
        {"run_fold": None, **point._asdict(), "score": None}
        for point in points(tuning.grid, methods.find(cell.method_file))
    ]
    return {
        "key": cell.key(0, Setting(0.0, 0.0, None), run.environment(cell)),
        "task": cell.task,
        "method": cell.method,
        "metric": cell.problem().selection,
        "rule": cell.rule(),
        "grid": tuning.grid.model_dump(),
        "choices": chosen or in_turn,
        "scores": [score for split in splits for score in tried.scores[split]],
    }
