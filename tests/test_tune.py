"""The choice inside train: no test row, groups unsplit, alike for every method, resumable."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ibma import methods, params, paths
from ibma.errors import IbmaError
from ibma.experiments import tune
from ibma.features import store
from ibma.files import read_json, write_json
from ibma.network import tasks
from ibma.params import Variant
from ibma.training import record
from ibma.training.cell import Setting, chosen, varied

GRID = {
    "lr": [0.001, 0.01],
    "weight_decay": [0.0, 0.1],
    "eta": [0.1, 0.9],
    "weight_factor": [1.0, 10.0],
}
TUNING = params.Tune.model_validate({"folds": 3, "epochs": 1, "grid": GRID})
TWIN = Path(__file__).parent.parent / "profiles/twin.yaml"
PROFILE = params.load(TWIN).model_copy(update={"tune": TUNING, "seeds": 5})


def setting_of(row: dict) -> Setting:
    return Setting(*(row[name] for name in Setting._fields))


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """Choose for one cell, in a folder of its own, and write what stage `tune` writes."""
    monkeypatch.chdir(tmp_path)

    def run(cell):
        (content,) = tune.choose(PROFILE, [cell]).values()
        write_json(paths.choice(cell.task, cell.method), content)
        return read_json(paths.choice(cell.task, cell.method), {})

    return run


def test_every_method_meets_the_same_points_in_the_same_order_and_as_many_weights():
    counts = {}
    for name in methods.names():
        model = methods.find(name)
        points = tune.points(TUNING.grid, model)
        assert [(one.lr, one.weight_decay) for one in points] == TUNING.grid.points, name
        assert {one.weight_factor for one in points} == {1}, name
        more = tune.weights(TUNING.grid, model, points[1])
        assert {(one.lr, one.weight_decay) for one in more} <= {TUNING.grid.points[1]}, name
        own = bool(model.own_weights)  # they come before eta
        varied = {one.weight_factor if own else one.eta for one in more}
        assert len(varied) == len(more) and points[1] not in more, name
        counts.setdefault(bool(model.reads_eta or model.own_weights), set()).add(len(more))
    assert counts == {True: {len(GRID["eta"]) - 1}, False: {0}}
    for wrong in ({"weight_factor": [1]}, {"weight_factor": [0.1, 10]}):
        with pytest.raises(ValueError, match="as many entries as eta|1 among them"):
            params.Grid.model_validate(GRID | wrong)


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


def test_what_a_test_fold_is_tuned_on_holds_no_row_of_it(make_cell):
    splits = tune.Split.all_of(make_cell(folds=3))
    assert [split.run for split in splits] == [0, 1, 2]
    for split in splits:
        test = set(split.cell.open().test(split.run).index)
        met = {row for fold in split.folds(3) for rows in fold for row in rows.index}
        assert not met & test and met | test == set(range(72))


def test_a_trial_learns_from_a_fold_and_is_scored_on_what_it_leaves_out(make_cell, monkeypatch):
    fits, judged = [], []

    class Watched(tune.Fit):
        def __init__(self, model, rows, setting, **more):
            fits.append((rows.index.tolist(), setting, more["seed"], more["epochs"]))
            super().__init__(model, rows, setting, **more)

    def predict(model, rows, device):
        """All right for the first setting; the second has the first three rows wrong."""
        judged.append(rows.index.tolist())
        y = rows.labels()
        y[: 3 * (len(judged) % 2 == 0)] += 1
        return torch.eye(3)[y % 3], {}

    monkeypatch.setattr(tune, "Fit", Watched)
    monkeypatch.setattr(tune, "predict", predict)
    split, settings = tune.Split(make_cell(), 0), (Setting(0.01, 0.0, 0.5), Setting(0.1, 0.0, 0.5))
    for fold, (learn, judge) in enumerate(split.folds(3)):
        fits.clear(), judged.clear()
        scores = tune.try_settings(tune.Trials(split, TUNING, settings, fold))
        assert fits == [(learn.index.tolist(), one, fold, TUNING.epochs) for one in settings]
        assert judged == [judge.index.tolist()] * 2
        assert [setting_of(row) for row in scores] == list(settings)
        assert [row["score"] for row in scores] == [1, pytest.approx(1 - 3 / len(judge))]
    monkeypatch.setattr(tasks.Classify, "metrics", lambda *_: {"accuracy": None})
    undefined = tune.try_settings(tune.Trials(split, TUNING, settings, 0))
    assert [row["score"] for row in undefined] == [0, 0], "it must win over nothing"


def test_a_choice_changes_with_the_code_that_trains(make_cell, choose, monkeypatch):
    before = choose(make_cell())["key"]
    assert choose(make_cell())["key"] == before
    monkeypatch.setattr(record, "code_digest", lambda _: "edited")
    assert choose(make_cell())["key"] != before


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ((0, 1, 2), "n_splits=3 cannot be greater than"),
        ((0, 0), "leaves less than two to train on"),
    ],
)
def test_too_few_samples_for_the_folds_are_one_line(make_cell, monkeypatch, classes, said):
    cell = make_cell()
    training = cell.open().training(0)
    labels, groups = training.labels().tolist(), training.groups().tolist()
    places = [next(i for i, y in enumerate(labels) if y == classes[0])]
    for one in classes[1:]:  # each in a group of its own
        met = {groups[i] for i in places}
        places.append(next(i for i, y in enumerate(labels) if y == one and groups[i] not in met))
    few = SimpleNamespace(training=lambda run: training.taking(training.index[places]))
    monkeypatch.setattr(store, "opened", lambda folder: few)
    with pytest.raises(IbmaError, match=f"samples of run 5: .*{said}.* Lower tune.folds") as caught:
        tune.Split(cell, 5).folds(3)
    assert "\n" not in str(caught.value)


def test_the_training_type_cannot_hold_a_test_row(make_cell):
    training = make_cell().open().training(0)
    assert isinstance(training, store.TrainingSet) and not isinstance(training, store.TestSet)
    assert not hasattr(store.TestSet, "hold_outs")


def test_the_main_weight_is_tried_at_the_best_point_and_the_best_mean_is_chosen(make_cell, choose):
    for method, name in (("ibma", "eta"), ("omib", "weight_factor")):
        content = choose(make_cell(method=method))
        assert len(content["scores"]) == (4 + 1) * 3, "points and weights, on three folds"
        means: dict = {}
        for row in content["scores"]:
            means.setdefault(setting_of(row), []).append(row["score"])
        *points, weighed = ((sum(values) / 3, setting) for setting, values in means.items())
        best = max(points, key=lambda point: point[0])
        assert weighed[1][:2] == best[1][:2] and weighed[1] != best[1]
        assert content["choices"][0]["score"] == pytest.approx(max(best[0], weighed[0]))
        assert content["rule"] == {"by": "accuracy"}, "and the points of a cell of a profile"
        assert content["choices"][0][name] in GRID[name]
    assert varied(Variant("ibma", eta=0.3), lambda one: chosen("fake", one, 0)).eta == 0.3


def test_of_settings_with_the_same_mean_the_one_that_was_tried_first_is_chosen(make_cell):
    """Means over folds are .5, .7, .7 and .6; a single fold of the last is the best of all."""
    split, tried = tune.Split(make_cell(), 0), tune.Tried(PROFILE)
    settings = [Setting(lr, 0.0, 0.5) for lr in (0.3, 0.1, 0.2, 0.4)]
    scores = {0: (0.5, 0.6, 0.8, 0.2), 1: (0.5, 0.8, 0.6, 1.0)}
    tried.scores[split] = [
        one._asdict() | {"score": score}
        for of_fold in scores.values()
        for one, score in zip(settings, of_fold, strict=True)
    ]
    assert tried.best(split) == (settings[1], pytest.approx(0.7))


def test_an_override_of_eta_does_not_reach_methods_that_do_not_read_it(make_cell, choose):
    choose(make_cell(method="concat"))
    assert varied(Variant("concat", eta=0.3), lambda one: chosen("fake", one, 0)).eta is None


def test_one_choice_per_test_fold(make_cell, choose):
    content = choose(make_cell(folds=3))
    assert [one["run_fold"] for one in content["choices"]] == [0, 1, 2]
    scores = Counter(row["run_fold"] for row in content["scores"])
    assert scores == dict.fromkeys(range(3), (4 + 1) * 3), "points and weights, on three folds"
    for run in range(6):
        assert chosen("fake", "ibma", run) == setting_of(content["choices"][run % 3])


def test_where_train_shows_nothing_every_method_takes_the_points_in_turn(make_cell, choose):
    taken = []
    for method in ("ibma", "omib", "concat"):
        content = choose(make_cell(kind="one_class", method=method))
        assert content["metric"] is content["rule"]["by"] is None and not content["scores"]
        taken.append([chosen("fake", method, run)[:2] for run in range(5)])
    assert taken[0] == taken[1] == taken[2] == [*TUNING.grid.points, TUNING.grid.points[0]]
    few = PROFILE.model_copy(update={"seeds": 3})
    with pytest.raises(IbmaError, match="seeds: 3: expected 4 or more, a run at every point"):
        tune.choose(few, [make_cell(kind="one_class")])
    enough = PROFILE.model_copy(update={"seeds": 4})
    assert tune.choose(enough, [make_cell(kind="one_class")])["ibma"]["choices"]


def test_trials_are_tried_once_and_damaged_scores_again(make_cell, choose, capsys):
    cell = make_cell()
    first = choose(cell)
    assert capsys.readouterr().err.endswith("tune: 0 kept, 6 tried\n")
    kept = sorted(paths.store().rglob("*.json"))
    kept[0].write_text("{")
    assert choose(cell) == first
    assert capsys.readouterr().err.endswith("tune: 5 kept, 1 tried\n")


def test_scores_are_kept_apart_by_everything_that_they_depend_on(make_cell):
    """Otherwise a profile with other folds or epochs would be tuned by another's scores."""
    cell, setting = make_cell(), Setting(0.01, 0.0, 0.5)
    split = tune.Split(cell, 0)
    others = [
        tune.Trials(split, TUNING, (setting,), 0),
        tune.Trials(split, TUNING, (setting,), 1),
        tune.Trials(split, TUNING, (setting._replace(lr=0.02),), 0),
        tune.Trials(split, TUNING.model_copy(update={"epochs": 2}), (setting,), 0),
        tune.Trials(split, TUNING.model_copy(update={"folds": 2}), (setting,), 0),
        tune.Trials(tune.Split(cell, 1), TUNING, (setting,), 0),
        tune.Trials(tune.Split(make_cell(method="omib"), 0), TUNING, (setting,), 0),
    ]
    assert len({one.path for one in others}) == len(others)
    assert tune.Trials(tune.Split(make_cell(), 0), TUNING, (setting,), 0).path == others[0].path


