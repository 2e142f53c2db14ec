"""Generate a twin of CMU-MOSI: blobs and tones in mp4 files, a made-up language, a table.

Each modality shows a part of the score's nearest integer c (-3..3): the words whether the score is
negative, the tone whether |c| >= 2, the colour whether c is odd. Irrelevant variation: loudness and
phase (sound), background and place (pictures), filler words (text). One clip in ten has the words,
tone and colour of a random c.

Accuracy over seven equal classes: chance .14; each modality alone at best .27, any two .53, all
three .91. Score >= 0 or not: words .95, sound or pictures .57 (the majority).

Form (B) is complete but for the faults; `mosi.pkl` (C) lists all but one clip per split; of (A)
there are one transcript and two wavs, which no loader needs. Deliberate faults: video ids that
begin with and hold `-` and `_`; a clip without mp4; an mp4 without sound; empty label_T/A/V; words
with comma and quotes; scores of 2.5 (half to even), -0.4 and 0.0; in the pickle 3 to 60 words, a
row of zeros, a -inf, and segments counted from 0.
"""

from __future__ import annotations

import csv
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma.twins.video_writer import disc, tone, write_video, write_wav

VIDEOS = {"train": (14, 9), "valid": (2, 7), "test": (7, 8)}  # videos, clips of each
SCORES = {  # real scores whose nearest integer is the key
    -3: (-3.0, -2.6),
    -2: (-2.2, -1.6),
    -1: (-1.2, -0.6),
    0: (0.0, 0.4),
    1: (0.6, 1.4),
    2: (1.6, 2.2),
    3: (2.6, 3.0),
}
NEGATIVE, OTHER = ("GRUM", "DOLT"), ("LUMI", "SOLA")
FILLER = ["MEK", "TARO", "PIVE", "NUSH", "WOB", "KELI", "RAST", "OND", "FEM", "ZU", "HILT", "BAQ"]
TONES = (400.0, 2000.0)  # Hz
COLOURS = ((220, 60, 60), (60, 60, 220))
RATE, FPS, PICTURES = 16_000, 20, 16
WIDTH, HEIGHT = 64, 48
NOISE = 0.1  # share of clips that carry a random c
COLUMNS = [
    *("video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V"),
    *("annotation", "mode"),
]
# places of the traps among the training clips; the first clip of valid and test is not pickled
NOT_PICKLED, ABSENT, MUTE, QUOTED, LONG, HALF, NEARLY = 0, 1, 2, 3, 4, 5, 6
FIXED_SCORES = {HALF: 2.5, NEARLY: -0.4}


@dataclass(frozen=True)
class Clip:
    """One line of label.csv; `told` is the c that its media tell."""

    video: str
    number: int
    split: str
    score: float
    told: int
    text: str


def write(raw: Path) -> None:
    """Write the three forms below `raw`; the bytes depend on code and codecs alone."""
    rng = np.random.default_rng(20160620)
    clips = {split: _clips(split, rng) for split in VIDEOS}
    every = [clip for split in clips.values() for clip in split]
    _write_table(raw / "MOSI" / "label.csv", every)
    for place, clip in enumerate(every):
        if place != ABSENT:
            path = raw / "MOSI" / "Raw" / clip.video / f"{clip.number}.mp4"
            _write_mp4(path, clip.told, rng, mute=place == MUTE)
    _write_pickle(raw / "mosi.pkl", clips, rng)
    _write_cmu(raw / "Raw", [clip for clip in every if clip.video == every[0].video], rng)


def _clips(split: str, rng: np.random.Generator) -> list[Clip]:
    videos, each = VIDEOS[split]
    integers = rng.permutation(np.arange(videos * each) % 7 - 3)
    names = [_video_id(split, place, rng) for place in range(videos)]
    clips = []
    for place, integer in enumerate(integers.tolist()):
        score = float(rng.choice(SCORES[integer]))
        told = int(rng.integers(-3, 4)) if rng.random() < NOISE else integer
        clip = Clip(names[place // each], 1 + place % each, split, score, told, "")
        if split == "train" and place in FIXED_SCORES:
            score = FIXED_SCORES[place]
            clip = replace(clip, score=score, told=round(score))
        clips.append(replace(clip, text=_text(clip.told, place if split == "train" else -1, rng)))
    return clips


def _video_id(split: str, place: int, rng: np.random.Generator) -> str:
    """Draw an id as YouTube's; the first three of train hold what breaks naive splits."""
    letters = list("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz0123456789-_")
    name = "".join(rng.choice(letters[:-2], 11))
    traps = ("-" + name[1:], "_" + name[1:3] + "--" + name[5:], name[:4] + "_" + name[5:])
    return traps[place] if split == "train" and place < len(traps) else name


def _text(told: int, place: int, rng: np.random.Generator) -> str:
    count = 59 if place == LONG else int(rng.integers(2, 9))
    side = str(rng.choice(NEGATIVE if told < 0 else OTHER))
    words = [side, *rng.choice(FILLER, count)]
    if place == QUOTED:
        words[1] = f'"{words[1]}",'
    return " ".join(words)


def _sound(told: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """Make 0.8 s of the tone of c."""
    return tone(TONES[abs(told) >= 2], PICTURES * RATE // FPS, RATE, 0.1, rng)


def _write_mp4(path: Path, told: int, rng: np.random.Generator, *, mute: bool) -> None:
    sound = _sound(told, rng)
    pictures = disc(COLOURS[told % 2], PICTURES, (WIDTH, HEIGHT), 0.5, rng)
    write_video(path, pictures, FPS, None if mute else sound, RATE)


def _write_table(path: Path, clips: Sequence[Clip]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for clip in clips:
            side = ("Neutral", "Positive", "Negative")[int(np.sign(clip.score))]
            row = {"video_id": clip.video, "clip_id": clip.number, "text": clip.text}
            writer.writerow(row | {"label": clip.score, "annotation": side, "mode": clip.split})


def _write_pickle(path: Path, clips: dict[str, list[Clip]], rng: np.random.Generator) -> None:
    """Write words in lower case, Facet [T, 47], COVAREP [T, 74], label [1, 1], `video[n]`."""
    content: dict[str, list[Any]] = {}
    for key, split in (("train", "train"), ("dev", "valid"), ("test", "test")):
        content[key] = [_entry(clip, rng) for clip in clips[split][NOT_PICKLED + 1 :]]
    acoustic = content["train"][0][0][2]
    acoustic[0], acoustic[1, 3] = 0.0, -np.inf
    path.write_bytes(pickle.dumps(content, protocol=4))


def _entry(clip: Clip, rng: np.random.Generator) -> tuple[Any, ...]:
    words = [word.strip('",').lower() for word in clip.text.split()]
    visual, acoustic = (rng.normal(size=(len(words), n)).astype(np.float32) for n in (47, 74))
    label = np.array([[clip.score]], dtype=np.float32)
    return (words, visual, acoustic), label, f"{clip.video}[{clip.number - 1}]"


def _write_cmu(root: Path, clips: Sequence[Clip], rng: np.random.Generator) -> None:
    transcripts, sounds = root / "Transcript" / "Segmented", root / "Audio/WAV_16000/Segmented"
    for folder in (transcripts, sounds):
        folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{clip.number}_DELIM_{clip.text}\n" for clip in clips]
    (transcripts / f"{clips[0].video}.annotprocessed").write_text("".join(lines))
    for clip in clips[:2]:
        write_wav(sounds / f"{clip.video}_{clip.number}.wav", _sound(clip.told, rng), RATE)
