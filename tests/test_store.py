"""The extract stage: what is kept, what is dropped, what stops."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import fake_dataset, vector

from ibma import store
from ibma.datasets import Sample
from ibma.errors import IbmaError


def extract(tmp_path: Path, dataset, compute=vector, **entry) -> Path:
    out = tmp_path / "features"
    entry = {"dataset": "fake", "options": {}, "features": {}} | entry
    store.extract("fake", entry, dataset, tmp_path, out, compute)
    return out


def unreadable_s3(kind, part, params):
    if not hasattr(unreadable_s3, "calls"):
        unreadable_s3.calls = 0
    unreadable_s3.calls += 1
    if unreadable_s3.calls == 7:
        raise IbmaError("s3.wav: truncated: fetch it again")
    return vector(kind, part, params)


def test_round_trip(tmp_path):
    features = store.Features(extract(tmp_path, fake_dataset()))
    assert features.meta["source"] == "real" and features.meta["dropped"] == 1
    assert len(features.ids) == 72 and features.arrays["view0"].shape == (72, 3)
    assert sum(features.meta["counts"].values()) == 72
    assert len(features.training(0)) + len(features.test(0)) == 72
    assert isinstance(features.arrays["view0"], np.memmap)


def test_twin_is_marked(tmp_path):
    (tmp_path / "TWIN").write_text("")
    assert store.Features(extract(tmp_path, fake_dataset())).meta["source"] == "twin"


def test_an_unreadable_sample_stops_by_default_and_is_named_when_dropped(tmp_path):
    unreadable_s3.calls = 0
    with pytest.raises(IbmaError, match="s3.wav: truncated"):
        extract(tmp_path, fake_dataset(), unreadable_s3)
    unreadable_s3.calls = 0
    out = extract(tmp_path, fake_dataset(), unreadable_s3, on_bad="drop")
    with (out / "dropped.csv").open() as file:
        rows = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert rows == {"broken": "for the test", "s3": "s3.wav: truncated: fetch it again"}
    features = store.Features(out)
    assert "s3" not in features.ids and len(features.ids) == len(features.arrays["view1"]) == 71
    assert not list(out.glob("*.part.npy"))


def test_rows_stay_aligned_after_a_drop(tmp_path):
    unreadable_s3.calls = 0
    whole = store.Features(extract(tmp_path / "a", fake_dataset()))
    holed = store.Features(extract(tmp_path / "b", fake_dataset(), unreadable_s3, on_bad="drop"))
    place = whole.ids.index("s40")
    np.testing.assert_array_equal(
        whole.arrays["view1"][place], holed.arrays["view1"][holed.ids.index("s40")]
    )


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_the_vocabulary_names_its_sample(tmp_path, label):
    base = fake_dataset()

    def samples(raw, *, on_bad="stop"):
        yield Sample("s0", "train", "g", label, {"view0": (0.0,), "view1": (0.0,)})

    with pytest.raises(IbmaError, match=f"sample s0: label {label} is outside 0..2"):
        extract(tmp_path, SimpleNamespace(CARD=base.CARD, FILES=(), samples=samples))


def test_no_usable_sample(tmp_path):
    base = fake_dataset()
    empty = SimpleNamespace(CARD=base.CARD, FILES=(), samples=lambda raw, *, on_bad: iter(()))
    with pytest.raises(IbmaError, match="no usable sample"):
        extract(tmp_path, empty)


def test_missing_features_say_what_to_run(tmp_path):
    with pytest.raises(IbmaError, match="run `dvc repro extract` first"):
        store.Features(tmp_path)


def test_digest_follows_the_data(tmp_path):
    first = json.loads((extract(tmp_path / "a", fake_dataset()) / "meta.json").read_text())
    again = json.loads((extract(tmp_path / "b", fake_dataset()) / "meta.json").read_text())
    other = json.loads(
        (extract(tmp_path / "c", fake_dataset("multilabel")) / "meta.json").read_text()
    )
    assert first["digest"] == again["digest"] != other["digest"]


def test_a_misspelt_option_names_its_place(tmp_path):
    with pytest.raises(IbmaError, match=r"tasks.fake.options: .*'uncertian': remove or correct"):
        extract(tmp_path, fake_dataset(), options={"uncertian": "mixed"})


def test_a_missing_modality_is_zero_and_counted(tmp_path):
    dataset = fake_dataset()

    def samples(raw: Path, **options: str):
        for i, sample in enumerate(fake_dataset().samples(raw)):
            if i == 5:
                sample = replace(sample, parts={**sample.parts, "view1": None})
            yield sample

    dataset.samples = samples
    features = store.Features(extract(tmp_path, dataset))
    assert features.meta["absent"] == {"view0": 0, "view1": 1}
    assert not features.arrays["view1"][5].any() and features.arrays["view0"][5].any()


def test_previous_label_of_a_dialogue_comes_from_training_rows_only(tmp_path):
    features = store.Features(extract(tmp_path, fake_dataset()))
    train = features.training(0)
    previous = train.previous_labels()
    said = {}
    for row in range(72):
        expected = said.get(features.dialogues[row]) if row in train.index else None
        assert previous[row].isnan() if expected is None else previous[row] == expected
        if row in train.index:
            said[features.dialogues[row]] = features.labels[row, 0]
    features.dialogues[:] = ""
    assert train.previous_labels() is None
