"""IEMOCAP's loader on its twin, and what the twin tells."""

import re
import shutil
from collections import Counter
from itertools import combinations

import numpy as np
import probes
import pytest
from conftest import edit

from ibma.datasets import Dropped, Excerpt, Sample, iemocap
from ibma.errors import IbmaError
from ibma.features import media
from ibma.features.extract import extract
from ibma.twins import iemocap as twin
from ibma.twins.video_writer import write_video

FEATURES = {
    "audio": {"n_mels": 32, "hop": 1411},
    "visual": {"frames": 2, "size": 16},
    "text": {"max_length": 16},
}
FIRST = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"


def by_id(raw, **options):
    return {entry.id: entry for entry in iemocap.samples(raw, on_bad="drop", **options)}


def mend(raw):
    """Add the sound and the words that the twin lacks, so that on_bad="stop" walks through."""
    session = raw / iemocap.RELEASE / "Session1"
    sounds = session / "sentences/wav/Ses01F_impro01"
    shutil.copy(sounds / f"{twin.NO_WDSEG}.wav", sounds / f"{twin.NO_SOUND}.wav")
    with (session / "dialog/transcriptions/Ses01F_impro01.txt").open("a") as file:
        file.write(f"{twin.NO_WORDS} [000.7000-001.2000]: hum\n")


def test_a_sample_is_read_off_table_and_transcript(written):
    """F wears the markers in this dialogue: she sits left, he right."""
    release = written / iemocap.RELEASE / "Session1"
    sample = by_id(written)["Ses01F_impro01_M003"]
    video = release / "dialog/avi/DivX/Ses01F_impro01.avi"
    assert sample.parts["visual"] == Excerpt(video, 1.9, 2.4, iemocap.RIGHT)
    assert sample.parts["audio"].name == "Ses01F_impro01_M003.wav"
    told = (release / "dialog/transcriptions/Ses01F_impro01.txt").read_text().splitlines()
    (line,) = (line for line in told if line.startswith("Ses01F_impro01_M003 "))
    assert sample.parts["text"] == line.partition("]: ")[2] != ""
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
    assert len(tested) == 29, "a fifth of 146 labelled turns"
    assert sorted(tested)[:3] == [  # another draw is another data set
        "Ses01F_impro01_F014",
        "Ses01F_impro01_M005",
        "Ses01M_script01_1_F002",
    ]
    again = by_id(written, split="random").values()
    assert tested == {s.id for s in again if isinstance(s, Sample) and s.split == "test"}
    with pytest.raises(IbmaError, match="split 'speaker': expected session or random"):
        list(iemocap.samples(written, split="speaker"))


def test_rare_labels_stand_for_what_the_card_says(copy):
    """The twin has `sur` and `oth`; here two more turns of the table have `fea` and `dis`."""
    table = copy / iemocap.RELEASE / FIRST
    meant = {"sur": "hap", "fea": "sad", "dis": "ang", "oth": "fru"}
    names = [f"Ses01F_impro01_{turn}" for turn in ("F000", "M003", "M013", "F014")]
    for name, label in zip(names, meant, strict=True):
        table.write_text(re.sub(rf"({name}\t)\w+", rf"\1{label}", table.read_text()))
    found = by_id(copy, split="random")
    labels = [iemocap.EMOTIONS[found[name].label] for name in names]
    assert labels == list(meant.values())
    assert all(isinstance(by_id(copy)[name], Dropped) for name in names), "split: session"


def test_turns_come_by_their_time_wherever_they_stand_in_the_table(copy):
    table = copy / iemocap.RELEASE / FIRST
    before = list(by_id(copy))
    table.write_text("\n".join(reversed(table.read_text().splitlines())) + "\n")
    assert list(by_id(copy)) == before and before[0] == "Ses01F_impro01_F000"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("]\tSes", "] Ses", r"'\[0.1000 - 0.6000\] Ses.*: expected '\[<start> - <end>\]', name"),
        ("[0.1", "0.1", r"'0.1000 - 0.6000\]\\tSes.*: expected '\["),
        ("[0.1000", "\ufeff[0.1000", r"'\\ufeff\[0.1000 .*: expected '\["),
        ("\t[2.5, 2.5, 2.5]", "", r"'\[0.1000 .*: expected '\["),
        ("[0.1000", f"[{'9' * 400}.0", r"'\[9{59}': expected '\["),
        (
            "0.1000 - 0.6000",
            "0.6000 - 0.1000",
            "Ses01F_impro01_F000 from 0.6 to 0.1 s: expected an end after",
        ),
        ("0.1000 - 0.6000", "0.6000 - 0.6000", "Ses01F_impro01_F000 from 0.6 to 0.6 s: expected"),
        ("\tfru\t", "\tFRU\t", "label 'FRU' of Ses01F_impro01_.*: expected one of ang, hap"),
        ("\tang\t", "\tanger\t", "label 'anger' of Ses01F_impro01_.*: expected one of ang, hap"),
        ("Ses01F_impro01_F000", "impro01_F000", "turn 'impro01_F000': expected Ses<NN>"),
    ],
)
def test_a_turn_that_is_written_otherwise_stops_with_its_line(copy, old, new, said):
    table = copy / iemocap.RELEASE / FIRST
    edit(table, old, new)
    with pytest.raises(IbmaError, match=rf"Ses01F_impro01.txt: line \d+: {said}") as caught:
        list(iemocap.samples(copy, on_bad="drop"))
    assert "\n" not in str(caught.value)


