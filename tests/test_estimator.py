"""The estimators: the pipeline's record, scikit-learn's conventions, inputs, gaps, files."""

import hashlib
import io
import json
import pickle
import shutil
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MIRROR, cell_over, needs
from joblib import parallel_config
from PIL import Image
from safetensors.torch import load
from scipy.sparse import csr_matrix
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from test_media import tone, write_wav

from ibma import IBMAClassifier, IBMAMultilabelClassifier, IBMARegressor, datasets, fetch, methods
from ibma.errors import IbmaError
from ibma.estimators import saved
from ibma.estimators.inputs import Samples
from ibma.features import media
from ibma.features.extract import extract
from ibma.files import read_json, write_json
from ibma.network.centroids import write_all
from ibma.training import run
from ibma.training.cell import Setting

SMALL = {"epochs": 12, "lr": 5e-3, "width": 16, "heads": 2, "random_state": 0}
torch.set_num_threads(1)


def problem(n: int = 90, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two noisy views of three classes."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 3
    return {v: np.eye(3)[y] + 0.4 * rng.normal(size=(n, 3)) for v in ("left", "right")}, y


def holed(X: dict[str, np.ndarray], share: int = 4) -> dict[str, np.ndarray]:
    """Every `share`-th sample lacks the left view, as many others the right one."""
    X = {name: value.copy() for name, value in X.items()}
    X["left"][::share], X["right"][1::share] = np.nan, np.nan
    return X


def in_both(folder: Path, data: object, kinds: dict, features: dict, method: str, **hparams):
    """Train one network in the pipeline and in the estimator.

    Args:
        data: a data set's module.
        kinds: modality -> its kind.
        features: modality -> parameters of its features.

    Returns:
        The pipeline's run, the estimator, and its accuracy on the same test samples.
    """
    encoders = {name: {"name": "mlp", "hidden": [16]} for name in kinds}
    store, sizes = folder / "store", {"epochs": 2, "batch_size": 128, "width": 16, "heads": 2}
    if not store.exists():
        entry = {"dataset": "data", "options": {}, "features": features}
        extract("data", entry, data, folder, store, media.compute)
    cell = cell_over(store, method, encoders, hparams=hparams, **sizes)
    if not cell.centroids.exists():
        write_all(cell.open(), cell.problem(), encoders, cell.assignment(), 8, cell.centroids)
    done = run.train_run(cell, 1, Setting(2e-3, 1e-5, 0.5), quiet=True)
    clf = IBMAClassifier(
        method,
        method_params=hparams,
        encoders={
            name: encoders[name] | {"kind": kind, "features": features.get(name, {})}
            for name, kind in kinds.items()
        },
        **sizes | {"eta": 0.5, "phi": "unit", "lr": 2e-3, "weight_decay": 1e-5},
        **{"random_state": 1, "device": "cpu"},
    )
    samples = list(data.samples(folder))
    test = [s for s in samples if s.split in ("test", "fold1")]
    train = [s for s in samples if s.split not in ("test", "fold1")]

    def views(chosen):
        return {name: [s.parts[name] for s in chosen] for name in kinds}

    clf.fit(views(train), [s.label for s in train])
    return done, clf, clf.score(views(test), [s.label for s in test])


def check_equal(done: run.Finished, clf: IBMAClassifier, score: float) -> None:
    """Same weights to the last bit, hence the same accuracy; same history.

    The constant U enters no gradient. Where the pipeline computes it for several folds at once, its
    last bits differ.
    """
    assert score == done.record.metrics["accuracy"]
    weights, ours = load(done.weights), clf.network_.state_dict()
    assert weights.keys() == ours.keys()
    for name, value in ours.items():
        allowed = 1e-6 if name == "bound.u" else 0.0
        torch.testing.assert_close(value, weights[name], rtol=0, atol=allowed, msg=name)
    for name, values in done.record.history.items():
        assert clf.history_[name] == pytest.approx(values, abs=1e-6), name


def test_the_estimator_equals_the_pipelines_record_on_split_digits(tmp_path):
    data, kinds = datasets.load("split_digits"), {"left": "vector", "right": "vector"}
    for method, hparams in (("ibma", {"bound": "club"}), ("ibma", {}), ("omib", {})):
        check_equal(*in_both(tmp_path, data, kinds, {}, method, **hparams))


@needs("ravdess/flac16k")
def test_the_estimator_equals_the_pipelines_record_on_ravdess(tmp_path, monkeypatch):
    """From sound files and face action units."""
    monkeypatch.setenv("IBMA_MIRROR", str(MIRROR))
    fetch.dataset("ravdess", "real", tmp_path)
    data, kinds = datasets.load("ravdess"), {"audio": "audio", "face": "vector"}
    features = {"audio": {"n_mels": 64, "hop": 512, "statistics": True}}
    check_equal(*in_both(tmp_path, data, kinds, features, "ibma"))


EXCLUDED = {  # check of scikit-learn -> why it may fail
    "check_methods_subset_invariance": "it allows 1e-7, and in float32 the last bits of a sum "
    "depend on how many rows are computed together (a test below allows 1e-5)"
}


@pytest.mark.filterwarnings("ignore:Estimator .* does not inherit from:UserWarning")
@pytest.mark.parametrize("estimator", [IBMAClassifier, IBMARegressor])
def test_scikit_learn_finds_no_fault(estimator):
    """On the one-array form.

    One check is skipped by scikit-learn itself, unless SCIPY_ARRAY_API is set. The multi-label
    classifier is not among these: the checks hand every estimator a column of class labels, and it
    takes a table of 0 and 1.
    """
    small = {"epochs": 10, "lr": 0.02, "width": 8, "heads": 1, "random_state": 0}
    found = check_estimator(
        estimator(**small), expected_failed_checks=EXCLUDED, on_fail=None, on_skip=None
    )
    assert len(found) > 40
    bad = {one["check_name"]: one["exception"] for one in found if one["status"] != "passed"}
    assert set(bad) <= {"check_array_api_input", *EXCLUDED}, bad


def test_a_dictionary_a_frame_and_an_array_give_the_same():
    X, y = problem()
    frame = pd.DataFrame(np.hstack([X["left"], X["right"]]), columns=list("abcdef"))
    columns = {"left": ["a", "b", "c"], "right": ["d", "e", "f"]}
    expected = IBMAClassifier(**SMALL).fit(X, y).predict_proba(X)
    assert (expected.argmax(1) == y).mean() > 0.9
    numbers = frame.to_numpy()
    for given, modalities in (
        (frame, columns),
        (numbers, {"left": slice(0, 3), "right": [3, 4, 5]}),
        (Samples(X), None),
    ):
        clf = IBMAClassifier(modalities=modalities, **SMALL).fit(given, y)
        np.testing.assert_array_equal(clf.predict_proba(given), expected)
    halves = IBMAClassifier(**SMALL).fit(numbers, y)
    np.testing.assert_array_equal(halves.predict_proba(numbers), expected)
    assert list(halves.encoders_) == ["a", "b"]
    assert list(IBMAClassifier(**SMALL).fit(numbers[:, :1], y).encoders_) == ["a"]


def test_columns_of_pandas_and_tensors_are_read_by_place_not_by_label(tmp_path):
    """As `train_test_split` leaves a frame: its index is not 0, 1, 2, ..."""
    X, y = problem(30)
    words = np.array(["no", "a", "yes"])[y]
    for row in range(30):
        Image.new("RGB", (4, 4), (row * 8,) * 3).save(tmp_path / f"{row}.png")
    frame = pd.DataFrame(X["left"], columns=list("abc"))
    frame["words"], frame["photo"] = words, [str(tmp_path / f"{row}.png") for row in range(30)]
    order = np.random.default_rng(0).permutation(30)
    shuffled = frame.iloc[order]
    lists = {
        "words": list(words[order]),
        "photo": list(frame["photo"].to_numpy()[order]),
        "numbers": X["left"][order],
    }
    small = {
        "photo": {"name": "resnet", "hidden_sizes": [8], "depths": [1], "features": {"size": 8}},
        "words": {"name": "mlp", "features": {"tfidf": 8}},
    }
    made = IBMAClassifier(encoders=small, **SMALL | {"epochs": 2})
    expected = made.fit(lists, y[order]).predict_proba(lists)
    named = {"words": "words", "photo": "photo", "numbers": ["a", "b", "c"]}
    columns = {name: shuffled[column] for name, column in named.items()}
    for given in (columns, lists | {"numbers": torch.tensor(X["left"][order])}):
        clf = clone(made).fit(given, pd.Series(y).iloc[order])
        np.testing.assert_array_equal(clf.predict_proba(given), expected)


def test_it_lives_in_scikit_learns_tools():
    X, y = problem()
    groups = np.arange(len(y)) // 3
    clf = IBMAClassifier(**SMALL)
    assert clone(clf).get_params() == clf.get_params()
    scores = cross_val_score(clf, Samples(X), y, groups=groups, cv=GroupKFold(3))
    assert scores.min() > 0.7
    frame = pd.DataFrame({"words": np.array(["no", "a", "yes"])[y], "x": X["left"][:, 0]})
    mixed = IBMAClassifier(modalities={"text": "words", "number": ["x"]}, **SMALL)
    assert cross_val_score(mixed, frame, y, cv=3).min() > 0.9
    search = GridSearchCV(clf, {"method": ["ibma", "concat"], "eta": [0.5]}, cv=2)
    assert search.fit(Samples(X), y, groups=groups).best_score_ > 0.7
    numbers = np.hstack(list(X.values()))
    assert make_pipeline(StandardScaler(), clf).fit(numbers, y).score(numbers, y) > 0.8
    assert clf.fit_transform(numbers, y).shape == (len(y), 16)
    for meta in (CalibratedClassifierCV(clf, cv=2), VotingClassifier([("a", clf), ("b", clf)])):
        assert meta.fit(numbers, y).score(numbers, y) > 0.7
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict(numbers), clf.predict(numbers))


