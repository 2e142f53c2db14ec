"""CMU-MOSI's three forms, the pickle that says which clips count, and the twin."""

import csv
import os
import pickle
import shutil
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import probes
import pytest

from ibma import datasets, fetch, twins
from ibma.datasets import Dropped, Sample, mosi
from ibma.errors import IbmaError
from ibma.features import media, store
from ibma.features.extract import extract
from ibma.twins import mosi as twin

FEATURES = {
    "audio": {"n_mels": 16, "hop": 1411},
    "visual": {"frames": 2, "size": 16},
    "text": {"max_length": 16},
}


@pytest.fixture(scope="module")
def entries(written: Path) -> list[Sample | Dropped]:
    return list(mosi.samples(written, on_bad="drop"))


@pytest.fixture
def whole(copy: Path) -> Path:
    """The twin with its one absent mp4 in place, so that on_bad="stop" walks through."""
    absent = rows_of(copy)[twin.ABSENT]
    folder = copy / "MOSI" / "Raw" / absent["video_id"]
    shutil.copy(folder / "1.mp4", folder / f"{absent['clip_id']}.mp4")
    return copy


def rows_of(raw: Path) -> list[dict[str, str]]:
    with (raw / "MOSI" / "label.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rewrite(raw: Path, rows: list[dict[str, str]]) -> None:
    with (raw / "MOSI" / "label.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def samples_of(entries: list[Sample | Dropped]) -> list[Sample]:
    return [entry for entry in entries if isinstance(entry, Sample)]


def counts(entries: list[Sample | Dropped]) -> dict[str, int]:
    return dict(Counter(sample.split for sample in samples_of(entries)))


def as_cmu(raw: Path) -> Path:
    """Turn a whole form (B) into form (A)."""
    shutil.rmtree(raw / "Raw")
    for folder in ("Transcript", "Audio/WAV_16000", "Video"):
        (raw / "Raw" / folder / "Segmented").mkdir(parents=True)
    for row in rows_of(raw):
        name = f"{row['video_id']}_{row['clip_id']}"
        clip = raw / "MOSI" / "Raw" / row["video_id"] / f"{row['clip_id']}.mp4"
        shutil.copy(clip, raw / "Raw" / "Video" / "Segmented" / f"{name}.mp4")
        (raw / "Raw" / "Audio" / "WAV_16000" / "Segmented" / f"{name}.wav").touch()
        transcript = raw / mosi.TRANSCRIPTS / f"{row['video_id']}.annotprocessed"
        with transcript.open("a") as file:
            file.write(f"{row['clip_id']}_DELIM_{row['text']}\n")
    shutil.rmtree(raw / "MOSI")
    return raw


# --- the loader ----------------------------------------------------------------------------------


def test_a_sample_is_read_off_the_table(written: Path, entries: list[Sample | Dropped]) -> None:
    row = rows_of(written)[twin.HALF]
    name = f"{row['video_id']}_{row['clip_id']}"
    clip = written / "MOSI" / "Raw" / row["video_id"] / f"{row['clip_id']}.mp4"
    parts = {"audio": clip, "visual": clip, "text": row["text"].lower()}
    assert next(entry for entry in entries if entry.id == name) == Sample(
        name, "train", row["video_id"], 2.5, parts
    )


def test_texts_in_capitals_are_read_in_lower_case(whole: Path) -> None:
    rows = rows_of(whole)
    rows[5]["text"], rows[7]["text"] = "I'M SO GLAD, 10!", "I'm so SAD"
    rewrite(whole, rows)
    (whole / "mosi.pkl").unlink()
    texts = {one.id: one.parts["text"] for one in samples_of(list(mosi.samples(whole)))}
    names = [f"{rows[place]['video_id']}_{rows[place]['clip_id']}" for place in (5, 7)]
    assert [texts[name] for name in names] == ["i'm so glad, 10!", "I'm so SAD"]


def test_the_pickle_filters_and_without_it_every_clip_counts(
    copy: Path, entries: list[Sample | Dropped]
) -> None:
    assert counts(entries) == {"train": 124, "valid": 13, "test": 55}
    (copy / "mosi.pkl").unlink()
    assert counts(list(mosi.samples(copy, on_bad="drop"))) == {
        "train": 125,
        "valid": 14,
        "test": 56,
    }


def test_what_the_pickle_leaves_out_is_told_and_does_not_stop(whole: Path) -> None:
    dropped = [entry for entry in mosi.samples(whole) if isinstance(entry, Dropped)]
    firsts = [row for row in rows_of(whole) if row["clip_id"] == "1"]
    left_out = [firsts[0], firsts[14], firsts[16]]  # first of train, valid, test
    assert dropped == [
        Dropped(f"{row['video_id']}_1", "not among the paper's clips (mosi.pkl)")
        for row in left_out
    ]


def test_clips_are_matched_by_words_and_twins_in_words_one_for_one(whole: Path) -> None:
    """Two clips of a video say the same and the pickle has one: the one with its score is kept."""
    rows = rows_of(whole)
    rows[0]["text"] = rows[7]["text"].lower().replace(" ", " '")
    rewrite(whole, rows)
    kept = samples_of(list(mosi.samples(whole)))
    names = [f"{row['video_id']}_{row['clip_id']}" for row in (rows[0], rows[7])]
    assert rows[0]["label"] != rows[7]["label"]
    assert [sample.id for sample in kept if sample.id in names] == names[1:]


@pytest.mark.parametrize("change", [{"label": "-2.9"}, {"mode": "test"}])
@pytest.mark.parametrize("on_bad", ["stop", "drop"])
def test_a_clip_whose_score_or_split_the_pickle_has_otherwise_is_named(
    whole: Path, change: dict[str, str], on_bad: str
) -> None:
    rows = rows_of(whole)
    assert rows[8]["mode"] == "train"
    rows[8] |= change
    rewrite(whole, rows)
    told = rf"line 10: score {rows[8]['label']} in {rows[8]['mode']}: expected .* in train, as mosi"
    with pytest.raises(IbmaError, match=rf"label\.csv: {told}"):
        list(mosi.samples(whole, on_bad=on_bad))


def test_a_pickle_with_other_scores_or_splits_than_the_table_is_refused(whole: Path) -> None:
    path = whole / "mosi.pkl"
    true = mosi._load(path)
    negated = {key: [(one, -label, name) for one, label, name in true[key]] for key in true}
    for wrong in (negated, true | {"dev": true["test"], "test": true["dev"]}):
        path.write_bytes(pickle.dumps(wrong))
        for on_bad in ("stop", "drop"):
            with pytest.raises(IbmaError, match=r"label\.csv: line \d+: score .* mosi\.pkl"):
                list(mosi.samples(whole, on_bad=on_bad))


@pytest.mark.parametrize("backwards", [False, True])
def test_clips_with_the_same_words_have_their_own_scores_in_any_order(
    whole: Path, backwards: bool
) -> None:
    """In the pickle, and in CMU's transcripts."""
    rows = rows_of(whole)
    rows[5]["text"], rows[7]["text"] = "YEAH, SURE", "YEAH SURE"
    rewrite(whole, rows)
    content = mosi._load(whole / "mosi.pkl")
    for place in (4, 6):  # the first clip is not pickled
        (_, *others), label, name = content["train"][place]
        content["train"][place] = (["yeah", "sure"], *others), label, name
    content["train"].reverse()
    (whole / "mosi.pkl").write_bytes(pickle.dumps(content))
    wanted = {f"{row['video_id']}_{row['clip_id']}": float(row["label"]) for row in rows}
    assert {one.id for one in samples_of(list(mosi.samples(whole)))} < wanted.keys()
    transcripts = as_cmu(whole) / mosi.TRANSCRIPTS
    for path in transcripts.iterdir() if backwards else ():
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    found = samples_of(list(mosi.samples(whole)))
    assert {one.id: wanted[one.id] for one in found} == {
        one.id: pytest.approx(one.label) for one in found
    }


def test_the_pickle_is_checked_by_its_git_hash(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IbmaError, match=r"mosi\.pkl: is not MIB's mosi\.pkl: use the original"):
        mosi.verify(copy)
    (copy / "mosi.pkl").write_bytes(b"hello")
    monkeypatch.setattr(mosi, "GIT_HASH", "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0")  # by git
    mosi.verify(copy)
    (copy / "mosi.pkl").unlink()
    mosi.verify(copy)


def test_cmus_own_form_takes_split_and_score_from_the_pickle(whole: Path) -> None:
    wanted = {s.id: (s.split, s.group, s.label) for s in samples_of(list(mosi.samples(whole)))}
    found = list(mosi.samples(as_cmu(whole)))
    assert {s.id: (s.split, s.group, pytest.approx(s.label)) for s in samples_of(found)} == wanted
    assert len(found) == len(wanted) + 3
    parts = samples_of(found)[0].parts
    assert parts["audio"].suffix == ".wav" and parts["visual"].suffix == ".mp4"
    assert parts["text"].islower()


def test_features_alone_and_transcripts_alone_are_refused_in_one_line(copy: Path) -> None:
    shutil.rmtree(copy / "MOSI")
    cmu = (copy / "Raw").rename(copy / "elsewhere")
    for on_bad in ("stop", "drop"):
        with pytest.raises(IbmaError, match=r"mosi\.pkl alone has neither sound nor pic") as told:
            list(mosi.samples(copy, on_bad=on_bad))
        assert "\n" not in str(told.value) and "thuiar/MMSA" in str(told.value)
    cmu.rename(copy / "Raw")
    (copy / "mosi.pkl").unlink()
    with pytest.raises(IbmaError, match=r"CMU's Raw/ has no scores, add mosi\.pkl"):
        list(mosi.samples(copy))
    shutil.rmtree(copy / "Raw")
    with pytest.raises(IbmaError, match=r"no MOSI/label\.csv: take MOSI/"):
        list(mosi.samples(copy))


def test_nothing_is_fetched(tmp_path: Path) -> None:
    assert "is empty: take MOSI/" in fetch.dataset("mosi", "real", tmp_path)["missing"]
    assert mosi.FILES == () and datasets.load("mosi").CARD.access == "request"


def test_a_clip_without_mp4_stops_or_is_dropped(
    written: Path, entries: list[Sample | Dropped]
) -> None:
    row = rows_of(written)[twin.ABSENT]
    with pytest.raises(IbmaError, match=rf"{row['clip_id']}\.mp4: missing, but {row['video_id']}_"):
        list(mosi.samples(written))
    name = f"{row['video_id']}_{row['clip_id']}"
    path = f"MOSI/Raw/{row['video_id']}/{row['clip_id']}.mp4"
    assert Dropped(name, f"{path}: missing") in entries


def test_an_entry_whose_words_no_clip_has_stops_or_is_dropped(whole: Path) -> None:
    rows = rows_of(whole)
    rows[8]["text"] += " ELSE"
    rewrite(whole, rows)
    segment = f"{rows[8]['video_id']}[8]".replace("[8]", f"[{int(rows[8]['clip_id']) - 1}]")
    with pytest.raises(IbmaError, match=r"mosi\.pkl: no clip has the words of ") as told:
        list(mosi.samples(whole))
    assert segment in str(told.value)
    last = list(mosi.samples(whole, on_bad="drop"))[-1]
    assert last == Dropped(segment, "in mosi.pkl, but no clip has its words")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": "3.2"}, r"line 4: label '3\.2': expected a number from -3 to 3"),
        ({"label": ""}, r"line 4: label '': expected a number"),
        ({"label": "nan"}, r"line 4: label 'nan': expected a number"),
        ({"mode": "dev"}, r"line 4: mode 'dev': expected one of 'train', 'valid', 'test'"),
    ],
)
@pytest.mark.parametrize("on_bad", ["stop", "drop"])
def test_a_wrong_cell_names_file_and_line(
    whole: Path, change: dict[str, str], told: str, on_bad: str
) -> None:
    rows = rows_of(whole)
    rows[2].update(change)
    rewrite(whole, rows)
    with pytest.raises(IbmaError, match=rf"label\.csv: {told}"):
        list(mosi.samples(whole, on_bad=on_bad))


