"""IEMOCAP's loader on its twin, and what the twin tells."""

from collections import Counter
from itertools import combinations

import numpy as np
import probes
import pytest
from conftest import edit

from ibma.datasets import Dropped, Excerpt, Sample, iemocap
from ibma.errors import IbmaError
from ibma.twins import iemocap as twin

FEATURES = {
    "audio": {"n_mels": 32, "hop": 1411},
    "visual": {"frames": 2, "size": 16},
    "text": {"max_length": 16},
}
FIRST = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"


def by_id(raw, **options):
    return {entry.id: entry for entry in iemocap.samples(raw, on_bad="drop", **options)}


def test_a_sample_is_read_off_table_and_transcript(written):
    """F wears the markers in this dialogue: she sits left, he right."""
    release = written / iemocap.RELEASE / "Session1"
    sample = by_id(written)["Ses01F_impro01_M003"]
    video = release / "dialog/avi/DivX/Ses01F_impro01.avi"
    assert sample.parts["visual"] == Excerpt(video, 1.9, 2.4, iemocap.RIGHT)
    assert sample.parts["audio"].name == "Ses01F_impro01_M003.wav"
    assert (sample.group, sample.dialogue) == ("Session1", "Ses01F_impro01")
    assert by_id(written)["Ses01F_impro01_F004"].parts["visual"].box == iemocap.LEFT
    assert by_id(written)["Ses01M_script01_1_F004"].parts["visual"].box == iemocap.RIGHT


def test_session_five_tests_and_no_session_is_split(written):
    kept = [entry for entry in by_id(written).values() if isinstance(entry, Sample)]
    assert Counter(sample.split for sample in kept) == {"train": 94, "test": 48}
    assert {sample.group for sample in kept if sample.split == "test"} == {"Session5"}


def test_excitement_is_happiness_and_other_labels_are_told(written):
    found = by_id(written)
    table = "".join(path.read_text() for path in written.rglob("EmoEvaluation/Ses*.txt"))
    excited = [line.split("\t")[1] for line in table.splitlines() if "\texc\t" in line]
    assert excited and all(found[name].label == 1 for name in excited if name in found)
    dropped = {e.id: e.reason for e in found.values() if isinstance(e, Dropped)}
    assert dropped["Ses01F_impro01_F012"] == "label xxx is none of the task's"
    assert [name for name, why in dropped.items() if "label" in why] == [
        "Ses01F_impro01_F012",
        "Ses01F_impro01_M013",
        "Ses01F_impro01_F014",
    ]


def test_a_turn_without_words_or_sound_is_dropped_by_name_or_stops(copy):
    found = by_id(copy)
    words = "Ses01F_impro01.txt: no transcript of Ses01F_impro01_M001"
    assert found["Ses01F_impro01_M001"] == Dropped("Ses01F_impro01_M001", words)
    assert found["Ses01F_impro01_F002"].reason.startswith("IEMOCAP_full_release/Session1/sent")
    with pytest.raises(IbmaError, match="no transcript of Ses01F_impro01_M001: unpack"):
        list(iemocap.samples(copy))
    release = copy / iemocap.RELEASE
    (release / "Session2/dialog/avi/DivX/Ses02F_impro01.avi").unlink()
    assert "missing, but Ses02F_impro01_F000" in by_id(copy)["Ses02F_impro01_F000"].reason


def test_the_random_split_takes_rare_labels_and_always_the_same_fifth(written):
    found = [e for e in by_id(written, split="random").values() if isinstance(e, Sample)]
    labels = {sample.id: iemocap.EMOTIONS[sample.label] for sample in found}
    assert labels["Ses01F_impro01_M013"] == "hap" and labels["Ses01F_impro01_F014"] == "fru"
    tested = {sample.id for sample in found if sample.split == "test"}
    assert 0.15 < len(tested) / len(found) < 0.25
    again = by_id(written, split="random").values()
    assert tested == {s.id for s in again if isinstance(s, Sample) and s.split == "test"}
    with pytest.raises(IbmaError, match="split 'speaker': expected session or random"):
        list(iemocap.samples(written, split="speaker"))


def test_bytes_that_are_not_text_do_not_stop(copy):
    path = copy / iemocap.RELEASE / "Session2/dialog/transcriptions/Ses02F_impro01.txt"
    path.write_bytes(path.read_bytes().replace(b"0.6000]: ", b"0.6000]: \xff "))
    assert "\ufffd" in by_id(copy)["Ses02F_impro01_F000"].parts["text"]


def test_a_strange_name_stops_with_its_table(copy):
    edit(copy / iemocap.RELEASE / FIRST, "Ses01F_impro01_F000", "impro01_F000")
    with pytest.raises(IbmaError, match="Ses01F_impro01.txt: turn 'impro01_F000': expected"):
        list(iemocap.samples(copy, on_bad="drop"))


def test_nothing_there_says_where_to_ask(tmp_path):
    with pytest.raises(IbmaError, match="no Session1/dialog/EmoEvaluation here: sign https"):
        list(iemocap.samples(tmp_path))


def test_a_release_that_is_not_whole_is_refused(written):
    with pytest.raises(IbmaError, match="5 sessions, 10 dialogues, 147 turns: expected 5, 151"):
        iemocap.verify(written)


# --- the twin ------------------------------------------------------------------------------------


def test_the_twin_is_small_and_always_the_same(written, tmp_path):
    twin.write(tmp_path)
    packed = tmp_path / iemocap.ARCHIVES[0]
    assert packed.read_bytes() == (written / packed.name).read_bytes()
    assert packed.stat().st_size < 3e6
    assert (written / iemocap.RELEASE / "Session1/dialog/EmoEvaluation").glob("._*")


def test_folds_inside_training_are_its_sessions(features):
    judged = [set(hold_out.groups()) for _, hold_out in features.training(0).hold_outs(5)]
    assert sorted(map(sorted, judged)) == [[f"Session{n}"] for n in range(1, 5)]


def test_each_modality_knows_part_and_all_know_most(features):
    """The docstring's ceilings: .38 alone, .74 words with tone, .56 other pairs, .92 all three."""
    train, test = features.splits == "train", features.splits == "test"
    classes = features.labels[:, 0].astype(int)
    names = np.array(iemocap.EMOTIONS)[classes]
    views = probes.views(features)
    told = {
        "text": probes.read(views["text"], np.isin(names, twin.HARSH), train),
        "audio": probes.read(views["audio"], np.isin(names, twin.LOUD), train),
        "visual": probes.read(views["visual"], np.isin(names, twin.DARK), train),
    }

    def accuracy(*chosen):
        return probes.best_guess([told[name] for name in chosen], classes, train, test)

    assert all(0.25 < accuracy(name) < 0.5 for name in told)
    pairs = {pair: accuracy(*pair) for pair in combinations(told, 2)}
    assert 0.6 < pairs.pop(("text", "audio")) < 0.88
    assert all(0.42 < score < 0.7 for score in pairs.values())
    assert accuracy(*told) > 0.8