def test_it_is_shown_and_set_as_scikit_learns_own():
    """scikit-learn's base classes would do so too; their import takes longer than ours."""
    clf = IBMAClassifier("concat", epochs=2, encoders={"a": {"name": "mlp"}})
    told = "IBMAClassifier(encoders={'a': {'name': 'mlp'}}, epochs=2, method='concat')"
    assert repr(clf) == told and repr(IBMARegressor()) == "IBMARegressor()"
    assert eval(told).get_params() == clf.get_params()
    pipe = make_pipeline(StandardScaler(), clf)
    for html in (clf._repr_html_(), pipe._repr_html_()):
        assert "<div" in html and "IBMAClassifier" in html and "epochs=2" in html
    with config_context(display="text"):
        assert clf._repr_html_() is None
    assert pipe.set_params(ibmaclassifier__epochs=1).get_params()["ibmaclassifier__epochs"] == 1
    with pytest.raises(IbmaError, match="IBMAClassifier has no parameter 'epoch': expected one of"):
        clf.set_params(width=8, epoch=1)
    assert clf.width == 64, "all are set, or none"
    for made, kind in (
        (clf, is_classifier),
        (pipe, is_classifier),
        (IBMARegressor(), is_regressor),
    ):
        assert kind(made)


def test_weights_of_samples_count_in_the_score():
    X, y = problem(30)
    for made, target in ((IBMAClassifier(**SMALL), y), (IBMARegressor(**SMALL), y * 1.0)):
        made.fit(X, target)
        kept = np.arange(30) % 2
        half = {name: value[kept == 1] for name, value in X.items()}
        weighted = made.score(X, target, sample_weight=kept)
        assert weighted == pytest.approx(made.score(half, target[kept == 1]))


