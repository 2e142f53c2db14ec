"""MELD's loader on its twin and on the real tables; what the twin tells."""

import shutil
from collections import Counter

import numpy as np
import probes
import pytest
import torch
from conftest import MIRROR, edit, needs

from ibma import datasets, fetch
from ibma.datasets import Dropped, Sample, meld
from ibma.errors import IbmaError
from ibma.features import media
from ibma.features.extract import extract
from ibma.twins import meld as twin

FEATURES = {
    "audio": {"n_mels": 32, "hop": 1411},
    "visual": {"frames": 2, "size": 16},
    "text": {"max_length": 16},
}
CPU = torch.device("cpu")


@pytest.fixture
def whole(copy):
    """The twin with its one absent clip in place, so that on_bad="stop" walks through."""
    folder = copy / "MELD.Raw/train_splits"
    shutil.copy(folder / "dia0_utt0.mp4", folder / "dia0_utt1.mp4")
    return copy


def by_id(raw, **options):
    return {entry.id: entry for entry in meld.samples(raw, on_bad="drop", **options)}


def test_a_sample_is_read_off_the_tables(written):
    clip = written / "MELD.Raw/output_repeated_splits_test/final_videos_testdia0_utt1.mp4"
    sample = by_id(written)["test_dia0_utt1"]
    assert sample.parts["audio"] == sample.parts["visual"] == clip
    assert (sample.split, sample.group, sample.dialogue) == ("test", "test_0", "test_0")


def test_targets_differ_in_labels_and_card_only(written):
    emotion, sentiment = by_id(written), by_id(written, target="sentiment")
    assert list(emotion) == list(sentiment)
    for name, sample in emotion.items():
        if isinstance(sample, Sample) and meld.EMOTIONS[sample.label] != "surprise":
            expected = twin.SENTIMENT.get(meld.EMOTIONS[sample.label], "negative")
            assert sentiment[name].label == meld.SENTIMENTS[expected]
    surprises = {
        sentiment[n].label for n, s in emotion.items() if isinstance(s, Sample) and s.label == 1
    }
    assert surprises == {-1, 1}
    assert datasets.card(meld, {"target": "sentiment"}).classes == ("-1", "0", "1")
    with pytest.raises(IbmaError, match="target 'mood': expected emotion or sentiment"):
        datasets.card(meld, {"target": "mood"})


def test_the_two_unusable_clips_keep_their_text(written):
    found = by_id(written)
    for name in ("train_dia125_utt3", "dev_dia110_utt7"):
        assert found[name].parts["audio"] is None and found[name].parts["visual"] is None
        assert found[name].parts["text"] and found[name].label == 0
    assert (written / "MELD.Raw/train_splits/dia125_utt3.mp4").exists(), "cut, but there"


def test_another_missing_clip_is_dropped_by_name_or_stops(written):
    assert by_id(written)["train_dia0_utt1"] == Dropped("train_dia0_utt1", "no clip")
    with pytest.raises(IbmaError, match=r"no dia0_utt1.mp4, but .*train_sent_emo.csv: line 3"):
        list(meld.samples(written))


def test_stubs_and_clips_without_a_row_are_no_samples(whole):
    folder = whole / "MELD.Raw/output_repeated_splits_test"
    assert (folder / twin.STUB).exists() and (folder / twin.EXTRA).exists()
    counts = Counter(sample.split for sample in meld.samples(whole))
    assert counts == {"train": 98, "valid": 15, "test": 49}


def test_both_encodings_read_alike(copy):
    ours = by_id(copy)
    for name in ("train", "dev", "test"):
        (copy / f"{name}_sent_emo.csv").unlink()
    inner = (copy / "MELD.Raw/train_sent_emo.csv").read_text(encoding="utf-8")
    assert "\x92" in inner and "\u2019" not in inner
    assert by_id(copy) == ours
    assert any("\u2019" in s.parts["text"] for s in ours.values() if isinstance(s, Sample))


def test_splits_may_lie_in_folders_of_their_own(copy):
    ours = list(by_id(copy))
    for split, folder in twin.FOLDERS.items():
        (copy / "MELD.Raw" / split).mkdir()
        (copy / "MELD.Raw" / folder).rename(copy / "MELD.Raw" / split / folder)
    assert list(by_id(copy)) == ours


def test_characters_of_windows_become_those_that_they_stand_for():
    assert meld.normalise(" don\x92t \x93go\x94\x85\xa0") == "don\u2019t \u201cgo\u201d\u2026"
    assert meld.normalise("cafe\u0301") == "caf\u00e9"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Emotion", "Feeling", "column 'Emotion' is missing"),
        (",neutral,neutral,", ",bored,neutral,", "emotion 'bored': expected one of neutral"),
        (",neutral,neutral,", ",neutral,mixed,", "sentiment 'mixed': expected negative"),
        (",0,0,1,1,", ",x,0,1,1,", "Dialogue_ID 'x': expected a whole number"),
        (
            ",0,0,1,1,",
            f",{'1' * 5000},0,1,1,",
            "Dialogue_ID '1{60}': expected .* at most 18 digits",
        ),
    ],
)
def test_a_bad_table_stops_with_its_line(whole, old, new, said):
    edit(whole / "train_sent_emo.csv", old, new)
    with pytest.raises(IbmaError, match=said):
        list(meld.samples(whole, on_bad="drop"))


