"""Kinds of tasks: losses, class systems, and metrics against hand-computed and stored values."""

import math

import numpy as np
import pytest
import torch
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from ibma.errors import IbmaError
from ibma.network import tasks
from ibma.network.tasks import Sphere, f1_at_true_rate

NOBODY = np.array(["g"] * 6)


def confident(classes: list[int], outputs: int) -> torch.Tensor:
    """Logits that are all but certain of those classes."""
    return 50.0 * torch.eye(outputs)[classes]


def test_unknown_kind_is_refused():
    kinds = "classify, multilabel, one_class, sentiment$"
    with pytest.raises(IbmaError, match=f"^unknown task kind 'regress': expected one of {kinds}"):
        tasks.build("regress", "ab")


def test_what_float16_cannot_hold_is_kept_as_its_largest():
    found = tasks.kept(torch.tensor([1e9, 0.5, -1e9], requires_grad=True))
    assert found.dtype == np.float16 and found.tolist() == [65504.0, 0.5, -65504.0]


def test_scores_become_the_nearest_class():
    task = tasks.build("sentiment", [str(v) for v in range(-3, 4)])
    y = torch.tensor([-3.0, -2.6, -0.5, 0.5, 1.5, 2.5, 3.0])
    # half to even, as numpy rounds
    assert (task.target(y) - 3).tolist() == np.round(y.numpy()).tolist() == [-3, -3, 0, 0, 2, 2, 3]
    assert task.systems(y).shape == (7, 1, 7)
    beyond = torch.tensor([-9.0, 9.0])
    assert task.target(beyond).tolist() == [0, 6], "clipped to the largest score"


def test_both_readings_of_acc2_and_f1_by_hand():
    """Truth -2, 0, 0, 0.4, 1, 3 against predictions -1, -1, 1, 1, -2, 3."""
    task = tasks.build("sentiment", [str(v) for v in range(-3, 4)])
    y = torch.tensor([-2.0, 0.0, 0.0, 0.4, 1.0, 3.0])
    logits = confident([2, 2, 4, 4, 1, 6], 7)
    found = task.metrics(logits, y, NOBODY)
    assert found["acc7"] == pytest.approx(1 / 6)  # only the 3
    # zeros dropped: truth - + + +, predicted - + - +
    assert found["acc2"] == pytest.approx(3 / 4)
    positive, negative = 2 * 2 / (2 * 2 + 1), 2 * 1 / (2 * 1 + 1)
    assert found["f1"] == pytest.approx(0.75 * positive + 0.25 * negative)
    # zeros kept as positive: truth - + + + + +, predicted - - + + - +
    assert found["acc2_has0"] == pytest.approx(4 / 6)
    positive, negative = 2 * 3 / (2 * 3 + 2), 2 * 1 / (2 * 1 + 2)
    assert found["f1_has0"] == pytest.approx((5 * positive + negative) / 6)


def test_sentiment_with_three_classes_is_named_so():
    task = tasks.build("sentiment", ["negative", "neutral", "positive"])
    y = torch.tensor([-1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    found = task.metrics(confident([0, 1, 2, 1, 1, 1], 3), y, NOBODY)
    names = ("acc3", "acc2", "f1", "acc2_has0", "f1_has0", "corr")
    assert found == dict.fromkeys(names, 1.0) | {"mae": 0.0}


def test_expected_score_not_the_top_class_decides_the_side():
    task = tasks.build("sentiment", ["negative", "neutral", "positive"])
    logits = torch.tensor([[math.log(0.4), math.log(0.1), math.log(0.5)]])
    assert float(task.score(logits)) == pytest.approx(0.1)


@pytest.mark.parametrize("suffix", ["", "2"])
def test_anomaly_metrics_equal_the_official_evaluation(suffix):
    stored = golden("atd_evaluate")
    truth, score = (stored[name].numpy() for name in (f"y_true{suffix}", "y_score"))
    assert tasks.auc(truth, score) == pytest.approx(float(stored[f"auc{suffix}"]), abs=1e-12)
    f1 = float(stored["f1" if not suffix else "f1_2"])
    assert f1_at_true_rate(truth, score) == pytest.approx(f1, abs=1e-12)


def test_one_class_metrics_are_means_over_slices_that_have_both_classes():
    task = tasks.build("one_class", ["normal", "anomalous"])
    groups = np.array(["A", "A", "B", "B", "C", "C"])
    y = torch.tensor([0, 1, 1, 0, 0, 0])
    offsets = torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0, 1.0])[:, None]
    found = task.metrics(offsets, y, groups)
    assert found["auc/A"] == 1.0 and found["auc/B"] == 0.0 and found["auc/C"] is None
    assert found["auc/mean"] == 0.5 and found["f1/mean"] == 0.5