def test_metadata_is_handed_on_where_it_was_asked_for():
    seen = []

    class Told(IBMAClassifier):
        def fit(self, X, y, *, groups=None):
            seen.append(groups)
            return super().fit(X, y, groups=groups)

    X, y = problem(30)
    numbers, groups = np.hstack(list(X.values())), np.arange(30) // 3
    made = Told("concat", **SMALL | {"epochs": 1})
    with pytest.raises(RuntimeError, match="enable_metadata_routing=True"):
        made.set_fit_request(groups=True)
    with config_context(enable_metadata_routing=True):

        def search(clf, width: str = "width") -> list:
            seen.clear()
            tried = GridSearchCV(clf, {width: [16]}, cv=GroupKFold(3), refit=False)
            tried.fit(numbers, y, groups=groups)
            return seen

        with pytest.raises(UnsetMetadataPassedError, match="groups"):
            search(made)
        asked = clone(made.set_fit_request(groups=True))
        expected = [list(groups[rows]) for rows, _ in GroupKFold(3).split(numbers, y, groups)]
        assert [list(each) for each in search(asked)] == expected
        scaled = make_pipeline(StandardScaler(), asked)
        assert [list(each) for each in search(scaled, "told__width")] == expected
        assert search(clone(asked).set_fit_request(groups=False)) == [None] * 3
        asked.set_transform_request(of=True).set_score_request(sample_weight="weight")
        routed = asked.get_metadata_routing()
        assert routed.transform.requests == {"of": True}
        assert routed.score.requests == {"sample_weight": "weight"}
        assert routed.fit.requests == {"groups": True}


def test_every_method_fits_and_predicts_with_gaps():
    """What stands in the place of a missing part changes nothing, in fit and in predict."""
    X, y = problem(45)
    gaps = holed(X)
    known = {name: ~np.isnan(value).any(1) for name, value in gaps.items()}
    sizes = SMALL | {"epochs": 2}
    bounds = [("ibma", {"bound": bound}) for bound in ("plugin", "club", "vib", "vib_alemi")]
    for method, hparams in (*((name, {}) for name in methods.names()), *bounds):
        clf = IBMAClassifier(method, method_params=hparams, **sizes).fit(gaps, y)
        proba = clf.predict_proba(gaps)
        where = f"{method} {hparams}"
        assert np.isfinite(proba).all() and np.allclose(proba.sum(1), 1.0), where
        assert all(np.isfinite(clf.transform(gaps, of=of)).all() for of in ("left", "fused")), where
        lists = {
            name: [row if there else None for row, there in zip(value, known[name], strict=True)]
            for name, value in gaps.items()
        }
        np.testing.assert_array_equal(clf.predict_proba(lists), proba, err_msg=where)
        whole = known["left"] & known["right"]
        alone = {name: value[whole] for name, value in X.items()}
        np.testing.assert_allclose(clf.predict_proba(alone), proba[whole], atol=1e-5, err_msg=where)


def test_a_gap_is_not_learnt_from():
    """Standardisation, centroids and Q see the rows that are there, and only those."""
    X, y = problem(120)
    clf = IBMAClassifier(**SMALL | {"epochs": 20}).fit(holed(X), y)
    statistics = clf.network_.encoders["left"].prepare.norm.running_mean
    there = np.arange(len(y)) % 4 != 0
    np.testing.assert_allclose(statistics, X["left"][there].mean(0), atol=0.1)
    new, truth = problem(90, seed=1)
    assert clf.score(holed(new), truth) > 0.75
    single = {"left": new["left"], "right": np.full_like(new["right"], np.nan)}
    assert clf.score(single, truth) > 0.6


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[dict[str, list], np.ndarray]:
    """Twelve samples with a photo, a note, a recording and an age; some lack one."""
    folder, rng, y = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0), np.arange(12) % 2
    photos, voices = [], []
    for row, label in enumerate(y):
        pixels = rng.integers(0, 80, (20, 24, 3)) + 150 * label
        photos.append(Image.fromarray(pixels.astype(np.uint8)))
        photos[-1].save(folder / f"{row}.png")
        sound = tone(0.3, 300.0 + 900.0 * label, rate=22_050)
        voices.append(str(write_wav(folder / f"{row}.wav", sound, 22_050)))
    notes = [f"{'clear' if label else 'cloudy'} sky {row}" for row, label in enumerate(y)]
    X = {"photo": photos, "note": notes, "voice": voices, "age": list(rng.normal(size=12))}
    X["photo"][0] = X["note"][1] = X["voice"][2] = X["age"][3] = None
    X["paths"] = [str(folder / f"{row}.png") for row in range(12)]
    return X, y


def test_the_kind_of_a_modality_is_seen_from_its_values(mixed, capsys):
    X, y = mixed
    clf = IBMAClassifier(**SMALL | {"epochs": 4, "verbose": True}).fit(X, y)
    kinds = {name: one["kind"] for name, one in clf.encoders_.items()}
    assert kinds == {
        **{"photo": "image", "note": "text", "voice": "audio", "age": "vector"},
        "paths": "image",
    }
    assert clf.encoders_["photo"]["encoder"]["name"] == "resnet"
    assert str(clf.encoders_) in capsys.readouterr().out
    assert clf.score(X, y) == 1.0
    photos = clf.transform(X, of="photo")
    clf.fit({"photo": X["paths"], "other": X["age"]}, y)
    arrays = np.stack([np.asarray(Image.open(path)) for path in X["paths"]])
    for same in (
        arrays,
        list(arrays),
        [Path(path) for path in X["paths"]],
        arrays.transpose(0, 3, 1, 2),
    ):
        np.testing.assert_array_equal(
            clf.transform({"photo": same, "other": X["age"]}, of="photo"),
            clf.transform({"photo": X["paths"], "other": X["age"]}, of="photo"),
        )
    assert photos.shape == (12, 16)


def test_what_is_masked_or_missing_in_any_way_is_missing(tmp_path):
    """A mask of numpy, NA of pandas' own types, columns of a frame in another order."""
    X, y = problem(30)
    names = list("pqr")
    frame = pd.DataFrame(X["left"], columns=names)
    clf = IBMAClassifier(**SMALL | {"epochs": 3}).fit({"left": frame, "right": X["right"]}, y)
    gap = frame.copy()
    gap.iloc[4] = np.nan
    hidden = np.ma.masked_array(X["left"].copy(), mask=False)
    hidden[4] = 1e9
    hidden[4] = np.ma.masked
    expected = clf.predict_proba({"left": gap, "right": X["right"]})
    clf.save(tmp_path)
    for same in (hidden, gap.astype("Float64"), gap[names[::-1]], gap.assign(other=1.0)):
        given = {"left": same, "right": X["right"]}
        for one in (clf, IBMAClassifier.load(tmp_path)):
            np.testing.assert_array_equal(one.predict_proba(given), expected)
    with pytest.raises(ValueError, match="'left': no column 'q', which it had in fit"):
        clf.predict({"left": frame.drop(columns="q"), "right": X["right"]})
    few = {name: value[:5] for name, value in X.items()}
    for options in ({"early_stopping": True}, {"eta": "cv"}):  # fewer than folds are no obstacle
        IBMAClassifier(**SMALL | {"epochs": 1} | options).fit(few, [0, 1, 0, 1, 1])
    same = IBMAClassifier(early_stopping=True, **SMALL | {"epochs": 1})
    with pytest.raises(ValueError, match="all samples are of one"):
        same.fit(X, y, groups=[1, 1.0, np.int64(1)] * 10)


