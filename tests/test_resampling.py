"""Metrics under resampled test rows equal those of the rows drawn, and cover what they promise."""

import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ibma.features.store import label_tensor
from ibma.network import tasks
from ibma.results import resampling
from ibma.results.records import Results
from ibma.training.predictions import Predictions
from ibma.training.record import RunId

KINDS = {
    "classify": (tasks.build("classify", "abc"), ["accuracy"]),
    "two classes": (tasks.build("classify", "ab"), ["accuracy", "auc"]),
    "sentiment": (tasks.build("sentiment", "abc"), ["acc3", "acc2", "f1", "acc2_has0", "f1_has0"]),
    "multilabel": (tasks.build("multilabel", "abc"), ["auc/a", "auc/b", "mauc"]),
    "one_class": (tasks.build("one_class", "na"), ["auc/g0", "auc/g1", "auc/mean"]),
}


def said(task: tasks.Task, seed: int, n: int = 80, groups: int = 2) -> Predictions:
    """Predictions that are better than chance, with ties."""
    draw = np.random.default_rng(seed)
    many = task.outputs if task.kind == "multilabel" else 1
    top = {"one_class": 2, "multilabel": 2}.get(task.kind, task.outputs)
    labels = draw.integers(0, top, (n, many)).astype(float)
    if task.kind == "sentiment":
        labels -= 1
    width = 3 if task.kind == "one_class" else task.outputs
    logits = torch.from_numpy(np.round(draw.normal(size=(n, width)) + labels, 1))
    names = np.array([f"g{row % groups}" for row in range(n)])
    ids = np.array([f"s{row:04d}" for row in range(n)])
    return Predictions(ids, labels, names, task.scores(logits))


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_weighted_metric_is_that_of_rows_counted_as_often(kind, seed):
    task, names = KINDS[kind]
    one = said(task, seed)
    draw = np.random.default_rng(seed)
    rows = draw.integers(0, len(one.ids), len(one.ids))
    weights = np.stack([np.ones(len(one.ids)), np.bincount(rows, minlength=len(one.ids))])
    for drawn, place in ((np.arange(len(one.ids)), 0), (rows, 1)):
        y = label_tensor(task.kind, one.labels[drawn])
        expected = task.judge(one.scores[drawn], y, one.groups[drawn])
        for name in names:
            found = resampling.weighted(task, one, name, weights.astype(float))
            value = np.nan if expected[name] is None else expected[name]
            assert found[place] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    assert resampling.weighted(task, one, "macro_f1", weights.astype(float)) is None


def test_labels_and_slices_of_one_side_are_left_out_and_one_row_of_a_side_is_enough():
    """Of label a one row is positive, of b none, of c all; group y/1 has normal rows only."""
    task, names = tasks.build("multilabel", "abc"), ["auc/a", "auc/b", "auc/c", "mauc"]
    labels = np.array([[1.0, 0, 1], [0, 0, 1], [0, 0, 1]])
    scores = np.array([[0.5, 1, 1], [0.2, 2, 1], [0.7, 3, 2]], dtype=np.float16)
    groups = np.array(["x", "x", "x"])
    one, weights = Predictions(np.array(["1", "2", "3"]), labels, groups, scores), np.ones((1, 3))
    found = [resampling.weighted(task, one, name, weights) for name in names]
    assert found[0] == found[3] == [0.5] and found[1] is found[2] is None
    task, names = tasks.build("one_class", "na"), ["auc/x/1", "auc/y/1", "auc/mean", "f1/x/1"]
    groups = np.array(["x/1", "x/1", "y/1"])
    one = Predictions(one.ids, np.array([[0.0], [1], [0]]), groups, scores[:, 1:2])
    found = [resampling.weighted(task, one, name, weights) for name in names]
    assert found[0] == found[2] == [1.0] and found[1] is found[3] is None


def test_a_draw_without_rows_leaves_a_metric_undefined_and_says_nothing():
    task, _ = KINDS["two classes"]
    one = said(task, 0, 4)
    with warnings.catch_warnings(action="error"):
        for metric in ("accuracy", "auc"):
            assert np.isnan(resampling.weighted(task, one, metric, np.zeros((1, 4)))).all()