def test_metrics_of_classes_are_means_over_the_classes_that_are_there():
    """Truth a a a b b b, predicted a a b b b c; nobody is a c, whose precision counts nowhere."""
    task = tasks.build("classify", "abc")
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    logits = confident([0, 0, 1, 1, 1, 2], 3)
    found = task.metrics(logits, y, NOBODY)
    assert found["accuracy"] == found["balanced_accuracy"] == pytest.approx(4 / 6)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 4 / 6) / 2)
    # each class against the rest: 9 pairs; a: 6 right, 3 ties; b: 4 right, 4 ties, 1 wrong
    assert found["macro_auc"] == pytest.approx((7.5 / 9 + 6 / 9) / 2)
    assert task.confusion(task.scores(logits), y) == [[2, 1, 0], [0, 2, 1], [0, 0, 0]]


def test_labels_have_an_f1_each_and_counts_of_both_errors():
    task = tasks.build("multilabel", "ab")
    y = torch.tensor([[1.0, 0], [0, 0], [1, 1], [0, 1]])
    logits = torch.tensor([[2.0, -1], [1, -1], [3, 1], [-1, -2]])
    found = task.metrics(logits, y, NOBODY)
    assert task.confusion(task.scores(logits), y) == [[1, 1, 0, 2], [2, 0, 1, 1]]
    # a: F1 of 0 is 2/3, of 1 is 4/5; b: 4/5 and 2/3
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["balanced_accuracy"] == pytest.approx(0.75)


def test_sentiment_has_mae_and_correlation_of_the_expected_score():
    task = tasks.build("sentiment", ["negative", "neutral", "positive"])
    y = torch.tensor([-1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    found = task.metrics(confident([0, 1, 2, 1, 1, 1], 3), y, NOBODY)
    assert found["mae"] == pytest.approx(1 / 6)
    expected = np.corrcoef([-1, 0, 1, 1, 0, 0], [-1, 0, 1, 0, 0, 0])[0, 1]
    assert found["corr"] == pytest.approx(expected)
    assert task.metrics(confident([1] * 6, 3), y, NOBODY)["corr"] is None


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 8), st.floats(-4, 4), st.integers(0, 2**32 - 1))
def test_float16_keeps_the_arg_max_and_nearly_every_metric(classes, scale, seed):
    """Scores are distances from the largest logit: close calls are exact, whatever the scale."""
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(10.0**scale * draw.normal(size=(60, classes)))
    first, second = logits.topk(2).values.unbind(1)
    logits = logits[first - second > 2.0**-24]  # the smallest number of float16
    y = torch.from_numpy(draw.integers(0, classes, len(logits)))
    task = tasks.build("classify", "abcdefgh"[:classes])
    scores = task.scores(logits)
    assert scores.dtype == np.float16 and (scores.argmax(1) == logits.argmax(1).numpy()).all()
    found = task.metrics(logits, y, NOBODY)
    assert found == task.judge(scores, y, NOBODY)
    assert found["accuracy"] == float((y == logits.argmax(1)).double().mean())
    assert task.metrics(7.0 + logits, y, NOBODY)["accuracy"] == found["accuracy"]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_a_collapsed_detector_keeps_its_auc(scale):
    """Distances near 0 and beyond float16 are told apart, beside an outlier too."""
    draw = np.random.default_rng(0)
    task, y = tasks.build("one_class", "na"), torch.from_numpy(draw.integers(0, 2, 400))
    offsets = torch.from_numpy(draw.normal(size=(400, 3)) + 0.5 * y.numpy()[:, None])
    offsets[7] *= 3000
    groups = np.array(["g"] * 400)
    found = task.metrics(math.sqrt(scale) * offsets, y, groups)
    exact = tasks.auc(y.numpy(), offsets.square().sum(1).numpy())
    assert found["auc/mean"] == pytest.approx(exact, abs=1e-9)


def test_a_head_answers_in_float32_under_autocast_too():
    head = tasks.build("classify", "abc").head(4)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(x.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, head(x.bfloat16().float()))


def test_sphere_equals_the_official_one_class_step():
    """Centre, loss and one Adam step of the official trainer; scores afterwards."""
    values = golden("deepsvdd_one-class")
    sphere = Sphere(3, 4).double()
    sphere.weight.data.copy_(values["W0"])
    with torch.no_grad():
        sphere.centre_on(sphere(values["X"]).mean(0))
    torch.testing.assert_close(sphere.get_buffer("centre"), values["c"], rtol=0, atol=1e-8)
    task = tasks.build("one_class", ["normal", "anomalous"])
    optimiser = torch.optim.Adam(sphere.parameters(), lr=1e-3, weight_decay=1e-6)
    loss = task.loss(sphere(values["X"]), torch.zeros(12))
    assert float(loss.detach()) == pytest.approx(float(values["loss"]), abs=1e-8)
    loss.backward()
    optimiser.step()
    torch.testing.assert_close(sphere.weight.data, values["W1"], rtol=0, atol=1e-8)
    scores = task.loss_per_sample(sphere(values["X"]), torch.zeros(12)).detach()
    torch.testing.assert_close(scores, values["scores"], rtol=0, atol=1e-8)