def test_encoders_may_be_chosen(mixed):
    X, y = mixed
    chosen = {
        "photo": {"name": "resnet", "hidden_sizes": [8], "depths": [1], "features": {"size": 16}},
        "paths": {"kind": "text", "features": {"tfidf": 8}},
        "age": {"name": "mlp", "hidden": [4]},
    }
    clf = IBMAClassifier(encoders=chosen, **SMALL | {"epochs": 1})
    clf.fit({name: X[name] for name in chosen}, y)
    assert clf.readers_["photo"].shape == (3, 16, 16)
    assert clf.encoders_["paths"]["kind"] == "text" and clf.readers_["paths"].shape == (8,)


def test_a_saved_estimator_predicts_the_same_from_another_place(mixed, tmp_path):
    X, y = mixed
    X = {name: X[name] for name in ("photo", "note", "age")}
    rng = np.random.default_rng(0)
    table = rng.normal(size=(12, 5))
    options = SMALL | {"epochs": 2, "class_weight": {"a": 2.0, "b": 1.0}}
    cases = [
        (IBMAClassifier(**options), X, np.array(["a", "b"])[y]),
        (IBMAClassifier("ce3", modalities={"x": slice(0, 4, 2), "y": [4]}, **SMALL), table, y),
        (IBMAClassifier(method_params={"bound": "club"}, **SMALL), table, y.astype(np.int8)),
        (IBMAMultilabelClassifier(**SMALL | {"epochs": 2}), table, np.stack([y, 1 - y], 1)),
        (IBMARegressor(n_bins=4, **SMALL | {"epochs": 2}), table, rng.normal(size=12)),
    ]
    for estimator, given, target in cases:
        estimator.fit(given, target)
        estimator.save(tmp_path / "first")
        assert {p.name for p in (tmp_path / "first").iterdir()} == {saved.NAME, saved.WEIGHTS}
        shutil.move(tmp_path / "first", tmp_path / "second")
        state = torch.get_rng_state()
        again = type(estimator).load(tmp_path / "second")
        assert torch.equal(torch.get_rng_state(), state) and not again.network_.training
        shutil.rmtree(tmp_path / "second")
        np.testing.assert_array_equal(again.predict(given), estimator.predict(given))
        np.testing.assert_array_equal(again.transform(given), estimator.transform(given))
        parameters = estimator.get_params() | {"device": "auto"}
        assert again.get_params() == parameters
        for name in ("record_key_", "eta_", "encoders_", "history_", "seed_", "n_epochs_"):
            assert getattr(again, name) == getattr(estimator, name), name
        kinds = [getattr(one, "classes_", np.zeros(0)).dtype for one in (estimator, again)]
        assert kinds[0] == kinds[1]
        again.save(tmp_path / "third")
        assert type(again).load(tmp_path / "third").record_key_ == estimator.record_key_
    assert IBMARegressor.load(tmp_path / "third", device="cpu").device == "cpu"
    with pytest.raises(IbmaError, match="expected IBMAClassifier"):
        IBMAClassifier.load(tmp_path / "third")
    content = read_json(tmp_path / "third" / saved.NAME, {})
    assert set(content["versions"]) == {"ibma", "torch", "scikit-learn"}
    (tmp_path / "third" / saved.WEIGHTS).write_bytes(b"other")
    with pytest.raises(IbmaError, match="weights.safetensors: changed since it was written"):
        IBMARegressor.load(tmp_path / "third")
    write_json(
        tmp_path / "third" / saved.NAME,
        content | {"parameters": {"epoch": 1}, "weights": hashlib.sha256(b"other").hexdigest()},
    )
    with pytest.raises(IbmaError, match="estimator.json: not as `save` writes it .*'epoch'"):
        IBMARegressor.load(tmp_path / "third")
    with pytest.raises(IbmaError, match="expected IBMARegressor of format 3, found nothing"):
        IBMARegressor.load(tmp_path / "nowhere")
    with pytest.raises(NotFittedError):
        IBMAClassifier().save(tmp_path / "fourth")


def test_parameters_are_kept_in_json_as_they_were_given():
    given = {
        "slice": slice(1, 9, 2),
        "open": slice(None, 3),
        "mixed": [1, 2.5, "x", None, True],
        "names": {1: "one", "two": {"three": [slice(0, 2)]}},
    }
    assert saved.restored(json.loads(json.dumps(saved.plain(given)))) == given
    assert saved.plain((1, (2,))) == [1, [2]]
    assert saved.plain(np.random.default_rng(0)) is None, "its seed is kept apart"


def test_the_record_key_follows_data_and_settings():
    X, y = problem(30)
    sizes = SMALL | {"epochs": 1}
    keys = [
        IBMAClassifier(**sizes | more).fit({n: v + shift for n, v in X.items()}, y).record_key_
        for more, shift in (({}, 0.0), ({}, 0.0), ({}, 1.0), ({"lr": 1e-4}, 0.0))
    ]
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_several_labels_and_numbers_are_predicted():
    X, y = problem(120)
    labels = np.stack([y == 0, y != 1], 1).astype(int)
    many = IBMAMultilabelClassifier(class_weight="balanced", **SMALL | {"epochs": 25})
    many.fit(X, labels)
    assert many.score(X, labels) > 0.85
    assert many.predict_proba(X).shape == (120, 2)
    rng = np.random.default_rng(0)
    target = 3.0 * X["left"][:, 0] - X["right"][:, 1] + 0.1 * rng.normal(size=120)
    number = IBMARegressor(**SMALL | {"epochs": 60, "batch_size": 16}).fit(X, target)
    guess = mean_absolute_error(target, np.full_like(target, np.median(target)))
    assert number.score(X, target) > 0.7
    assert mean_absolute_error(target, number.predict(X)) < 0.6 * guess
    assert IBMARegressor(**SMALL).fit(X, np.full(120, 2.5)).predict(X) == pytest.approx([2.5] * 120)


