"""Metrics against slow implementations of their definitions: ties, one class, constant scores."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ibma.network import tasks

# few values, so that ties, absent classes and constant scores are common
SCORES = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 2.0]), min_size=1, max_size=12)
LABELS = st.lists(st.integers(0, 2), min_size=1, max_size=12)
FEW = settings(deadline=None, max_examples=200)


def same(found, expected):
    if expected is None:
        assert found is None
    else:
        assert found == pytest.approx(expected, abs=1e-9)


def slow_auc(truth, scores):
    """Count pairs that are in the right order, ties as a half."""
    pairs = [
        (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
        for i, j in itertools.product(range(len(truth)), repeat=2)
        if truth[i] and not truth[j]
    ]
    return sum(pairs) / len(pairs) if pairs else None


def slow_f1(truth, found, one):
    hits = sum(t == one and f == one for t, f in zip(truth, found, strict=True))
    wrong = sum((t == one) != (f == one) for t, f in zip(truth, found, strict=True))
    return 2 * hits / (2 * hits + wrong) if hits + wrong else 0.0


def slow_mean(values):
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@FEW
@given(st.data(), SCORES)
def test_auc_counts_pairs(data, scores):
    size = len(scores)
    truth = data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    same(tasks.auc(np.array(truth), np.array(scores)), slow_auc(truth, scores))


@FEW
@given(st.data(), SCORES)
def test_f1_at_the_true_rate_flags_what_is_above_the_percentile(data, scores):
    size = len(scores)
    truth = data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    expected = None
    if 0 < sum(truth) < size:
        ordered, place = sorted(scores), (1 - sum(truth) / size) * (size - 1)
        low, high = ordered[math.floor(place + 1e-9)], ordered[math.ceil(place - 1e-9)]
        threshold = low + (high - low) * (place - math.floor(place + 1e-9))
        # at a tie with the threshold rounding decides: leave these out
        if any(s != low and abs(s - threshold) < 1e-9 for s in scores if low != high):
            return
        expected = slow_f1(truth, [int(s >= threshold - 1e-12) for s in scores], 1)
    same(tasks.f1_at_true_rate(np.array(truth), np.array(scores)), expected)


@FEW
@given(st.data(), LABELS)
def test_means_over_classes_are_over_those_that_are_there(data, truth):
    size = len(truth)
    found = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    there = sorted(set(truth))
    made = tasks.averaged(np.array(truth), np.array(found))
    recalls = [
        sum(f == one for t, f in zip(truth, found, strict=True) if t == one) / truth.count(one)
        for one in there
    ]
    same(made["balanced_accuracy"], slow_mean(recalls))
    same(made["macro_f1"], slow_mean([slow_f1(truth, found, one) for one in there]))
    counted = tasks.counts(np.array(truth), np.array(found), 3)
    pairs = list(zip(truth, found, strict=True))
    assert counted == [[pairs.count((t, f)) for f in range(3)] for t in range(3)]


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 12), st.integers(0, 2**32 - 1))
def test_macro_auc_is_the_mean_of_each_class_against_the_rest_by_probability(size, seed):
    """Logits whose rows are of different sizes, so that probabilities order rows otherwise."""
    draw = np.random.default_rng(seed)
    logits = np.round(draw.normal(size=(size, 3)) * draw.choice([0.5, 4.0], (size, 1)), 1)
    truth = draw.integers(0, 3, size)
    task = tasks.build("classify", "abc")
    found = task.metrics(torch.from_numpy(logits), torch.from_numpy(truth), np.array(["g"] * size))
    kept = task.scores(torch.from_numpy(logits)).astype(float)
    chances = np.exp(kept) / np.exp(kept).sum(1, keepdims=True)
    each = [slow_auc(truth == one, chances[:, one]) for one in range(3)]
    same(found["macro_auc"], slow_mean(each))


@FEW
@given(st.data(), SCORES)
def test_correlation_is_none_where_a_side_is_constant(data, left):
    size = len(left)
    values = st.sampled_from([-1.0, 0.0, 1.0])
    right = data.draw(st.lists(values, min_size=size, max_size=size))
    expected = None
    if len(set(left)) > 1 and len(set(right)) > 1:
        a, b = sum(left) / size, sum(right) / size
        both = sum((x - a) * (y - b) for x, y in zip(left, right, strict=True))
        squares = sum((x - a) ** 2 for x in left) * sum((y - b) ** 2 for y in right)
        expected = both / math.sqrt(squares)
    same(tasks.correlation(np.array(left), np.array(right)), expected)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 8))
def test_metrics_of_every_kind_are_defined_or_none_and_never_raise(data, size):
    """One row, one class, constant scores, one group."""
    level = st.sampled_from([-1.0, 0.0, 1.0])
    logits = data.draw(st.lists(st.tuples(level, level, level), min_size=size, max_size=size))
    groups = np.array(data.draw(st.lists(st.sampled_from("AB"), min_size=size, max_size=size)))
    whole = data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    for kind in ("classify", "multilabel", "sentiment", "one_class"):
        names = ("normal", "anomalous") if kind == "one_class" else ("a", "b", "c")
        y = torch.tensor(whole)
        y = torch.stack([y.float()] * 3, 1) if kind == "multilabel" else y
        made = tasks.build(kind, names).metrics(torch.tensor(logits), y, groups)
        for name, value in made.items():
            assert value is None or math.isfinite(value), name
            if name not in ("mae", "corr", "mauc_defined") and value is not None:
                assert -1e-9 <= value <= 1 + 1e-9, name
