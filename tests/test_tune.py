"""Five-fold choice inside train: no test row, groups unsplit, equal budget, resumable."""

import json

import pytest

from ibma.errors import IbmaError
from ibma.experiments import tune
from ibma.features import store
from ibma.params import Tuning

TUNING = Tuning(
    folds=3,
    epochs=1,
    budget=3,
    grid={"lr": [0.001, 0.01], "weight_decay": [0.0, 0.1], "eta": [0.1, 0.9]},
)


def test_every_method_gets_the_same_budget():
    assert len(tune.grid(TUNING, reads_eta=True)) == len(tune.grid(TUNING, reads_eta=False)) == 3
    assert tune.grid(TUNING, True) == tune.grid(TUNING, True)
    assert all(point.eta is None for point in tune.grid(TUNING, False))


def test_folds_are_inside_train_and_never_split_a_group(make_cell):
    features = make_cell().features
    training = features.training(0)
    held = []
    for learn, judge in training.hold_outs(3):
        assert not set(features.groups[learn.index]) & set(features.groups[judge.index])
        assert set(learn.index) | set(judge.index) == set(training.index)
        held.extend(judge.index)
    assert sorted(held) == training.index.tolist()
    assert not set(held) & set(features.test(0).index)


def test_the_training_type_cannot_hold_a_test_row(make_cell):
    training = make_cell().features.training(0)
    assert isinstance(training, store.TrainingSet) and not isinstance(training, store.TestSet)
    assert not hasattr(store.TestSet, "hold_outs")


def test_choice_is_the_best_mean_and_every_fold_is_on_file(make_cell, tmp_path):
    cell = make_cell()
    tune.tune(cell, TUNING, tmp_path, reads_eta=True)
    content = json.loads((tmp_path / "ibma.json").read_text())
    assert len(content["scores"]) == 3 * 3
    means = {}
    for row in content["scores"]:
        means.setdefault((row["lr"], row["weight_decay"], row["eta"]), []).append(row["score"])
    best = max(sum(v) / 3 for v in means.values())
    assert content["choices"][0]["score"] == pytest.approx(best)
    chosen = tune.chosen(tmp_path / "ibma.json", None, None)
    assert chosen.eta in (0.1, 0.9)
    assert tune.chosen(tmp_path / "ibma.json", None, 0.3).eta == 0.3


def test_an_override_of_eta_does_not_reach_methods_that_do_not_read_it(make_cell, tmp_path):
    tune.tune(make_cell(method="concat"), TUNING, tmp_path, reads_eta=False)
    assert tune.chosen(tmp_path / "concat.json", None, 0.3).eta is None


def test_one_choice_per_test_fold(make_cell, tmp_path):
    tune.tune(make_cell(folds=3), TUNING, tmp_path, reads_eta=True)
    content = json.loads((tmp_path / "ibma.json").read_text())
    assert [choice["run_fold"] for choice in content["choices"]] == [0, 1, 2]


def test_interrupted_tuning_keeps_its_trials(make_cell, tmp_path, monkeypatch):
    cell = make_cell()
    trial, done = tune._score, []

    def fails_at_the_fifth(*args):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(args)
        return trial(*args)

    monkeypatch.setattr(tune, "_score", fails_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        tune.tune(cell, TUNING, tmp_path, reads_eta=True)
    done.clear()
    monkeypatch.setattr(tune, "_score", lambda *args: done.append(args) or trial(*args))
    tune.tune(cell, TUNING, tmp_path, reads_eta=True)
    assert len(done) == 9 - 4
    tune.tune(cell, TUNING, tmp_path, reads_eta=True)
    assert len(done) == 5, "a finished choice is kept"


def test_missing_choice_says_what_to_run(tmp_path):
    with pytest.raises(IbmaError, match="run `dvc repro tune` first"):
        tune.chosen(tmp_path / "ibma.json", None, None)