def test_class_weights_move_the_decision():
    rng = np.random.default_rng(0)
    y = (np.arange(200) % 10 == 0).astype(int)
    X = {"a": y[:, None] + rng.normal(size=(200, 1)), "b": y[:, None] + rng.normal(size=(200, 1))}
    found = {
        str(weight): IBMAClassifier(class_weight=weight, **SMALL).fit(X, y).predict(X).mean()
        for weight in (None, "balanced", {0: 1.0, 1: 1e-6})
    }
    assert found["balanced"] > found["None"] + 0.05
    assert found["{0: 1.0, 1: 1e-06}"] == 0.0


def watched(monkeypatch, loss) -> None:
    """Let `loss(problem, model, rows)` be what an estimator sees of held-out rows."""
    monkeypatch.setattr(IBMAClassifier, "_loss", lambda self, *given: loss(*given))


def test_early_stopping_goes_back_to_the_best_epoch_of_rows_whose_groups_are_not_learnt_from(
    monkeypatch,
):
    X, y = problem(90)
    groups, told = np.arange(90) // 3, iter([5.0, 3.0, 4.0, 3.0, 3.5])

    def loss(made, model, rows):
        learnt = made.features.training(0).index
        assert not set(rows.index) & set(learnt) and len(rows) + len(learnt) == 90
        assert not set(made.features.groups[rows.index]) & set(made.features.groups[learnt])
        return next(told)

    watched(monkeypatch, loss)
    stopping = {"early_stopping": True, "n_iter_no_change": 3}
    clf = IBMAClassifier(**stopping, **SMALL | {"epochs": 200}).fit(X, y, groups=groups)
    assert clf.n_epochs_ == 5, "three epochs after the second nothing was lower"
    told = iter([5.0, 3.0])
    best = IBMAClassifier(**stopping, **SMALL | {"epochs": 2}).fit(X, y, groups=groups)
    np.testing.assert_array_equal(clf.predict_proba(X), best.predict_proba(X))


def test_eta_is_the_one_with_the_lowest_loss_on_held_out_groups(monkeypatch, capsys):
    X, y = problem(60)
    groups, judged = np.arange(60) // 2, []

    def loss(made, model, rows):
        judged.append((model.spec.eta, tuple(rows.index)))
        return {0.1: 2.0, 0.5: 1.0, 0.9: 1.5}[model.spec.eta]

    watched(monkeypatch, loss)
    clf = IBMAClassifier(eta="cv", verbose=True, **SMALL | {"epochs": 1})
    clf.fit(X, y, groups=groups)
    assert clf.eta_ == 0.5 and "eta: {0.1: 6.0, 0.5: 3.0, 0.9: 4.5}" in capsys.readouterr().out
    folds = [rows for eta, rows in judged if eta == 0.1]
    assert judged == [(eta, rows) for rows in folds for eta in (0.1, 0.5, 0.9)]
    assert sorted(np.concatenate(folds)) == list(range(60))
    assert all(not set(a) & set(b) for a, b in combinations([groups[[*f]] for f in folds], 2))
    assert IBMAClassifier("concat", eta="cv", **SMALL).fit(X, y).eta_ is None