@pytest.mark.parametrize("on_bad", ["stop", "drop"])
def test_clips_in_a_quote_that_is_closed_rows_later_are_named(whole: Path, on_bad: str) -> None:
    """Four clips would be one with the words of all."""
    table = whole / "MOSI" / "label.csv"
    lines = table.read_text().split("\n")
    for place, old, new in ((20, "GRUM", '"GRUM'), (23, "WOB", 'WOB"')):
        assert old in lines[place]
        lines[place] = lines[place].replace(old, new)
    table.write_text("\n".join(lines))
    with pytest.raises(IbmaError, match=r"label\.csv: line 21: a quote is not closed"):
        list(mosi.samples(whole, on_bad=on_bad))


def test_a_table_of_another_form_is_named(copy: Path) -> None:
    table = copy / "MOSI" / "label.csv"
    content = table.read_bytes()
    table.write_bytes(content.replace(b"clip_id", b"clip", 1))
    with pytest.raises(IbmaError, match=r"label\.csv: column 'clip_id' is missing"):
        list(mosi.samples(copy))
    table.write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))  # a spreadsheet saved it
    assert counts(list(mosi.samples(copy, on_bad="drop")))["test"] == 55
    table.write_bytes(content.replace(b"LUMI", b"L\xdcMI"))
    with pytest.raises(IbmaError, match=r"label\.csv: line 4: .*UTF-8.*: use the original"):
        list(mosi.samples(copy, on_bad="drop"))