def test_centres_near_zero_are_pushed_away_and_exact_zeros_stay():
    values, sphere = golden("deepsvdd_center_eps"), Sphere(2, 4).double()
    sphere.centre_on(values["mean"])
    torch.testing.assert_close(sphere.get_buffer("centre"), values["c"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["classify", "multilabel", "sentiment", "one_class"])
def test_probabilities_of_every_system_sum_to_one(kind):
    task = tasks.build(kind, "abc")
    logits = torch.randn(4, task.outputs, generator=torch.Generator().manual_seed(0))
    chances = task.log_probabilities(logits).exp()
    assert chances.shape == {"multilabel": (4, 3, 2), "one_class": (4, 1, 1)}.get(kind, (4, 1, 3))
    torch.testing.assert_close(chances.sum(-1), torch.ones(chances.shape[:2]))


@pytest.mark.parametrize("kind", ["classify", "multilabel", "sentiment", "one_class"])
def test_a_loss_is_the_mean_of_those_of_its_samples(kind):
    task, y = tasks.build(kind, "abc"), torch.tensor([0, 1, 0, 1])
    y = torch.eye(3)[y] if kind == "multilabel" else y
    logits = torch.randn(4, task.outputs, generator=torch.Generator().manual_seed(0))
    each = task.loss_per_sample(logits, y)
    alone = [task.loss(logits[[row]], y[[row]]) for row in range(4)]
    torch.testing.assert_close(each, torch.stack(alone))
    torch.testing.assert_close(task.loss(logits, y), each.mean())


@pytest.mark.parametrize("kind", ["classify", "multilabel", "sentiment", "one_class"])
def test_the_average_of_draws_is_that_of_their_probabilities(kind):
    """Of offsets for one-class data, whose only class is certain."""
    task = tasks.build(kind, "abc")
    draws = torch.randn(5, 4, task.outputs, generator=torch.Generator().manual_seed(0))
    read = torch.Tensor.clone if kind == "one_class" else lambda x: task.log_probabilities(x).exp()
    each = torch.stack([read(draw) for draw in draws])
    torch.testing.assert_close(read(task.average(draws)), each.mean(0))
    if kind == "classify":
        torch.testing.assert_close(task.average(draws).exp(), each.mean(0)[:, 0])


def test_a_loss_of_labels_is_the_mean_over_them_of_each_sample():
    task = tasks.build("multilabel", "abc")
    logits, y = torch.tensor([[0.5, -1.0, 2.0], [0.0, 3.0, -2.0]]), torch.eye(3)[:2]
    chances = torch.sigmoid(logits)
    expected = -torch.where(y > 0, chances, 1 - chances).log().mean(1)
    torch.testing.assert_close(task.loss_per_sample(logits, y), expected)
    torch.testing.assert_close(task.loss(logits, y), expected.mean())


def test_a_label_is_predicted_above_one_half():
    task, y = tasks.build("multilabel", "a"), torch.tensor([[0.0], [1.0], [1.0]])
    logits = torch.tensor([[0.0], [0.0], [0.1]])
    assert task.confusion(task.scores(logits), y) == [[1, 0, 1, 1]]
    assert task.metrics(logits, y, NOBODY[:3])["balanced_accuracy"] == pytest.approx(0.75)


def test_normal_samples_are_one_class_and_scores_have_a_table_of_classes():
    one = tasks.build("one_class", ["normal", "anomalous"]).systems(torch.zeros(4))
    assert one.shape == (4, 1, 1) and one.eq(1).all()
    task, y = tasks.build("sentiment", "abc"), torch.tensor([-1.0, -1.0, 0.2, 1.0])
    found = task.confusion(task.scores(confident([0, 2, 1, 1], 3)), y)
    assert found == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]


def test_metrics_of_no_rows_are_undefined():
    for kind in ("classify", "sentiment"):
        found = tasks.build(kind, "abc").metrics(torch.zeros(0, 3), torch.zeros(0).long(), NOBODY)
        assert set(found.values()) == {None}, kind


def test_as_many_are_flagged_as_there_are_anomalies():
    scores = np.arange(1000.0)
    for anomalies in (1, 100, 500, 999):
        truth = (scores >= 1000 - anomalies).astype(int)
        assert f1_at_true_rate(truth, scores) == 1.0


def test_chances_have_a_column_for_each_class_and_for_each_label_even_one():
    logits = torch.tensor([[0.0], [2.0]])
    for kind, classes, columns in (
        ("classify", ("cat", "dog"), 2),
        ("multilabel", ("cat",), 1),
        ("multilabel", ("cat", "dog", "eel"), 3),
    ):
        task = tasks.build(kind, classes)
        chances = tasks.per_class(task, task.log_probabilities(logits.expand(-1, columns)).exp())
        assert chances.shape == (2, columns)
    assert tasks.per_class(task, task.log_probabilities(logits.expand(-1, 3)).exp())[1, 2] > 0.8