def test_a_split_of_few_groups_has_as_many_trials_as_it_has_folds(make_cell, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune.Split, "folds", lambda self, count: ((), ())[:count])
    split, setting = tune.Split(make_cell(), 0), Setting(0.01, 0.0, 0.5)
    for fold in range(2):
        one = tune.Trials(split, TUNING, (setting,), fold)
        write_json(one.path, {"scores": [setting._asdict() | {"score": fold + 0.25}]})
    tried = tune.Tried(PROFILE)
    tried.complete({split: (setting,)})
    assert (tried.kept, tried.new) == (2, 0) and tried.best(split) == (setting, 0.75)


def test_a_stage_leaves_no_choice_of_before_but_one_method_leaves_the_others(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune, "skipped", lambda task: False)
    monkeypatch.setattr(tune.Cell, "of", lambda params, task, method: method)
    monkeypatch.setattr(tune, "choose", lambda _, names: {name: {} for name in names})
    task = next(iter(PROFILE.tasks))
    write_json(paths.choice(task, "old"), {})
    tune.tune_task(PROFILE, task, "ibma")
    assert {path.stem for path in paths.choice(task, "").parent.glob("*.json")} == {"old", "ibma"}
    tune.tune_task(PROFILE, task)
    written = {path.stem for path in paths.choice(task, "").parent.glob("*.json")}
    assert written == set(PROFILE.methods_of(task)) and "old" not in written


def test_a_missing_or_damaged_choice_says_what_to_run(tmp_path):
    with pytest.raises(IbmaError, match="missing, or holds no choice: run `dvc repro -f tune"):
        chosen("fake", "ibma", 0, tmp_path)
    write_json(tmp_path / paths.choice("fake", "ibma"), {"choices": []})
    with pytest.raises(IbmaError, match="holds no choice: run `dvc repro -f tune@fake`"):
        chosen("fake", "ibma", 0, tmp_path)