def test_without_clips_it_says_where_to_get_them(copy):
    shutil.rmtree(copy / "MELD.Raw")
    with pytest.raises(IbmaError, match=r"train_splits: missing: .*put MELD.Raw.tar.gz"):
        list(meld.samples(copy, on_bad="drop"))


# --- the twin ------------------------------------------------------------------------------------


def test_the_twin_is_small_and_always_the_same(written, tmp_path):
    twin.write(tmp_path)
    for name in ("MELD.Raw.tar.gz", "train_sent_emo.csv"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()
    assert (tmp_path / "MELD.Raw.tar.gz").stat().st_size < 2e6
    table = (written / "train_sent_emo.csv").read_text(encoding="utf-8")
    assert all(trap in table for trap in ('"\u2026, ', '"0:01:12,632"', '"00:06:12,000"'))


def test_extraction_takes_six_channels_and_a_blink_of_sound(features):
    assert {"train_dia0_utt2", "train_dia0_utt3", "train_dia125_utt3"} <= set(features.ids)
    assert features.meta["counts"] == {"test": 49, "train": 97, "valid": 15}
    assert features.meta["absent"] == {"audio": 2, "visual": 2, "text": 0}
    silent = features.ids.index("train_dia125_utt3")
    assert not features.arrays["audio"][silent].any() and features.arrays["text"][silent].any()
    batch = next(features.everything().taking(np.array([silent, 0])).batches(2, CPU))
    assert batch.x["present/audio"].tolist() == batch.x["present/visual"].tolist() == [False, True]
    assert "present/text" not in batch.x


def test_a_clip_without_moov_is_named(whole, tmp_path):
    folder = whole / "MELD.Raw/train_splits"
    shutil.copy(folder / "dia125_utt3.mp4", folder / "dia3_utt3.mp4")
    entry = {"dataset": "meld", "options": {"target": "emotion"}, "features": FEATURES}
    with pytest.raises(media.Unreadable, match=r"dia3_utt3.mp4: cannot be decoded"):
        extract("meld", entry, meld, whole, tmp_path / "out", media.compute)


def test_each_modality_knows_part_and_all_know_most(features):
    """The docstring's ceilings: .40, .40, .27 alone, .79 sound and pictures, .91 all three."""
    train, test = features.splits == "train", features.splits == "test"
    classes = features.labels[:, 0].astype(int)
    names = np.array(meld.EMOTIONS)[classes]
    views = probes.views(features)
    told = {
        "audio": probes.read(views["audio"], np.array([twin.TONE[n] for n in names]), train),
        "visual": probes.read(
            views["visual"], np.array([twin.COLOUR.get(n, 0) for n in names]), train
        ),
        "text": probes.read(
            views["text"], np.array([twin.SENTIMENT.get(n, "negative") for n in names]), train
        ),
    }

    def accuracy(*chosen):
        return probes.best_guess([told[name] for name in chosen], classes, train, test)

    assert 0.3 < accuracy("audio") < 0.5 and 0.3 < accuracy("text") < 0.5
    assert 0.2 < accuracy("visual") < 0.35
    assert 0.65 < accuracy("audio", "visual") < 0.9
    assert accuracy(*told) > 0.8


# --- real tables ---------------------------------------------------------------------------------


@needs("github/declare-lab/MELD")
def test_the_real_tables(tmp_path, monkeypatch):
    """Counts and clean apostrophes, from git's bytes and from the archive's encoding of them."""
    monkeypatch.setenv("IBMA_MIRROR", str(MIRROR))
    fetch.dataset("meld", "real", tmp_path)
    for split in meld.SPLITS:
        folder = tmp_path / "MELD.Raw" / split.folder
        folder.mkdir(parents=True)
        table = tmp_path / f"{split.name}_sent_emo.csv"
        for _, row in meld.tabular.rows(table, meld.LISTED):
            (folder / f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}.mp4").touch()
    found = list(meld.samples(tmp_path))
    assert Counter(s.split for s in found) == {"train": 9989, "valid": 1109, "test": 2610}
    emotions = Counter(meld.EMOTIONS[s.label] for s in found if s.split == "test")
    assert [emotions[e] for e in ("neutral", "joy", "surprise", "anger")] == [1256, 402, 281, 345]
    texts = [s.parts["text"] for s in found]
    assert sum(text.count("\u2019") for text in texts if text) > 3547
    assert not any(bad in text for text in texts for bad in ("\x92", "\u00e2\u20ac", "companys"))
    controls = {new: old for old, new in meld.PUNCTUATION.items() if new != " "}
    for split in meld.SPLITS:
        table = tmp_path / f"{split.name}_sent_emo.csv"
        text = table.read_text(encoding="utf-8").translate(str.maketrans(controls))
        table.rename(tmp_path / "kept.csv")
        (tmp_path / "MELD.Raw" / table.name).write_text(text, encoding="utf-8")
    assert [s.parts["text"] for s in meld.samples(tmp_path)] == texts
    sentiments = Counter(s.label for s in meld.samples(tmp_path, target="sentiment"))
    assert sentiments[-1] and {-1, 0, 1} == set(sentiments)
    train = Counter(
        s.label for s in meld.samples(tmp_path, target="sentiment") if s.split == "train"
    )
    assert (train[-1], train[1]) == (2945, 2334)
