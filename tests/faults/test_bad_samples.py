"""What a data set may get wrong about a sample, and about all samples together: one line each."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import fake_dataset, vector

from ibma.datasets import Dropped, Sample
from ibma.errors import IbmaError
from ibma.features import media, store
from ibma.features.extract import extract
from ibma.features.samples import checked


def changed(kind="classify", folds=0, at=5, **changes):
    """The fake data set with one sample, or all for at=None, of other content."""
    base = fake_dataset(kind, folds=folds)

    def samples(raw: Path, *, on_bad: str = "stop"):
        for place, entry in enumerate(base.samples(raw)):
            if isinstance(entry, Sample) and at in (place, None):
                found = {name: f(entry) if callable(f) else f for name, f in changes.items()}
                entry = replace(entry, **found)
            yield entry

    return SimpleNamespace(CARD=base.CARD, FILES=(), samples=samples)


def extracted(tmp_path: Path, dataset, compute=vector, **entry) -> store.Features:
    entry = {"dataset": "fake", "options": {}, "features": {}} | entry
    extract("fake", entry, dataset, tmp_path, tmp_path / "out", compute)
    return store.Features.read(tmp_path / "out")


def refused(dataset, on_bad="stop") -> str:
    with pytest.raises(IbmaError) as caught:
        list(checked(dataset.samples(Path(), on_bad=on_bad), dataset.CARD, on_bad))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_whole(tmp_path, dataset, **entry) -> str:
    with pytest.raises(IbmaError) as caught:
        extracted(tmp_path, dataset, **entry)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    return str(caught.value)


# --- splits --------------------------------------------------------------------------------------


def test_names_of_splits_are_mapped_or_refused():
    names = {
        "train": ("train", "Train", "TRAINING", " train "),
        "valid": ("val", "Val", "dev", "DEV", "validation", "Validate", "valid", "development"),
        "test": ("test", "Test", "TESTING"),
    }
    for expected, given in names.items():
        for name in given:
            dataset = changed(at=None, split=name)
            entries = checked(dataset.samples(Path()), dataset.CARD, "stop")
            assert {e.split for e in entries if isinstance(e, Sample)} == {expected}, name
    for name in ("unlabelled", "eval", "", "tset", "fold0", "0", None, 0, math.nan, ["train"]):
        line = refused(changed(split=name))
        assert line.startswith("sample s5: split ") and "expected train, valid, test" in line
    for name in ("train", "fold3", "fold", "3", "fold-1"):
        assert "expected fold0, fold1, fold2" in refused(changed(folds=3, split=name))
    assert next(checked(changed(folds=3, split="Fold2", at=0).samples(Path()),
                        changed(folds=3).CARD, "stop")).split == "fold2"  # fmt: skip


def test_rows_for_validation_are_never_trained_on(tmp_path):
    def split(sample: Sample) -> str:
        return "val" if int(sample.id[1:]) % 4 == 0 else sample.split.title()

    features = extracted(tmp_path, changed(at=None, split=split))
    trained = {features.ids[row] for row in features.training(0).index}
    tested = {features.ids[row] for row in features.test(0).index}
    assert features.meta["counts"]["valid"] == 18
    assert not any(int(name[1:]) % 4 == 0 for name in trained | tested)


# --- labels and ids ------------------------------------------------------------------------------


def test_a_label_that_its_kind_cannot_have_names_its_sample():
    wrong = {
        "classify": (0.6, 1.0, True, "1", None, [1], (1,), 3, -1, np.float32(1), np.bool_(True)),
        "one_class": (2, -1, 0.5, False, "normal", None),
        "multilabel": (1, (1, 0), (1, 0, 1, 0), (1, 0, 2), (1, 0, -1), (1.0, 0, 1), (True, 0, 1),
                       [1, 0, 1], ("1", 0, 1), (None, 0, 1), ()),
        "sentiment": (1.2, -3, True, "0.5", None, (0.5,), [0.5], 1j),
    }  # fmt: skip
    for kind, labels in wrong.items():
        for label in labels:
            for on_bad in ("stop", "drop"):
                line = refused(changed(kind, label=label), on_bad)
                assert line.startswith("sample s5: label ") and "expected" in line, (kind, label)
    right = {
        "classify": (0, 2, np.int64(1), np.uint8(2)),
        "multilabel": ((0, 0, 0), (np.int64(1), 0, 1)),
        "sentiment": (0, -1, 0.5, np.float32(0.5)),
    }
    for kind, labels in right.items():
        for label in labels:
            dataset = changed(kind, label=label)
            list(checked(dataset.samples(Path()), dataset.CARD, "stop"))


def test_a_label_that_is_no_number_is_named_and_dropped_or_stops(tmp_path):
    for kind, label in (
        ("sentiment", math.nan), ("sentiment", -math.inf), ("classify", math.nan),
        ("multilabel", (0, math.nan, 1)),
    ):  # fmt: skip
        dataset = changed(kind, label=label)
        assert "sample s5: label" in refused(dataset)
        dropped = [e for e in checked(dataset.samples(Path()), dataset.CARD, "drop")
                   if isinstance(e, Dropped)]  # fmt: skip
        assert dropped[0].id == "s5" and "expected a finite number" in dropped[0].reason


def test_ids_name_one_sample():
    assert "s5: id" not in refused(changed(id="s3"))
    assert "sample s3: this id is there twice" in refused(changed(id="s3"))
    assert "in test and in train" in refused(changed(id="s0"))
    assert "this id is there twice" in refused(changed(at=None, id="same"))
    for value in ("", None, 7, "a\nb", "a\0", "\ud800"):
        assert "expected text without line breaks" in refused(changed(id=value))
        assert "group" in refused(changed(group=value))
    assert "dialogue" in refused(changed(dialogue=None))


def test_ids_and_groups_that_look_like_numbers_or_nothing_are_stored_as_they_are(tmp_path):
    names = (
        "0012",
        "12",
        "NA",
        "None",
        "nan",
        "1e3",
        "True",
        "-",
        "a,b",
        "it's",
        '"q"',
        "ü",
        "1.0",
    )
    base = [entry.id for entry in fake_dataset().samples(Path()) if isinstance(entry, Sample)]
    renamed = dict(zip(base, names, strict=False))

    def name(sample: Sample) -> str:
        return renamed.get(sample.id, sample.id)

    features = extracted(tmp_path, changed(at=None, id=name, group=name))
    assert features.ids[: len(names)] == list(names)
    assert features.ids == list(features.groups)


# --- features ------------------------------------------------------------------------------------


def test_values_that_are_no_numbers_are_named_and_dropped_or_stop(tmp_path):
    """In a training row and in a test row alike."""
    splits = [s.split for s in fake_dataset().samples(Path()) if isinstance(s, Sample)]
    for at in (splits.index("train"), splits.index("test")):
        for value in (math.nan, math.inf, -math.inf, 1e39, -3e38):

            def parts(sample: Sample, value=value) -> dict:
                return {**sample.parts, "view1": (value, 0.0, 0.0)}

            dataset = changed(at=at, parts=parts)
            line = refused_whole(tmp_path / "a", dataset)
            assert f"sample s{at}: 'view1' holds NaN or infinity" in line
            features = extracted(tmp_path / "b", dataset, on_bad="drop")
            assert f"s{at}" not in features.ids and len(features.ids) == 71


def test_parts_that_are_not_what_their_kind_asks_for_are_named(tmp_path):
    cases = {
        "text": (5, None, "is no vector"),
        "numbers in rows": (((1.0, 2.0), (3.0, 4.0)), None, "is no vector"),
        "nothing": ((), None, "is no vector"),
        "words": (("a", "b", "c"), None, "is no vector"),
        "numbers as words": (("1", "2", "3"), None, "is no vector"),
        "complex": (np.array([1j, 2, 3]), None, "is no vector"),
        "dates": (np.array(["2020"] * 3, "M8[Y]"), None, "is no vector"),
        "masked": (np.ma.masked_array([1.0, 2, 3], [0, 1, 0]), None, "holds NaN"),
        "a file": (Path("a"), None, "is no vector"),
        "another length": ((1.0, 2.0), None, r"a feature of shape (2,)"),
    }
    for name, (value, _, told) in cases.items():
        dataset = changed(parts=lambda s, value=value: {**s.parts, "view1": value})
        with pytest.raises(IbmaError) as caught:
            extracted(tmp_path, dataset, media.compute)
        assert "s5: 'view1'" in str(caught.value) and told in str(caught.value), name
    for kind, part in (("text", math.nan), ("text", Path("a")), ("audio", "a.wav"), ("image", 3)):
        with pytest.raises(media.Unreadable, match="expected"):
            media.compute(kind, part, {})
    for changes in ({"view0": (1.0,)}, {"view0": (1.0,), "view1": (1.0,), "view2": (1.0,)}):
        assert "sample s5: modality" in refused(changed(parts=changes))
    nothing = changed(parts={"view0": None, "view1": None})
    assert "sample s5: no modality is there" in refused(nothing)
    assert "s5" not in extracted(tmp_path / "drop", nothing, on_bad="drop").ids


def test_what_is_no_sample_is_told_and_so_are_parts_without_names(tmp_path):
    for yielded in (None, {"id": "a"}, ("a", "train"), "s0"):
        dataset = changed()
        dataset.samples = lambda raw, *, on_bad="stop", yielded=yielded: iter([yielded])
        assert "samples yields" in refused(dataset)
    for parts in (None, [(1.0,)], "view0"):
        assert refused(changed(parts=parts)).startswith("sample s5: parts")
    dataset.samples = lambda raw, *, on_bad="stop": None
    assert "data set fake: samples returns NoneType" in refused_whole(tmp_path, dataset)


# --- all of them ---------------------------------------------------------------------------------


def test_what_no_method_can_learn_from_is_one_line(tmp_path):
    cases = {
        "no test": (changed(at=None, split="train"), "of split test is kept (but 72 train)"),
        "no train": (changed(at=None, split="test"), "no sample of split train is kept"),
        "validation alone": (changed(at=None, split="val"), "no sample of split train"),
        "an empty fold": (changed(folds=3, at=None, split=lambda s: "fold0"), "split fold1"),
        "one class": (changed(at=None, label=1), "every training sample has label 1"),
        "one score": (changed("sentiment", at=None, label=0.5), "has label 0.5"),
        "one combination": (changed("multilabel", at=None, label=(0, 1, 1)), "has label 0 1 1"),
        "one group": (changed(at=None, group="g"), "every training sample is of group 'g'"),
        "a group in two folds": (
            changed(folds=3, at=None, group=lambda s: f"g{int(s.id[1:]) % 7}"),
            "is in fold0 and fold1: folds keep groups whole",
        ),
        "a modality that training lacks": (
            changed(at=None, parts=lambda s: {**s.parts, **({"view1": None} if s.split == "train"
                                                            else {})}),
            "no training sample has 'view1'",
        ),
        "anomalies in train": (changed("one_class", at=None, label=lambda s: int(s.id[1:]) % 2),
                               "expected normal samples (0) in train"),
        "no anomaly in test": (changed("one_class", at=None, label=0), "['0'] in test"),
    }  # fmt: skip
    for name, (dataset, told) in cases.items():
        assert told in refused_whole(tmp_path / name, dataset), name


def test_groups_that_train_and_test_share_are_counted(tmp_path, capfd):
    features = extracted(tmp_path / "a", changed(at=None))
    groups = [set(features.groups[s.index]) for s in (features.training(0), features.test(0))]
    shared = len(groups[0] & groups[1])
    assert features.meta["groups_in_train_and_test"] == shared > 0
    assert (
        f"{shared} groups (speakers, patients) are in train and in test" in capfd.readouterr().err
    )
    apart = changed(at=None, group=lambda s: f"{s.split}{int(s.id[1:]) % 5}")
    assert extracted(tmp_path / "b", apart).meta["groups_in_train_and_test"] == 0


def test_a_card_that_features_cannot_be_stored_under_is_refused(tmp_path):
    """Before any is computed: `../x` would be a file outside of the folder."""
    for changes, told in (
        ({"kind": "regression"}, "CARD.kind 'regression': expected one of classify"),
        ({"classes": ("a", "a", "b")}, "expected names, each once"),
        ({"folds": 1}, "CARD.folds 1: expected 0, or 2 or more"),
        ({"folds": "5"}, "CARD.folds '5': expected int"),
        ({"classes": None}, "CARD.classes None: expected tuple"),
        ({"classes": "ab"}, "CARD.classes 'ab': expected tuple"),
        ({"modalities": ["view0"]}, "CARD.modalities ['view0']: expected Mapping"),
        ({"official": None}, "CARD.official None: expected Counts"),
        ({"modalities": {"view0": "picture", "view1": "vector"}}, "'view0' is 'picture'"),
        *(
            ({"modalities": {name: "vector"}}, "expected another name")
            for name in ("../x", "type", "fused", "logits", "a b", "")
        ),
    ):
        dataset = changed()
        dataset.CARD = replace(dataset.CARD, **changes)
        line = refused_whole(tmp_path, dataset)
        assert line.startswith("fake: CARD") and told in line


def test_features_of_a_modality_that_is_not_there_are_refused(tmp_path):
    line = refused_whole(tmp_path, changed(), features={"veiw0": {}})
    assert "tasks.fake.features: no modality 'veiw0': expected one of view0, view1" in line