def test_a_transcript_line_of_another_form_is_named(whole: Path) -> None:
    transcript = min((as_cmu(whole) / mosi.TRANSCRIPTS).iterdir())
    transcript.write_text(transcript.read_text() + "no number\n")
    with pytest.raises(IbmaError, match=r"line 10: 'no number': expected <n>_DELIM_<words>"):
        list(mosi.samples(whole))


# --- the pickle ----------------------------------------------------------------------------------


class Evil:
    """Unpickling this would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_asks_for_more_than_arrays_is_refused_unrun(copy: Path) -> None:
    (copy / "mosi.pkl").write_bytes(pickle.dumps({"train": Evil(copy / "made")}))
    with pytest.raises(IbmaError, match=r"mosi\.pkl: not loaded \(it asks for posix\.mkdir\)"):
        list(mosi.samples(copy, on_bad="drop"))
    assert not (copy / "made").exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__"])
def test_builtins_that_run_things_are_refused(copy: Path, name: str) -> None:
    (copy / "mosi.pkl").write_bytes(f"cbuiltins\n{name}\n.".encode())
    with pytest.raises(IbmaError, match=rf"it asks for builtins\.{name}"):
        list(mosi.samples(copy))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_every_protocol_say_the_same(copy: Path, protocol: int) -> None:
    path = copy / "mosi.pkl"
    wanted = mosi._segments(path)
    content = mosi._load(path)
    features, label, name = content["dev"][0]
    content["dev"][0] = features, np.float32(label[0, 0]), name
    path.write_bytes(pickle.dumps(content, protocol))
    assert mosi._segments(path) == wanted


def test_an_older_numpys_names_load(copy: Path) -> None:
    path = copy / "mosi.pkl"
    wanted = mosi._segments(path)
    old = pickle.dumps(mosi._load(path), 3).replace(b"numpy._core", b"numpy.core")
    path.write_bytes(old)
    assert b"numpy.core" in old and mosi._segments(path) == wanted


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not loaded"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        (pickle.dumps([1, 2]), "is not MIB's mosi.pkl"),
        (pickle.dumps({"train": {"text": [1]}, "valid": {}, "test": {}}), "is not MIB's mosi.pkl"),
        (pickle.dumps({"train": [((["a"], 0, 0), [[7.0]], "v[0]")]}), r"label '7.0' of v\[0\]"),
    ],
)
def test_another_pickle_is_named(copy: Path, content: bytes, told: str) -> None:
    (copy / "mosi.pkl").write_bytes(content)
    with pytest.raises(IbmaError, match=told) as caught:
        list(mosi.samples(copy, on_bad="drop"))
    assert "mosi.pkl" in str(caught.value) and "\n" not in str(caught.value)


def test_a_cut_pickle_is_named(copy: Path) -> None:
    path = copy / "mosi.pkl"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(IbmaError, match=r"mosi\.pkl: not loaded .*: use the original file"):
        list(mosi.samples(copy))


# --- the twin ------------------------------------------------------------------------------------


def test_the_twin_is_small_marked_and_splits_no_video(
    written: Path, entries: list[Sample | Dropped]
) -> None:
    assert (written / "TWIN").exists()
    assert sum(path.stat().st_size for path in written.rglob("*") if path.is_file()) < 5_000_000
    splits: dict[str, set[str]] = {}
    for sample in samples_of(entries):
        splits.setdefault(sample.group, set()).add(sample.split)
    assert len(splits) == 23 and all(len(found) == 1 for found in splits.values())
    classes = Counter(round(s.label) for s in samples_of(entries) if s.split == "test")
    assert set(classes) == set(range(-3, 4)) and min(classes.values()) >= 7


def test_the_twin_is_the_same_bytes_again(written: Path, tmp_path: Path) -> None:
    twins.write("mosi", tmp_path)
    names = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert names == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert all((written / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_the_twin_has_the_traps(written: Path) -> None:
    rows = rows_of(written)
    videos = list(dict.fromkeys(row["video_id"] for row in rows))
    assert videos[0].startswith("-") and videos[1].startswith("_") and "--" in videos[1]
    assert {row["label_T"] + row["label_A"] + row["label_V"] for row in rows} == {""}
    assert {"-3.0", "-1.6", "-0.4", "0.0", "0.6", "2.5", "3.0"} <= {row["label"] for row in rows}
    assert {row["annotation"] for row in rows} == {"Negative", "Neutral", "Positive"}
    assert '",' in rows[twin.QUOTED]["text"]
    content = mosi._load(written / "mosi.pkl")
    lengths = [len(words) for items in content.values() for (words, _, _), _, _ in items]
    assert (min(lengths), max(lengths)) == (3, 60)
    acoustic = content["train"][0][0][2]
    assert acoustic.shape[1] == 74 and not acoustic[0].any() and np.isneginf(acoustic).any()
    assert content["dev"][0][2].endswith("[1]")  # the second clip, counted from 0
    assert len(list((written / "Raw").rglob("*.wav"))) == 2


def test_the_mute_clip_is_dropped_by_name_and_minus_infinity_reaches_nothing(
    written: Path, features: store.Features
) -> None:
    assert features.meta["counts"] == {"train": 123, "valid": 13, "test": 55}
    assert features.meta["dropped"] == 5 and features.meta["source"] == "twin"
    mute = rows_of(written)[twin.MUTE]
    assert f"{mute['video_id']}_{mute['clip_id']}" not in features.ids
    assert np.isfinite(features.arrays["audio"]).all()
    half = rows_of(written)[twin.HALF]
    row = features.ids.index(f"{half['video_id']}_{half['clip_id']}")
    assert store.label_tensor("sentiment", features.labels[[row]]).item() == 2.5


def test_extraction_stops_at_the_mute_clip(whole: Path, tmp_path: Path) -> None:
    entry = {"dataset": "mosi", "features": FEATURES}
    with pytest.raises(media.Unreadable, match=r"3\.mp4: has no audio stream"):
        extract("mosi", entry, mosi, whole, tmp_path / "out", media.compute)


def test_each_modality_knows_part_and_all_know_most(features: store.Features) -> None:
    """The docstring's ceilings over seven classes: .27 alone, .53 two of them, .91 all three."""
    train, test = features.splits == "train", features.splits == "test"
    classes = np.round(features.labels[:, 0])
    views = probes.views(features)
    told = {
        "text": probes.read(views["text"], classes < 0, train),
        "audio": probes.read(views["audio"], np.abs(classes) >= 2, train),
        "visual": probes.read(views["visual"], classes % 2 == 1, train),
    }

    def accuracy(*names: str) -> float:
        return probes.best_guess([told[name] for name in names], classes, train, test)

    pairs = combinations(told, 2)
    assert all(0.14 < accuracy(name) <= 0.36 for name in told)
    assert all(0.4 < accuracy(*pair) <= 0.65 for pair in pairs)
    assert accuracy(*told) > 0.8
    sides = features.labels[test, 0] >= 0
    assert (sides != told["text"][test]).mean() > 0.85