def test_the_same_seed_gives_the_same_network_and_leaves_the_generator_alone():
    X, y = problem(30)
    state = torch.random.get_rng_state()
    made = SMALL | {"eta": "cv", "epochs": 2}
    first, second = (IBMAClassifier(**made).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_columns_are_chosen_by_a_mask_or_a_number_and_their_order_is_that_of_fit(tmp_path):
    X, y = problem(30)
    numbers = np.hstack(list(X.values()))
    frame = pd.DataFrame(numbers)
    expected = IBMAClassifier(**SMALL | {"epochs": 1}).fit(numbers, y).predict_proba(numbers)
    for modalities in (
        {"a": slice(0, 3), "b": slice(np.int64(3), 6)},
        {"a": range(3), "b": pd.Index([3, 4, 5])},
        {"a": np.arange(6) < 3, "b": [False] * 3 + [True] * 3},
    ):
        clf = IBMAClassifier(modalities=modalities, **SMALL | {"epochs": 1})
        for given in (numbers, frame):
            clf.fit(given, y).save(tmp_path)
            for one in (clf, IBMAClassifier.load(tmp_path)):
                np.testing.assert_array_equal(one.predict_proba(given), expected)
        for one in (clf, IBMAClassifier.load(tmp_path)):
            with pytest.raises(ValueError, match="columns 5, 4, .* expected 0, 1, .* as in fit"):
                one.predict(frame[frame.columns[::-1]])
    IBMAClassifier(modalities={"a": np.int64(0)}, **SMALL | {"epochs": 1}).fit(frame, y)


def test_rows_of_tensors_and_masked_rows_are_picked_and_read_as_those_of_arrays():
    X, y = problem(30)
    groups, clf = np.arange(30) // 3, IBMAClassifier(**SMALL | {"epochs": 2})
    tensors = {name: torch.tensor(value) for name, value in X.items()}
    scores = [
        cross_val_score(clf, Samples(one), y, groups=groups, cv=GroupKFold(3))
        for one in (X, tensors)
    ]
    np.testing.assert_array_equal(*scores)
    hidden = [np.ma.masked_array(row, mask=place == 4) for place, row in enumerate(X["left"])]
    X["left"][4] = np.nan
    kept = {"random_state": 0, "early_stopping": True, "validation_fraction": 0.3}
    made = IBMAClassifier(**SMALL | {"epochs": 2} | kept)
    expected = made.fit(X, y, groups=groups).predict_proba(X)
    target = torch.tensor(y * 1.0, requires_grad=True)
    IBMARegressor(**SMALL | {"epochs": 1}).fit(X, target)
    for same in (torch.tensor(groups), list(torch.tensor(groups))):
        made.fit(X | {"left": hidden}, torch.tensor(y), groups=same)
        np.testing.assert_array_equal(made.predict_proba(X), expected)


def test_fits_in_threads_give_what_they_give_alone():
    X, y = problem(60)
    clf = IBMAClassifier("dmib", eta="cv", **SMALL | {"epochs": 2})
    found = []
    for jobs in (1, 4):
        with parallel_config("threading"):
            found.append(cross_val_predict(clf, Samples(X), y, n_jobs=jobs, method="predict_proba"))
    np.testing.assert_array_equal(*found)


def test_a_fit_that_fails_leaves_the_network_before_it_whole(tmp_path):
    X, y = problem(30)
    clf = IBMAClassifier(**SMALL | {"epochs": 1}).fit(X, y)
    before, proba = vars(clf).copy(), clf.predict_proba(X)
    for odd in ({"eta": 2.0}, {"lr": 1e308, "epochs": 5}, {"width": 7}):
        with pytest.raises(ValueError):
            clf.set_params(**odd).fit({"other": X["left"][:, :1], "right": X["right"]}, y + 5)
        clf.set_params(**{name: before[name] for name in odd})
    assert vars(clf) == before
    clf.set_params(width=32, heads=4, modalities={"left": None}).save(tmp_path)
    again = IBMAClassifier.load(tmp_path)
    assert (again.width, again.heads, again.modalities) == (16, 2, None), "those of the fit"
    for one in (clf, again):
        np.testing.assert_array_equal(one.predict_proba(X), proba)


def test_numbers_of_numpy_are_parameters_as_pythons_are(tmp_path):
    X, y = problem(12)
    X["words"] = ["round mass", "clear"] * 6
    words = {"name": "bert", "vocab_size": 16, "max_length": np.int64(4), "hidden_size": 8}
    words |= {"layers": 1, "heads": 2, "features": {"max_length": np.int64(4), "vocab_size": 16}}
    odd = {
        "epochs": np.int64(2),
        "width": np.int32(16),
        "lr": np.float32(0.25),
        "eta": np.float16(0.5),
    }
    odd |= {"random_state": np.int64(0), "encoders": {"words": words}, "early_stopping": np.False_}
    odd |= {
        "method_params": {"align": np.False_},
        "class_weight": {np.int64(k): 1 for k in range(3)},
    }
    clf = IBMAClassifier(**SMALL | odd).fit(X, y)
    assert clf.get_params() == IBMAClassifier(**SMALL | odd).get_params(), "as they were given"
    clf.save(tmp_path)
    again = IBMAClassifier.load(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert again.fit(X, y).record_key_ == clf.record_key_


def test_a_fit_needs_no_setting_of_torch_but_its_type():
    X, y = problem(12)
    clf = IBMAClassifier(**SMALL | {"epochs": 1}).fit(X, y)
    expected = clf.predict_proba(X)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            clf.fit(X, y)
        np.testing.assert_array_equal(clf.predict_proba(X), expected)
        clf.fit(X, y)
    torch.set_default_dtype(torch.float64)
    try:
        for use in (lambda: clf.fit(X, y), lambda: clf.predict(X)):
            with pytest.raises(ValueError, match="default type is torch.float64: call"):
                use()
    finally:
        torch.set_default_dtype(torch.float32)


def test_weights_of_samples_are_no_groups():
    X, y = problem(12)
    for use in (IBMAClassifier().fit, IBMAClassifier().fit_transform):
        with pytest.raises(TypeError, match="positional"):
            use(X, y, np.ones(12))


def cut_picture() -> Image.Image:
    """A picture that is opened, and whose file ends before its pixels do."""
    file = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()[:-100]))


def test_zero_has_no_sign_as_a_label():
    X, _ = problem(12)
    found = IBMAClassifier(**SMALL | {"epochs": 1}).fit(X, [-0.0, 0.0, 1.0] * 4).classes_
    assert [str(one) for one in found] == ["0.0", "1.0"]


def test_a_pickle_of_another_version_is_told(monkeypatch):
    X, y = problem(12)
    clf = IBMAClassifier(**SMALL | {"epochs": 1}).fit(X, y)
    with monkeypatch.context() as patch:
        patch.setattr("ibma.estimators.base.__version__", "0.0.1")
        old = pickle.dumps(clf)
    with pytest.warns(UserWarning, match=r"pickled by ibma 0\.0\.1, read by .*: fit it again"):
        pickle.loads(old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict(X), clf.predict(X))


