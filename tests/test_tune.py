"""Five-fold choice inside train: no test row, groups unsplit, equal budget, resumable."""

import json
from pathlib import Path

import pytest

from ibma import params, paths
from ibma.errors import IbmaError
from ibma.experiments import tune
from ibma.features import store
from ibma.files import write_json
from ibma.training.cell import chosen

GRID = {"lr": [0.001, 0.01], "weight_decay": [0.0, 0.1], "eta": [0.1, 0.9]}
TUNING = params.Tune.model_validate({"folds": 3, "epochs": 1, "budget": 3, "grid": GRID})
TWIN = Path(__file__).parent.parent / "profiles/twin.yaml"
PROFILE = params.load(TWIN).model_copy(update={"tune": TUNING})


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """Choose for one cell, in a folder of its own, and write what stage `tune` writes."""
    monkeypatch.chdir(tmp_path)

    def run(cell):
        (content,) = tune.choose(PROFILE, [cell]).values()
        write_json(paths.choice(cell.task, cell.method), content)
        return json.loads(paths.choice(cell.task, cell.method).read_text())

    return run


def test_every_method_gets_the_same_budget():
    assert len(tune.grid(TUNING, reads_eta=True)) == len(tune.grid(TUNING, reads_eta=False)) == 3
    assert tune.grid(TUNING, True) == tune.grid(TUNING, True)
    assert all(point.eta is None for point in tune.grid(TUNING, False))


def test_folds_are_inside_train_and_never_split_a_group(make_cell):
    features = make_cell().open()
    training = features.training(0)
    held = []
    for learn, judge in training.hold_outs(3):
        assert not set(features.groups[learn.index]) & set(features.groups[judge.index])
        assert set(learn.index) | set(judge.index) == set(training.index)
        held.extend(judge.index)
    assert sorted(held) == training.index.tolist()
    assert not set(held) & set(features.test(0).index)


def test_the_training_type_cannot_hold_a_test_row(make_cell):
    training = make_cell().open().training(0)
    assert isinstance(training, store.TrainingSet) and not isinstance(training, store.TestSet)
    assert not hasattr(store.TestSet, "hold_outs")


def test_choice_is_the_best_mean_and_every_fold_is_on_file(make_cell, choose):
    cell = make_cell()
    content = choose(cell)
    assert len(content["scores"]) == 3 * 3
    means = {}
    for row in content["scores"]:
        means.setdefault((row["lr"], row["weight_decay"], row["eta"]), []).append(row["score"])
    best = max(sum(v) / 3 for v in means.values())
    assert content["choices"][0]["score"] == pytest.approx(best)
    assert chosen("fake", "ibma", None, None).eta in (0.1, 0.9)
    assert chosen("fake", "ibma", None, 0.3).eta == 0.3


def test_an_override_of_eta_does_not_reach_methods_that_do_not_read_it(make_cell, choose):
    choose(make_cell(method="concat"))
    assert chosen("fake", "concat", None, 0.3).eta is None


def test_one_choice_per_test_fold_and_none_where_train_shows_nothing(make_cell, choose):
    assert [one["run_fold"] for one in choose(make_cell(folds=3))["choices"]] == [0, 1, 2]
    (untried,) = choose(make_cell(kind="one_class"))["choices"]
    assert untried["score"] is None and untried["run_fold"] is None


def test_trials_are_tried_once_and_damaged_scores_again(make_cell, choose, capsys):
    cell = make_cell()
    first = choose(cell)
    assert capsys.readouterr().err.endswith("tune: 0 kept, 3 tried\n")
    kept = sorted(paths.store().rglob("*.json"))
    kept[0].write_text("{")
    assert choose(cell) == first
    assert capsys.readouterr().err.endswith("tune: 2 kept, 1 tried\n")


def test_a_missing_or_damaged_choice_says_what_to_run(tmp_path):
    with pytest.raises(IbmaError, match="missing: run `dvc repro tune@fake`"):
        chosen("fake", "ibma", None, None, tmp_path)
    write_json(tmp_path / paths.choice("fake", "ibma"), {"choices": []})
    with pytest.raises(IbmaError, match="damaged: run `dvc repro -f tune@fake`"):
        chosen("fake", "ibma", None, None, tmp_path)
