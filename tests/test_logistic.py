"""Logistic regression on stored features: the same rows as every method, or a reason why not."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from ibma import paths
from ibma.experiments import logistic
from ibma.features import meta as described
from ibma.features import store
from ibma.files import read_json


def test_it_learns_from_the_training_rows_of_a_fold_and_is_judged_on_its_test_rows(fake_store):
    features = store.opened(fake_store("classify", 2, 4))
    x = np.concatenate([np.asarray(a, dtype=np.float64) for a in features.arrays.values()], axis=1)
    y = features.labels[:, 0]
    for run in range(4):
        train, test = features.training(run).index, features.test(run).index
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(max_iter=5000).fit(scaler.transform(x[train]), y[train])
        found = logistic.judge(features, run)
        expected = (model.predict(scaler.transform(x[test])) == y[test]).mean()
        assert found["fold"] == run
        assert found["metrics"]["accuracy"] == pytest.approx(expected)
        assert expected > 0.9


class Pair(list):
    """Rows of two classes, as a store hands them out; the list is their index."""

    def __init__(self, x: np.ndarray, y: np.ndarray, index: range) -> None:
        super().__init__(index)
        self.features, self.index, self._y = SimpleNamespace(arrays={"a": x}), list(index), y

    def labels(self) -> torch.Tensor:
        return torch.from_numpy(self._y[self.index])

    def groups(self) -> np.ndarray:
        return np.array([str(i) for i in self.index])


def test_of_two_classes_far_apart_no_two_test_rows_tie():
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 60)
    x = rng.normal(size=(120, 1)) + 200 * y[:, None]
    x[100:] *= 1000.0  # probabilities of the test rows are 0 and 1 in every floating-point number
    features = SimpleNamespace(
        meta={"kind": "classify", "classes": ["no", "yes"]},
        training=lambda _: Pair(x, y, range(100)),
        test=lambda _: Pair(x, np.roll(y, 1), range(100, 120)),
        fold=lambda _: None,
    )
    found = logistic.judge(features, 0)["metrics"]
    assert found["auc"] == pytest.approx(roc_auc_score(np.roll(y, 1)[100:], x[100:, 0]))


def test_scores_are_classes_and_a_class_that_train_lacks_is_never_chosen(fake_store):
    features = store.opened(fake_store("sentiment", 2, 0))
    metrics = logistic.judge(features, 0)["metrics"]
    assert metrics["acc2"] > 0.9 and set(metrics) >= {"acc3", "f1", "acc2_has0"}


def test_the_majority_class_is_that_of_the_training_rows(fake_store):
    features = store.opened(fake_store("classify", 2, 4))
    for run in range(4):
        train, test = features.training(run).index, features.test(run).index
        y = features.labels[:, 0].astype(int)
        found = logistic.judge(features, run)["majority"]
        assert found["accuracy"] == pytest.approx(
            (y[test] == np.bincount(y[train]).argmax()).mean()
        )


def test_what_it_cannot_read_is_not_run_and_says_why(fake_store, tmp_path, monkeypatch, capsys):
    meta = described.read(fake_store("classify", 2, 0))
    assert logistic.unfit(meta) is None
    frames = {"modalities": {"view0": {"kind": "frames"}}}
    words = {"modalities": {"view0": {"kind": "text"}}}
    for changed, said in (
        ({"kind": "multilabel"}, "a sample has several labels"),
        ({"kind": "one_class"}, "the training rows have one class"),
        (frames, "'view0' is frames, no vector"),
        (words, "'view0' is token ids, no vector"),
        ({"absent": {"view0": 3, "view1": 0}}, "samples lack 'view0'"),
        ({"missing": "no data"}, "no data"),
    ):
        assert logistic.unfit(meta | changed) == said
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    logistic.judge_task("gone")
    assert capsys.readouterr().err == "gone: logistic regression not run: no features\n"
    written = read_json(paths.logistic("gone"), {})
    assert written == {"missing": "no features", "runs": []}