def test_times_may_be_whole_numbers(copy):
    edit(copy / iemocap.RELEASE / FIRST, "[1.9000 - 2.4000]", "[2 - 3]")
    part = by_id(copy)["Ses01F_impro01_M003"].parts["visual"]
    assert (part.start, part.end) == (2.0, 3.0)


def test_a_table_without_turns_and_a_session_of_another_name_stop(copy):
    table = copy / iemocap.RELEASE / FIRST
    whole = table.read_text()
    table.write_text("")
    with pytest.raises(IbmaError, match="EmoEvaluation/Ses01F_impro01.txt: no turn here: unpack"):
        list(iemocap.samples(copy, on_bad="drop"))
    table.write_text(whole)
    (copy / iemocap.RELEASE / "Session2").rename(copy / iemocap.RELEASE / "session2")
    with pytest.raises(IbmaError, match=r"/Session2/dialog/EmoEvaluation: no Ses\*.txt here"):
        list(iemocap.samples(copy, on_bad="drop"))


def test_two_transcripts_of_a_turn_drop_it_or_stop(copy):
    path = copy / iemocap.RELEASE / "Session5/dialog/transcriptions/Ses05F_impro01.txt"
    last = path.read_text().splitlines()[-1]
    path.write_text(path.read_text() + f"{last} hum\n")
    name, count = last.split()[0], len(path.read_text().splitlines())
    said = f"Ses05F_impro01.txt: lines {count - 1} and {count}: two transcripts of {name}"
    assert by_id(copy)[name] == Dropped(name, f"{said}, expected one")
    mend(copy)
    with pytest.raises(IbmaError, match=f"{said}, expected one: unpack"):
        list(iemocap.samples(copy))


def test_a_turn_after_the_end_of_the_film_is_named(copy, tmp_path):
    mend(copy)
    edit(copy / iemocap.RELEASE / FIRST, "[0.1000 - 0.6000]", "[400.0 - 401.0]")
    entry = {"dataset": "iemocap", "options": {}, "features": FEATURES}
    said = (
        r"sample Ses01F_impro01_F000: 'visual': .*Ses01F_impro01.avi: no picture from 400.0 to "
        r"401.0 s, it lasts 9.0 s"
    )
    with pytest.raises(IbmaError, match=said):
        extract("iemocap", entry, iemocap, copy, tmp_path / "out", media.compute)


@pytest.mark.parametrize(("width", "height"), [(720, 480), (360, 240), (1440, 960)])
def test_a_half_is_a_half_of_a_film_of_any_size(width, height, tmp_path):
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = (200, 0, 0), (0, 0, 200)
    path = tmp_path / "a.avi"
    write_video(path, [picture] * 5, 10, None, 16_000, codecs=("mpeg4", "mp3"))
    for half, colour in ((iemocap.LEFT, 0), (iemocap.RIGHT, 2)):
        seen = media.compute("frames", Excerpt(path, box=half), {"frames": 1, "size": 8})[0]
        assert (seen[colour] > 150).all() and (seen[2 - colour] < 50).all()


def test_bytes_that_are_not_text_do_not_stop(copy):
    path = copy / iemocap.RELEASE / "Session2/dialog/transcriptions/Ses02F_impro01.txt"
    path.write_bytes(path.read_bytes().replace(b"0.6000]: ", b"0.6000]: \xff "))
    assert "\ufffd" in by_id(copy)["Ses02F_impro01_F000"].parts["text"]


def test_nothing_there_says_where_to_ask(tmp_path):
    with pytest.raises(IbmaError, match=r"Session1/dialog/EmoEvaluation: no Ses.*sign https"):
        list(iemocap.samples(tmp_path))


def test_a_release_that_is_not_whole_is_refused(written, monkeypatch):
    with pytest.raises(IbmaError, match="10 dialogues, 147 turns: expected 151, 10039"):
        iemocap.verify(written)
    for dialogues, turns in ((10, 148), (11, 147)):
        monkeypatch.setattr(iemocap, "DIALOGUES", dialogues)
        monkeypatch.setattr(iemocap, "TURNS", turns)
        with pytest.raises(IbmaError, match=f"147 turns: expected {dialogues}, {turns}"):
            iemocap.verify(written)
    monkeypatch.setattr(iemocap, "DIALOGUES", 10)
    iemocap.verify(written)


# --- the twin ------------------------------------------------------------------------------------


def test_the_twin_is_small_and_always_the_same(written, tmp_path):
    twin.write(tmp_path)
    packed = tmp_path / iemocap.ARCHIVES[0]
    assert packed.read_bytes() == (written / packed.name).read_bytes()
    assert packed.stat().st_size < 3e6
    assert [*(written / iemocap.RELEASE / "Session1/dialog/EmoEvaluation").glob("._*")]


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
