"""Compare what evidence says in several places: runs with each other, and with what they follow.

A record that was changed may carry a new digest. Then it contradicts other records, or what it was
made from. Each rule here holds for whatever the stages write.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from ibma import paths
from ibma.params import Params
from ibma.report.inputs import Inputs
from ibma.results.records import SWEEPS, Results
from ibma.training.cell import Setting
from ibma.training.predictions import Predictions
from ibma.training.record import Record

if TYPE_CHECKING:
    from ibma.network.tasks import Task

Pair = tuple[str, str, object, object]  # file, place, what it says, what it should say
Meta = Mapping[str, Any]  # what stage `extract` says of a task


def pairs(inputs: Inputs) -> Iterator[Pair]:
    """Yield what a place of the evidence says, and what others say of it."""
    results, features = inputs.results, inputs.features
    for runs in results.runs.values():
        yield from _same_run_twice(runs)
        yield from _same_network(runs)
    for run in results.all():
        yield from _made_as_told(results.params, run)
        if meta := features.get(run.task):
            yield from _split(run, results.predictions.get(run.id), meta)
        else:
            yield paths.meta(run.task).as_posix(), "the file", "is not there", "is there"
    yield from _without_predictions(results)
    yield from _test_rows(results)
    yield from _without_choices(results)
    for (task, method), choice in results.choices.items():
        if problem := results.problems.get(task):
            metric = choice["metric"]
            yield paths.choice(task, method).as_posix(), "metric", metric, problem.selection
        yield from _choice(results.params, task, method, choice)
    yield from _beside_the_runs(inputs)


def why_not_judged(task: Task, said: Predictions) -> str:
    """Return why predictions cannot be those of a task; empty if they can."""
    import torch

    classes = task.classes
    if not classes or len(set(classes)) < len(classes):
        return f"of {len(classes)} classes, expected some, each once"
    if task.kind == "sentiment" and len(classes) % 2 == 0:
        return f"of {len(classes)} classes, expected as many above 0 as below"
    like = task.scores(torch.zeros(1, task.outputs))
    if said.scores.dtype != like.dtype:
        return f"scores of type {said.scores.dtype}, expected {like.dtype}"
    width = like.shape[1]
    columns = len(classes) if task.kind == "multilabel" else 1
    if not len(said.ids) or len(set(said.ids)) < len(said.ids):
        return "no rows, or one of them twice"
    for name, array, expected in (
        ("scores", said.scores, width),
        ("labels", said.labels, columns),
    ):
        if array.shape[1] != expected:
            return f"{array.shape[1]} columns of {name}, expected {expected}"
        if not np.isfinite(array).all():
            return f"{name} are no finite numbers"
    low, high = _label_range(task)
    whole = task.kind == "sentiment" or (said.labels == np.round(said.labels)).all()
    if not whole or said.labels.min() < low or said.labels.max() > high:
        return f"labels are not from {low} to {high}"
    return ""


def _label_range(task: Task) -> tuple[int, int]:
    last = len(task.classes) - 1
    if task.kind == "sentiment":
        return -last // 2, last // 2
    return 0, 1 if task.kind == "multilabel" else last


def _same_run_twice(runs: Sequence[Record]) -> Iterator[Pair]:
    """Yield a line for each run whose key or weights another seed has: seeds decide them."""
    for name, values in (("key", [r.key for r in runs]), ("weights", [r.weights for r in runs])):
        first: dict[str, Record] = {}
        for run, value in zip(runs, values, strict=True):
            other = first.setdefault(value, run)
            yield _of(run, name, f"that of seed {other.seed}", f"that of seed {run.seed}")


def _same_network(runs: Sequence[Record]) -> Iterator[Pair]:
    """Yield what the network of a run costs, and which losses it has: all seeds have one network.

    Metrics may differ in their names: some are of a slide, which one test fold has.
    """
    for name in ("cost", *(series := ("ib", "ib_before", "history", "regime"))):
        said = [getattr(run, name) for run in runs]
        told = [sorted(one) if name in series else sorted(one.items()) for one in said]
        usual = Counter(map(str, told)).most_common(1)
        for run, one in zip(runs, told, strict=True):
            yield _of(run, f"names of {name}" if name in series else name, str(one), usual[0][0])


def _made_as_told(params: Params, run: Record) -> Iterator[Pair]:
    """Yield what a record repeats of params.yaml."""
    variant = params.trained_as(run.stage, run.task, run.method)
    own = {**params.method(variant.method).hparams, **variant.hparams}
    told = {name: value for name, value in run.params.items() if name not in Setting._fields}
    yield _of(run, "params", told, own)
    yield _of(
        run, "tuned", {name: run.tuned.get(name) for name in params.tune.rule}, params.tune.rule
    )
    yield _of(run, "instructions", run.environment["instructions"], params.instructions)
    for kind, series in (("history", run.history), ("regime", run.regime)):
        for name, values in series.items():
            yield _of(run, f"epochs of {kind} {name}", len(values), params.training.epochs)


def _split(run: Record, said: Predictions | None, meta: Meta) -> Iterator[Pair]:
    """Yield the test fold of a run, and how many rows it was trained and judged on."""
    folds, counts = meta["folds"], meta["counts"]
    fold = run.seed % folds if folds else None
    held_out = ("test", "valid") if fold is None else (f"fold{fold}",)
    yield _of(run, "source", run.source, meta["source"])
    yield _of(run, "fold", run.fold, fold)
    yield _of(run, "n_test", run.n_test, counts.get(held_out[0], 0))
    trained = sum(count for split, count in counts.items() if split not in held_out)
    yield _of(run, "n_train", run.n_train, trained)
    if said is not None:
        yield _of(run, "predictions", f"{len(said.ids)} rows", f"{run.n_test} rows")


def _without_predictions(results: Results) -> Iterator[Pair]:
    """Yield runs without predictions where others have some: on a task, and on real data."""
    for run in results.all():
        expected = run.task in results.problems or (run.source == "real" and results.problems)
        if expected and run.stage not in SWEEPS:
            yield _of(run, "has predictions", bool(run.predictions), True)


def _without_choices(results: Results) -> Iterator[Pair]:
    """Yield runs for whose method nothing was chosen where it was for others, as above."""
    tuned = {task for task, _ in results.choices}
    for run in results.all():
        method = results.params.trained_as(run.stage, run.task, run.method).method
        if run.task in tuned or (run.source == "real" and tuned):
            yield _of(run, "has a choice", (run.task, method) in results.choices, True)


def _test_rows(results: Results) -> Iterator[Pair]:
    """Yield which rows a run is judged on: all runs on a test fold have the same."""
    by_split: dict[tuple[str, int | None], list[tuple[Record, Mapping[str, str]]]] = {}
    for run in results.all():
        if said := results.predictions.get(run.id):
            by_split.setdefault((run.task, run.fold), []).append((run, _digests(said)))
    for same in by_split.values():
        for name in same[0][1]:
            usual = Counter(digests[name] for _, digests in same).most_common(1)[0][0]
            for run, digests in same:
                yield _of(run, f"{name} of test rows", digests[name], usual)


def _digests(said: Predictions) -> dict[str, str]:
    """Return array -> sha256 of it, for what all methods are judged by."""
    arrays = {"ids": said.ids, "labels": said.labels, "groups": said.groups}
    return {name: sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


def _choice(params: Params, task: str, method: str, choice: Mapping[str, Any]) -> Iterator[Pair]:
    """Yield what was tried for a method, and what was chosen of it, for each test fold."""
    from ibma import methods  # these need torch
    from ibma.experiments import tune

    file, model = paths.choice(task, method).as_posix(), methods.find(params.method(method).file)
    grid, scores, chosen = params.tune.grid, choice["scores"], choice["choices"]
    points = tune.points(grid, model)
    if not scores:  # train shows nothing to choose by: every point in turn
        yield file, "choices", [Setting.of(one) for one in chosen], list(points)
        return
    told = Counter(one["run_fold"] for one in chosen)
    yield file, "test folds", told, Counter({row["run_fold"]: 1 for row in scores})
    for place, one in enumerate(chosen):
        own = [row for row in scores if row["run_fold"] == one["run_fold"]]
        tried = _by_setting(own)
        best, score = _best(tried)
        at = _best({point: tried[point] for point in points if point in tried})[0]
        asked = {*points, *(tune.weights(grid, model, at) if at else ())}
        yield file, f"choice {place}: tried or asked alone", tried.keys() ^ asked, set()
        folds = {row["fold"] for row in own}
        yield file, f"choice {place}: trials", len(own), len(folds) * len(asked)
        yield file, f"choice {place}", Setting.of(one), best
        yield file, f"choice {place}: score", one["score"], score


def _beside_the_runs(inputs: Inputs) -> Iterator[Pair]:
    """Yield which methods, runs and folds other stages measured, and the order of their times."""
    params, file = inputs.params, paths.TIMING.as_posix()
    if methods_timed := inputs.timing.get("methods", {}):
        yield file, "task", inputs.timing.get("task"), params.timing.task
        yield file, "unknown methods", sorted(methods_timed.keys() - params.methods.keys()), []
        for name, own in methods_timed.items():
            yield file, f"order of {name}", 0 < own["low"] <= own["median"] <= own["high"], True
    probed = Counter((row["method"], row["seed"], row["modality"]) for row in inputs.probe)
    modalities = inputs.features.get(params.probe.task, {}).get("modalities", {})
    known = Counter(itertools.product(params.probe.methods, range(params.seeds), modalities))
    yield paths.PROBE.as_posix(), "rows unknown or twice", list((probed - known).elements()), []
    for task, line in inputs.logistic.items():
        folds = {run.fold for run in inputs.results.all() if run.task == task}
        if folds and (runs := line.get("runs")):
            told, all_folds = Counter(run["fold"] for run in runs), Counter(folds)
            yield paths.logistic(task).as_posix(), "folds", told, all_folds


def _by_setting(rows: Iterable[Mapping[str, Any]]) -> dict[Setting, list[float]]:
    """Return setting -> its score on each fold."""
    found: dict[Setting, list[float]] = {}
    for row in rows:
        found.setdefault(Setting.of(row), []).append(row["score"])
    return found


def _best(tried: Mapping[Setting, list[float]]) -> tuple[Setting | None, float | None]:
    """Return the setting with the highest mean, and the mean; the first wins a tie."""
    means = {setting: float(np.mean(scores)) for setting, scores in tried.items()}
    best = max(means, key=lambda setting: means[setting], default=None)
    return best, None if best is None else means[best]


def _of(run: Record, place: str, told: object, right: object) -> Pair:
    return run.id.record.as_posix(), place, told, right
