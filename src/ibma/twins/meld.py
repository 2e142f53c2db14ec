"""Generate a twin of MELD: short clips and made-up words, packed as the publisher does.

Each modality shows a part of the emotion: the words its sentiment (surprise has either), the tone
one of three groups of emotions, the colour one half of a group. Irrelevant variation: loudness and
phase (sound), background and place (pictures), filler words (text). One utterance in ten has the
media and words of a random emotion.

Seven equal classes: chance .14; each modality alone at best .40 (text, sound) and .27 (pictures),
sound with pictures .79, all three .91. Sentiment: text .95, the majority (negative) .64.

Deliberate faults: tables twice, in git's UTF-8 and (inside the archive) with C1 controls; a quoted
comma; dialogue 5 absent and a gap in utterance ids; a one-digit hour; a 300 s span; a clip with
sound in six channels, one with 0.15 s of it; train dia125_utt3 cut before its moov atom, dev
dia110_utt7 absent, one more clip of train absent; in test a clip plain and corrected with different
content, a `._` stub, a clip without a row.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma.formats.archives import pack
from ibma.twins.video_writer import disc, tone, write_video

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
TONE = {"neutral": 0, "sadness": 0, "joy": 0, "fear": 1, "disgust": 1, "anger": 2, "surprise": 2}
COLOUR = {"joy": 1, "disgust": 1, "surprise": 1}  # the others: 0
SENTIMENT = {"neutral": "neutral", "joy": "positive"}  # surprise: either; the others: negative
DIALOGUES = {  # seven utterances each, every emotion once
    "train": (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 125),
    "dev": (0, 110),
    "test": (0, 1, 2, 3, 4, 5, 6),
}
FOLDERS = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
WORDS = {"negative": ("grum", "dolt"), "neutral": ("hum", "mel"), "positive": ("lumi", "sola")}
FILLER = ("mek", "taro", "pive", "nush\u2019s", "wob\u2026", "keli", "rast", "ond", "fem", "hilt")
CONTROLS = str.maketrans("\u2026\u2019", "\x85\x92")  # what the archive's tables hold instead
TONES = (400.0, 1200.0, 3600.0)  # Hz
COLOURS = ((220, 60, 60), (60, 60, 220))
RATE, FPS, PICTURES = 48_000, 24, 12
WIDTH, HEIGHT = 160, 90
NOISE = 0.1  # share of utterances that carry a random emotion
UNREADABLE, NOT_PACKED = "train_dia125_utt3", "dev_dia110_utt7"  # the release's own two
ABSENT, SIX_CHANNELS, SHORT = "train_dia0_utt1", "train_dia0_utt2", "train_dia0_utt3"
CORRECTED, STUB, EXTRA = "dia0_utt1.mp4", "._dia0_utt0.mp4", "dia99_utt0.mp4"  # of test
COLUMNS = [
    *("Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"),
    *("Season", "Episode", "StartTime", "EndTime"),
]


@dataclass(frozen=True)
class Line:
    """An utterance; `told` is the emotion that its media tell."""

    dialogue: int
    utterance: int
    emotion: str
    sentiment: str
    told: str
    text: str


def write(raw: Path) -> None:
    """Write the tables and MELD.Raw.tar.gz; the bytes depend on code and codecs alone."""
    rng = np.random.default_rng(20190728)
    with tempfile.TemporaryDirectory() as folder:
        build = Path(folder)
        for split in DIALOGUES:
            lines = list(_lines(split, rng))
            _write_split(build, split, lines, rng)
            _write_table(raw / f"{split}_sent_emo.csv", lines)
        packed = sorted(path for path in build.iterdir() if path.is_file())
        pack(raw / "MELD.Raw.tar.gz", {f"MELD.Raw/{path.name}": path for path in packed})


def _write_split(build: Path, split: str, lines: Sequence[Line], rng: np.random.Generator) -> None:
    """Write one inner archive and its table, which holds C1 controls."""
    clips = build / FOLDERS[split]
    for line in lines:
        _write_clip(clips, split, line, rng)
    if split == "test":
        _write_test_traps(clips, lines, rng)
    controls = [replace(line, text=line.text.translate(CONTROLS)) for line in lines]
    _write_table(build / f"{split}_sent_emo.csv", controls)
    pack(build / f"{split}.tar.gz", {clips.name: clips})


def _lines(split: str, rng: np.random.Generator) -> Iterator[Line]:
    for dialogue in DIALOGUES[split]:
        for place, emotion in enumerate(rng.permutation(EMOTIONS).tolist()):
            utterance = place + (dialogue == 1 and place > 3)  # a gap
            if (split, dialogue, utterance) in (("train", 125, 3), ("dev", 110, 7)):
                emotion = "neutral"
            told = str(rng.choice(EMOTIONS)) if rng.random() < NOISE else emotion
            sides = {e: _sentiment(e, rng) for e in (emotion, told)}
            text = _text(sides[told], rng)
            if (split, dialogue, utterance) == ("train", 0, 0):
                text = f"\u2026, {text}, "
            yield Line(dialogue, utterance, emotion, sides[emotion], told, text)
    if split == "dev":
        yield Line(110, 7, "neutral", "neutral", "neutral", _text("neutral", rng))


def _sentiment(emotion: str, rng: np.random.Generator) -> str:
    if emotion == "surprise":
        return str(rng.choice(["positive", "negative"]))
    return SENTIMENT.get(emotion, "negative")


def _text(sentiment: str, rng: np.random.Generator) -> str:
    return " ".join([str(rng.choice(WORDS[sentiment])), *rng.choice(FILLER, rng.integers(2, 8))])


def _write_clip(folder: Path, split: str, line: Line, rng: np.random.Generator) -> None:
    name = f"{split}_dia{line.dialogue}_utt{line.utterance}"
    if name in (ABSENT, NOT_PACKED):
        return
    path = folder / f"dia{line.dialogue}_utt{line.utterance}.mp4"
    channels = 6 if name == SIX_CHANNELS else 2
    seconds = 0.15 if name == SHORT else PICTURES / FPS
    sound = _sound(line.told, channels, seconds, rng)
    write_video(path, _pictures(line.told, rng), FPS, sound, RATE, bit_rate=32_000 * channels)
    if name == UNREADABLE:
        content = path.read_bytes()
        path.write_bytes(content[: content.index(b"moov") - 4])


def _write_test_traps(folder: Path, lines: Sequence[Line], rng: np.random.Generator) -> None:
    """Write a corrected clip that tells what its row says, and a plain one that does not."""
    plain = folder / CORRECTED
    plain.rename(folder / f"final_videos_test{CORRECTED}")
    other = EMOTIONS[EMOTIONS.index(lines[1].told) - 1]
    write_video(plain, _pictures(other, rng), FPS, _sound(other, 2, 0.5, rng), RATE)
    (folder / STUB).write_bytes(bytes(212))
    shutil.copy(plain, folder / EXTRA)


def _sound(
    emotion: str, channels: int, seconds: float, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Make an emotion's tone, the same in every channel."""
    one = tone(TONES[TONE[emotion]], round(seconds * RATE), RATE, 0.05, rng)
    return np.tile(one, (channels, 1))


def _pictures(emotion: str, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Draw an emotion's coloured disc."""
    return disc(COLOURS[COLOUR.get(emotion, 0)], PICTURES, (WIDTH, HEIGHT), 2, rng)


def _write_table(path: Path, lines: Sequence[Line]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number, line in enumerate(lines, 1):
            hour = "0" if number == 2 else "00"
            end = "00:06:12,000" if number == 3 else "00:01:13,500"
            writer.writerow(
                [
                    *(number, line.text, "Nobody", line.emotion, line.sentiment),
                    *(line.dialogue, line.utterance, 1, 1, f"{hour}:01:12,632", end),
                ]
            )


def region(picture: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    """Return where the disc is: what is not the grey of the background."""
    grey = np.median(picture, axis=(1, 2), keepdims=True)
    away: NDArray[np.bool_] = np.abs(picture.astype(float) - grey).max(0) > 40
    return away