def test_bad_input_ends_in_one_line():
    X, y = problem(12)
    half = {"a": X["left"].copy(), "b": X["right"]}
    half["a"][3, 1] = np.nan
    nothing = {name: value.copy() for name, value in X.items()}
    nothing["left"][5] = nothing["right"][5] = np.nan
    infinite = {name: value.copy() for name, value in X.items()}
    infinite["right"][2, 0] = -np.inf
    clf = IBMAClassifier(**SMALL | {"epochs": 1})
    fitted = clone(clf).fit(X, y)
    table = np.hstack(list(X.values()))
    for said, use in (
        ("row 3: Input contains NaN in some", lambda: clf.fit(half, y)),
        ("row 5: the sample has no modality", lambda: clf.fit(nothing, y)),
        ("row 2: Input contains infinity", lambda: clf.fit(infinite, y)),
        ("infinity", lambda: clf.fit({"a": X["left"] * 1e300, "b": X["right"]}, y)),
        ("different lengths", lambda: clf.fit({"a": X["left"], "b": X["right"][:5]}, y)),
        ("a list of 2 tables: expected a mapping", lambda: clf.fit(list(X.values()), y)),
        ("a list of 2 tables: expected a mapping", lambda: fitted.predict(tuple(X.values()))),
        ("y has 5 entries", lambda: clf.fit(X, y[:5])),
        ("groups has 3 entries", lambda: clf.fit(X, y, groups=[1, 2, 3])),
        ("1 class", lambda: clf.fit(X, np.zeros(12, int))),
        (
            "row 3: Input contains NaN in some",
            lambda: fitted.predict({"left": half["a"], "right": half["b"]}),
        ),
        ("row 5: the sample has no modality", lambda: fitted.predict(nothing)),
        ("row 2: Input contains infinity", lambda: fitted.predict(infinite)),
        ("X lacks right", lambda: fitted.predict({"left": X["left"]})),
        (r"shape \(2,\), expected \(3,\)", lambda: fitted.predict(X | {"left": X["left"][:, :2]})),
        ("of='middle'", lambda: fitted.transform(X, of="middle")),
        ("text or vector", lambda: clf.fit({"a": ["x", 1.0] * 6, "b": X["right"]}, y)),
        ("image or text", lambda: clf.fit({"a": ["x", "y.png"] * 6, "b": X["right"]}, y)),
        ("row 0: gone.png: missing", lambda: clf.fit({"a": ["gone.png"] * 12, "b": X["right"]}, y)),
        ("no sample has it", lambda: clf.fit({"a": [None] * 12, "b": X["right"]}, y)),
        ("no such columns", lambda: clone(clf).set_params(modalities={"a": [9]}).fit(table, y)),
        ("encoders names c", lambda: clone(clf).set_params(encoders={"c": "auto"}).fit(X, y)),
        (
            "unknown encoder 'mpl'",
            lambda: clone(clf).set_params(encoders={"left": {"name": "mpl"}}).fit(X, y),
        ),
        ("method 'imba'", lambda: clone(clf).set_params(method="imba").fit(X, y)),
        (
            "no parameter 'betta'",
            lambda: clone(clf).set_params(method_params={"betta": 1}).fit(X, y),
        ),
        *(
            (said, lambda odd=odd: clf.fit(X, odd))
            for said, odd in (
                ("row 1 has no label", ["a", None] * 6),
                ("row 0 has no label", pd.Series([pd.NA, "a"] * 6)),
                ("row 1 is '1', row 0 is 1", [1, "1", 0, "0"] * 3),
                ("continuous", [0.6, 1.0] * 6),
                ("NaN", np.where(y, np.nan, 1.0)),
                ("inhomogeneous", [[0], [1, 2]] * 6),
            )
        ),
        ("row 0 has no label", lambda: IBMARegressor(**SMALL).fit(X, [None, 1.0] * 6)),
        *(
            (f"y: row {row} has no label .masked", lambda made=made, odd=odd: made.fit(X, odd))
            for row, made, odd in (
                (4, clf, np.ma.masked_equal(np.arange(12) // 4, 1)),
                (1, IBMARegressor(**SMALL), [0.5, np.ma.masked] * 6),
                (1, IBMAMultilabelClassifier(**SMALL), np.ma.masked_equal([[0, 1], [0, 2]] * 6, 2)),
            )
        ),
        *(
            ("modality 'a': column '1' is there twice", lambda two=two: clf.fit({"a": two}, y))
            for two in (pd.DataFrame(table[:, :2], columns=each) for each in (["1", "1"], [1, "1"]))
        ),
        *(
            ("'a', column 1: .*less than float32 holds", lambda one=one: clf.fit({"a": one}, y))
            for one in (
                np.stack([y, 1_700_000_000 + y], 1),
                [[label, -1e12 * (1 + 1e-9 * label)] for label in y],
            )
        ),
        ("row 0: 0: expected a text", lambda: clone(clf).fit({"a": ["one", "two"] * 6}, y)
            .predict({"a": list(range(12))})),
        ("numeric", lambda: IBMARegressor(**SMALL).fit(X, ["1", "2"] * 6)),
        ("numeric", lambda: IBMAMultilabelClassifier(**SMALL).fit(X, [["0", "1"]] * 12)),
        ("NaN", lambda: IBMAMultilabelClassifier(**SMALL).fit(X, [[None, 1]] * 12)),
        ("inhomogeneous", lambda: IBMAMultilabelClassifier(**SMALL).fit(X, [[0], [1, 0]] * 6)),
        ("expected 0 or 1", lambda: IBMAMultilabelClassifier(**SMALL).fit(X, [[0.6, 1]] * 12)),
        ("groups: row 1 is None", lambda: clf.fit(X, y, groups=["a", None] * 6)),
        ("groups: row 0 is nan", lambda: clf.fit(X, y, groups=[np.nan, 1] * 6)),
        ("groups: row 0", lambda: clf.fit(X, y, groups=table)),
        (
            "groups: all samples are of one",
            lambda: clone(clf).set_params(early_stopping=True).fit(X, y, groups=["a"] * 12),
        ),
        ("type generator", lambda: clf.fit({"a": (row for row in table), "b": table}, y)),
        ("type str", lambda: clf.fit({"a": "abcdefghijkl", "b": table}, y)),
        ("type csr_matrix", lambda: clf.fit({"a": csr_matrix(table), "b": table}, y)),
        ("type csr_matrix", lambda: Samples({"a": csr_matrix(table), "b": table})),
        *((f"groups: a {type(odd).__name__}", lambda odd=odd: clf.fit(X, y, groups=odd))
            for odd in (dict.fromkeys(range(12)), set(range(12)), "a" * 12)),
        *(
            (f"{name}=.*expected", lambda one={name: odd}: clone(clf).set_params(**one).fit(X, y))
            for name, odd in (
                *(("epochs", "3"), ("epochs", 1.5), ("batch_size", None), ("width", True)),
                *(("n_iter_no_change", 0), ("lr", -1), ("lr", np.nan), ("weight_decay", "x")),
                *(("beta", 0), ("device", "gpu"), ("device", None), ("eta", True)),
                *(("lr", True), ("weight_decay", True), ("beta", True), ("random_state", True)),
                *(("device", "mps"), ("device", "cuda:99"), ("device", "meta")),
            )
        ),
        ("'a' is 'mlp'", lambda: clone(clf).set_params(encoders={"a": "mlp"}).fit(X, y)),
        *(
            (said, lambda one=one: clone(clf).set_params(method_params=one).fit(X, y))
            for said, one in (
                ("method_params: align='no': expected bool", {"align": "no"}),
                ("method_params: align=1: expected bool", {"align": 1}),
                ("bound '3': expected apib", {"bound": 3}),
                ("1 is no parameter", {1: 2}),
                ("'spec' is no parameter", {"spec": 2}),
            )
        ),
        ("encoders: a value of type object", lambda: clone(clf)
            .set_params(encoders={"left": {"hidden": object()}}).fit(X, y)),
        ("eta=2", lambda: clone(clf).set_params(eta=2).fit(X, y)),
        ("phi='raw'", lambda: clone(clf).set_params(phi="raw").fit(X, y)),
        ("multiple of heads", lambda: clone(clf).set_params(width=7).fit(X, y)),
        ("expected 0 or 1", lambda: IBMAMultilabelClassifier(**SMALL).fit(X, table)),
        ("n_bins=1", lambda: IBMARegressor(n_bins=1).fit(X, y)),
        *(
            (f"{name}=.*expected", lambda one={name: odd}: clone(clf).set_params(**one).fit(X, y))
            for name, odd in (
                *(("early_stopping", "no"), ("validation_fraction", "a"), ("modalities", 5)),
                *(("method_params", [1]), ("class_weight", {0: -1.0, 1: 1.0, 2: 1.0})),
                *(("class_weight", {0: 0.0, 1: 0.0, 2: 0.0}), ("class_weight", {0: np.nan})),
            )
        ),
        *(("n_bins=", lambda n=n: IBMARegressor(n_bins=n).fit(X, y)) for n in ("5", 2.5)),
        *(
            ("another name", lambda name=name: clf.fit({name: X["left"], "b": X["right"]}, y))
            for name in ("type", "values", "fused", "logits")
        ),
        *(
            ("a name without", lambda name=name: clf.fit({name: X["left"], "b": X["right"]}, y))
            for name in ("a.b", "present/b", "", 1, None)
        ),
        ("type set", lambda: clf.fit({"a": set(range(12)), "b": table}, y)),
        ("row 0: complex128", lambda: clf.fit({"a": list(table + 1j), "b": table}, y)),
        ("row 1: int64", lambda: clf.fit({"a": [[1, 2], [3]] * 6, "b": table}, y)),
        ("unknown", lambda: clf.fit({"a": [[[1, 2], [3]]] * 12, "b": table}, y)),
        ("too large to convert", lambda: clf.fit({"a": [[10**400, 1]] * 12, "b": table}, y)),
        ("kind 'sound'", lambda: clone(clf).set_params(encoders={"left": {"kind": "sound"}})
            .fit(X, y)),
        ("features .*expected nothing", lambda: clone(clf)
            .set_params(encoders={"left": {"features": {"size": 3}}}).fit(X, y)),
        ("0 samples", lambda: fitted.predict({name: value[:0] for name, value in X.items()})),
        ("X lacks left, right", lambda: fitted.predict(table)),
        ("'a' is there twice", lambda: clf.fit(pd.DataFrame(table, columns=list("aabcde")), y)),
        ("y has 0 entries", lambda: clf.fit(X, [])),
        ("datetime64", lambda: clf.fit(X, pd.date_range("2020", periods=12))),
        ("datetime64", lambda: IBMARegressor(**SMALL).fit(X, pd.date_range("2020", periods=12))),
        ("below 1e", lambda: IBMARegressor(**SMALL).fit(X, np.where(y, 1e308, -1e308))),
        (r"expected 0 or 1, \[n, C\]", lambda: IBMAMultilabelClassifier(**SMALL).fit(X, y > 0)),
        (r"expected 0 or 1, \[n, C\]",
            lambda: IBMAMultilabelClassifier(**SMALL).fit(X, [{"a"}, set()] * 6)),
        ("no two samples have the same label",
            lambda: clone(clf).set_params(eta="cv").fit(X, np.arange(12))),
        (
            "row 0, .* is a file of no known ending",
            lambda: clf.fit({"a": [__file__] * 12, "b": X["right"]}, y),
        ),
        (
            r"left': shape \(12, 3, 1\)",
            lambda: fitted.predict(X | {"left": X["left"][:, :, None]}),
        ),
        ("method 'misa': expected two modalities",
            lambda: clone(clf).set_params(method="misa").fit({"a": table}, y)),
        ("1 of the samples are left", lambda: clone(clf).set_params(eta="cv").fit(
            {name: value[:3] for name, value in X.items()}, [0, 1, 0])),
        ("lower lr, or scale", lambda: clone(clf).set_params(lr=1e308, epochs=5).fit(X, y)),
        ("predictions are no numbers: lower lr",  # no loss follows the last step
            lambda: clone(clf).set_params(lr=1e30).fit(X, y).predict(X)),
        ("y: row 1 is True, row 0 is 1", lambda: clf.fit(X, [1, True, 0, False] * 3)),
        ("'a': a tensor of torch.bfloat16", lambda: clf.fit({"a": torch.ones(12).bfloat16()}, y)),
        ("'a': .*torch.sparse_coo", lambda: clf.fit({"a": torch.ones(12, 2).to_sparse()}, y)),
        ("y: a tensor of torch.bfloat16", lambda: clf.fit(X, torch.tensor(y).bfloat16())),
        ("X: Complex data not supported", lambda: clf.fit(table + 1j, y)),
        ("y: Complex data not supported", lambda: clf.fit(X, y + 1j)),
        ("y: .*bytes", lambda: clf.fit(X, [b"a", b"b"] * 6)),
        ("y: .*too large", lambda: IBMARegressor(**SMALL).fit(X, [10**400] * 12)),
        *(
            ("y: 3 labels that differ are 2 classes of", lambda odd=odd: clf.fit(X, odd * 4))
            for odd in ([2**53, 2**53 + 1, 1.0], ["a\0", "a", "b"])
        ),
        ("y: 3 labels that differ", lambda: clf.fit(
            X, pd.Series([2**53, 2**53 + 1, 5] * 4, dtype="Int64"))),
        *((f"row 0: a picture of mode .*{said}", lambda odd=odd: clf.fit({"a": [odd] * 12}, y))
            for said, odd in (("known range", Image.new("F", (4, 4))), ("trunc", cut_picture()))),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said) as caught:
            use()
        assert isinstance(caught.value, IbmaError), said
        assert "\n" not in str(caught.value) and "params.yaml" not in str(caught.value), said