def test_draws_keep_the_size_of_every_group_and_pool_rows_that_are_alone():
    groups = ["a"] * 5 + ["b"] * 7 + ["c", "d", "e"]
    counts = resampling.draws(groups)
    assert counts.shape == (resampling.RESAMPLES, 15)
    for rows in (slice(0, 5), slice(5, 12), slice(12, 15)):
        assert (counts[:, rows].sum(1) == counts[0, rows].size).all()
        assert counts[:, rows].var(0).min() > 0.5
    assert np.array_equal(counts, resampling.draws(groups))


def runs(task: tasks.Task, n: int, groups: int, seeds: int = 10) -> Results:
    made = {
        RunId("train", "t", method, seed): said(task, 100 * place + seed, n, groups)
        for place, method in enumerate(("ours", "theirs"))
        for seed in range(seeds)
    }
    return Results(None, {}, {}, {}, made, {"t": task})


class Run:
    """All of a record that resampling reads."""

    def __init__(self, method: str, seed: int) -> None:
        self.seed, self.id = seed, RunId("train", "t", method, seed)


def sides(seeds: int = 10) -> list[list[Run]]:
    return [[Run(method, seed) for seed in range(seeds)] for method in ("ours", "theirs")]


def test_a_method_against_itself_differs_under_no_draw():
    task, _ = KINDS["classify"]
    made = resampling.Resampled(runs(task, 80, 4))
    ours, theirs = sides()
    assert (made.difference(ours, ours, "accuracy") == 0).all()
    there, back = (made.difference(*pair, "accuracy") for pair in ((ours, theirs), (theirs, ours)))
    assert np.allclose(there, -back) and there.std() > 0
    each = [
        made.of(a.id, "accuracy") - made.of(b.id, "accuracy")
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert np.allclose(there, sum(each) / 10) and there.shape == (resampling.RESAMPLES,)
    assert made.difference(ours[3:], theirs[:3], "accuracy") is None, "no run in common"
    assert made.difference(ours, theirs, "macro_f1") is None
    assert made.difference([Run("lost", 0)], theirs, "accuracy") is None


def test_a_draw_follows_a_sample_by_its_id_and_keeps_the_size_of_its_group():
    """All rows of a group are alike, so that no draw moves the accuracy, whatever the order."""
    task, order = KINDS["classify"][0], np.random.default_rng(0).permutation(12)
    right = np.arange(12) < 5
    ids, groups = np.array([f"s{row:02d}" for row in range(12)]), np.where(right, "a", "b")
    scores = task.scores(torch.eye(3)[torch.from_numpy(np.where(right, 0, 1))])
    listed = Predictions(ids, np.zeros((12, 1)), groups, scores)
    mixed = Predictions(ids[order], np.zeros((12, 1)), groups[order], scores[order])
    made = {RunId("train", "t", "ours", seed): one for seed, one in enumerate((listed, mixed))}
    resampled = resampling.Resampled(Results(None, {}, {}, {}, made, {"t": task}))
    for one in made:
        assert resampled.of(one, "accuracy") == pytest.approx(np.full(resampling.RESAMPLES, 5 / 12))


def test_the_spread_over_rows_is_that_of_accuracies_by_theory():
    """One run, one group: the bootstrap variance of a share is p (1 - p) / n."""
    task, _ = KINDS["classify"]
    made = resampling.Resampled(runs(task, 400, 1, seeds=1))
    values = made.of(RunId("train", "t", "ours", 0), "accuracy")
    p = values.mean()
    assert values.std() == pytest.approx((p * (1 - p) / 400) ** 0.5, rel=0.1)


def test_a_page_of_runs_is_resampled_within_seconds():
    """22 methods of ten runs on 752 rows; a study has about six such tasks."""
    task, _ = KINDS["two classes"]
    one = said(task, 0, 752, 31)
    made = {RunId("train", "t", f"m{m}", s): one for m in range(22) for s in range(10)}
    resampled = resampling.Resampled(Results(None, {}, {}, {}, made, {"t": task}))
    started = time.process_time()
    for run in made:
        resampled.of(run, "auc")
    assert time.process_time() - started < 12
