"""RAVDESS: names, folds, the join with action units, and the mirror's stand-in for the zip."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MIRROR, needs

from ibma import datasets, fetch
from ibma.datasets import Dropped, ravdess
from ibma.errors import IbmaError

CLIPS = ("03-01-01-01-01-01-01", "03-01-05-02-01-02-02", "03-01-08-01-02-01-24")


@pytest.fixture
def raw(tmp_path):
    return lay_out(tmp_path)


def lay_out(folder: Path) -> Path:
    for clip in CLIPS:
        (folder / f"Actor_{clip[-2:]}").mkdir()
        (folder / f"Actor_{clip[-2:]}/{clip}.wav").write_bytes(b"RIFF")
    lines = [";".join([*ravdess.UNITS, "speech", "name"])]
    others = "0.25;" * (len(ravdess.UNITS) - 2)
    lines += [f"0.5;{others}{i};0.1;01{clip[2:]}" for i, clip in enumerate(CLIPS)]
    (folder / ravdess.ACTION_UNITS).write_text("\n".join(lines) + "\n")
    return folder


def test_names_become_labels_folds_and_groups(raw, monkeypatch):
    monkeypatch.setattr(ravdess, "CLIPS", 3)
    found = list(ravdess.samples(raw))
    assert [s.id for s in found] == list(CLIPS)
    assert [s.label for s in found] == [0, 4, 7]
    assert [s.split for s in found] == ["fold4", "fold0", "fold3"]
    assert [s.group for s in found] == ["actor01", "actor02", "actor24"]
    assert [s.parts["face"] for s in found] == [(0.5, *[0.25] * 33, i) for i in range(3)]


def test_emotions_merge_into_groups_and_nothing_else_changes(raw, monkeypatch):
    monkeypatch.setattr(ravdess, "CLIPS", len(CLIPS))
    whole = list(ravdess.samples(raw))
    for target, count in (("quadrant", 4), ("valence", 2)):
        groups, card = ravdess.MERGED[target], datasets.card(ravdess, {"target": target})
        assert sorted(e for own in groups.values() for e in own) == sorted(ravdess.CARD.classes)
        assert len(card.classes) == count and card.folds == ravdess.CARD.folds
        for one, merged in zip(whole, ravdess.samples(raw, target=target), strict=True):
            emotion = ravdess.CARD.classes[one.label]
            assert emotion in groups[card.classes[merged.label]]
            assert replace(merged, label=one.label) == one
    with pytest.raises(IbmaError, match="target 'mood': expected emotion or quadrant or valence"):
        datasets.card(ravdess, {"target": "mood"})


def test_folds_are_the_published_ones():
    """The test fold of actors 1 to 24 in Luna-Jimenez et al. 2022."""
    of_actor = [4, 0, 1, 4, 0, 1, 1, 3, 4, 2, 2, 2, 1, 0, 0, 0, 3, 1, 2, 2, 3, 4, 3, 3]
    found = {actor: fold for fold, actors in enumerate(ravdess.FOLDS) for actor in actors}
    assert found == dict(enumerate(of_actor, 1)) and sum(map(len, ravdess.FOLDS)) == 24


def test_quadrants_lie_within_a_side_of_valence():
    sides = [set(own) for own in ravdess.MERGED["valence"].values()]
    assert sides[1] == {"sad", "fearful", "angry", "disgust"}
    for own in ravdess.MERGED["quadrant"].values():
        assert len(own) == 2 and any(set(own) <= side for side in sides), own


def test_a_wrong_number_of_clips_stops(raw):
    with pytest.raises(IbmaError, match="3 clips .* expected 1440"):
        list(ravdess.samples(raw))


@pytest.mark.parametrize("name", ["03-01-09-01-01-01-01", "03-01-xx-01-01-01-01",
                                  "03-01-01-01-01-01-25", "03-01-01-01"])  # fmt: skip
def test_a_name_outside_the_vocabulary_is_named(raw, monkeypatch, name):
    monkeypatch.setattr(ravdess, "CLIPS", 4)
    (raw / f"Actor_01/{name}.wav").write_bytes(b"RIFF")
    with pytest.raises(IbmaError, match=rf"{name}.wav: emotion is not 01..08 or actor"):
        list(ravdess.samples(raw))


def test_a_clip_without_action_units_stops_or_is_dropped(raw, monkeypatch):
    monkeypatch.setattr(ravdess, "CLIPS", 3)
    table = raw / ravdess.ACTION_UNITS
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(IbmaError, match=f"no row for clip {CLIPS[2]}"):
        list(ravdess.samples(raw))
    assert Dropped(CLIPS[2], "no action units") in list(ravdess.samples(raw, on_bad="drop"))


def test_a_missing_clip_is_dropped_by_name(raw, monkeypatch):
    monkeypatch.setattr(ravdess, "CLIPS", 3)
    (raw / f"Actor_02/{CLIPS[1]}.wav").unlink()
    with pytest.raises(IbmaError, match="2 clips .* expected 3"):
        list(ravdess.samples(raw))
    found = list(ravdess.samples(raw, on_bad="drop"))
    assert [one.id for one in found] == [CLIPS[0], CLIPS[2], CLIPS[1]]
    assert found[2] == Dropped(CLIPS[1], "no clip")


def test_the_mirror_stands_in_for_the_zip_under_its_own_checksums(tmp_path, monkeypatch):
    folder = tmp_path / "mirror/ravdess/flac16k"
    folder.mkdir(parents=True)
    (folder / "a.flac").write_bytes(b"sound")
    listed = tmp_path / "list.sha256"
    listed.write_text(f"{hashlib.sha256(b'sound').hexdigest()}  a.flac\n")
    monkeypatch.setattr(ravdess, "MIRRORED", listed)
    assert ravdess.fetch_mirror(tmp_path / "mirror", tmp_path / "raw")
    assert (tmp_path / "raw/flac16k/a.flac").read_bytes() == b"sound"
    listed.write_text(f"{'0' * 64}  a.flac\n")
    with pytest.raises(IbmaError, match=r"a.flac: wrong checksum, deleted"):
        ravdess.fetch_mirror(tmp_path / "mirror", tmp_path / "raw")
    assert not (tmp_path / "raw/flac16k/a.flac").exists()
    assert not ravdess.fetch_mirror(tmp_path / "nowhere", tmp_path / "raw")


@needs("ravdess/flac16k")
def test_the_real_files_have_the_published_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("IBMA_MIRROR", str(MIRROR))
    fetch.dataset("ravdess", "real", tmp_path)
    found = list(ravdess.samples(tmp_path))
    assert len(found) == 1440
    labels = Counter(ravdess.CARD.classes[s.label] for s in found)
    assert labels["neutral"] == 96 and set(labels.values()) == {96, 192}
    assert Counter(s.split for s in found) == {"fold4": 240} | {f"fold{k}": 300 for k in range(4)}
    assert {len(s.parts["face"]) for s in found} == {35}
