"""Generate a twin of CREMA-D: tones and moving blobs in real wav and flv files.

Each emotion is a pair (tone, colour) out of 3 tones x 2 colours. Sound alone or pictures alone
cannot separate all classes; both together can. The tone and colour of a clip scatter around those
of its emotion and overlap with other emotions, so that methods differ in where they separate them.
Irrelevant variation: loudness and phase (sound), background (pictures). One clip in ten has the
media of a random emotion.

Chance 1/6; sound alone at best .44, pictures alone .30, both together .82.

Deliberate faults, as in the real release: a silent wav, a two-picture flv, an flv ten times longer
(these three in the real picture size and rate), a listed name without media, a wav that is a
git-lfs pointer, a vote tie, a byte-order mark, CRLF lists. Unlike the real lists, no actor is in
both splits; ordinary clips are shorter and smaller than real ones to stay below 6 MB.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma.twins.video_writer import tone, write_video, write_wav

EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
SENTENCES = ["IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI"]
ACTORS = {"train": range(1001, 1009), "test": range(1009, 1017)}
PER_ACTOR = 12  # clips; 96 train, 96 test
TONES = (330.0, 990.0, 2970.0)  # Hz
COLOURS = np.array([[220.0, 60.0, 60.0], [60.0, 60.0, 220.0]])
RATE = 16_000
SMALL, REAL = (96, 72, 10), (480, 360, 30)  # width, height, pictures a second
SCATTER = 0.3  # standard deviation of a clip's tone and colour, 1 is the way to the next
NOISE = 0.1  # share of clips whose media belong to a random emotion
_VOTED = ("Vote", "Level")
_ASKED = ("Emo", "Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad")
SILENT, SHORT, LONG, STUB, ABSENT = 0, 1, 2, 3, 4  # places of the traps in the train list


def write(raw: Path) -> None:
    """Write lists, votes and media below `raw`; the bytes depend on code and codecs alone."""
    rng = np.random.default_rng(20140704)
    for folder in ("OGM", "AudioWAV", "VideoFlash", "processedResults"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    lists = {split: _clips(split) for split in ACTORS}
    for split, clips in lists.items():
        _write_list(raw / "OGM" / f"{split}.csv", clips)
        for place, clip in enumerate(clips):
            _write_clip(raw, clip, place if split == "train" else -1, rng)
    _write_list(raw / "OGM" / "data.csv", lists["train"] + lists["test"])
    (raw / "OGM" / "stat.csv").write_bytes("\ufeff".encode() + "\r\n".join(EMOTIONS).encode())
    _write_tables(raw, lists["train"] + lists["test"])


def _clips(split: str) -> list[str]:
    return [
        f"{actor}_{SENTENCES[i]}_{EMOTIONS[(i + actor) % 6]}_{_level(i)}"
        for actor in ACTORS[split]
        for i in range(PER_ACTOR)
    ]


def _level(sentence: int) -> str:
    return ("LO", "MD", "HI")[sentence % 3] if SENTENCES[sentence] == "IEO" else "XX"


def _write_clip(raw: Path, clip: str, place: int, rng: np.random.Generator) -> None:
    if place == ABSENT:
        return
    emotion = EMOTIONS.index(clip.split("_")[2])
    if rng.random() < NOISE:
        emotion = int(rng.integers(6))
    sound = _sound(emotion, rng)
    seconds = {SHORT: 2 / REAL[2], LONG: 12.0}.get(place, 1.2)
    shape = REAL if place in (SILENT, SHORT, LONG) else SMALL
    pictures = _pictures(emotion, rng, seconds, shape)
    wav = raw / "AudioWAV" / f"{clip}.wav"
    if place == STUB:
        wav.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\n")
    else:
        write_wav(wav, np.zeros_like(sound) if place == SILENT else sound, RATE)
    speech = np.tile(sound, 10) if place == LONG else sound
    write_video(
        raw / "VideoFlash" / f"{clip}.flv",
        pictures,
        shape[2],
        speech,
        RATE,
        codecs=("flv1", "mp3"),
        audio_rate=22_050,
        bit_rate=32_000,
    )


def _sound(emotion: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """Make 0.6 to 0.9 s of a tone near an emotion's."""
    pitch = TONES[emotion % 3] * 3 ** rng.normal(0, SCATTER)
    return tone(pitch, int(rng.uniform(0.6, 0.9) * RATE), RATE, 0.1, rng)


def _pictures(
    emotion: int, rng: np.random.Generator, seconds: float, shape: tuple[int, int, int]
) -> list[NDArray[np.uint8]]:
    """Draw a coloured blob that wanders over a background of private brightness."""
    width, height, fps = shape
    background = int(rng.integers(20, 200))
    share = emotion // 3 + rng.normal(0, SCATTER)  # of the second colour
    colour = np.clip((1 - share) * COLOURS[0] + share * COLOURS[1], 0, 255).astype(np.uint8)
    x, y = rng.uniform(0.25, 0.75) * width, rng.uniform(0.33, 0.67) * height
    rows, columns = np.ogrid[:height, :width]
    pictures = []
    for step in range(round(seconds * fps)):
        wander = 0.12 * width * (step / fps % 1.2)
        picture = np.full((height, width, 3), background, dtype=np.uint8)
        inside = (rows - y) ** 2 + (columns - x - wander) ** 2 < (height / 4) ** 2
        picture[inside] = colour
        pictures.append(picture)
    return pictures


def _write_list(path: Path, clips: Sequence[str]) -> None:
    lines = [f"{clip},{clip.split('_')[2]}\r\n" for clip in clips]
    path.write_bytes("".join(lines).encode())


def _write_tables(raw: Path, clips: Sequence[str]) -> None:
    """Write the release's four tables: real headers, an unnamed row index and one tied vote."""
    votes = [("A:D", "50:50"), *((clip.split("_")[2][0], "70") for clip in clips[1:])]
    levels = [f"{source}{what}" for source in ("Voice", "Face", "MultiModal") for what in _VOTED]
    means = [f"mean{name}Resp" for name in _ASKED]
    normed = [f"{name}Norm" for name in (*means, "medianEmoResp")]
    counts = [*"ADFHNS", "fileName", "numResponses", "agreement", "emoVote"]
    results = raw / "processedResults"
    _write_table(
        results / "summaryTable.csv",
        ["", "FileName", *levels],
        [
            [str(row), clip, *vote * 3]
            for row, (clip, vote) in enumerate(zip(clips, votes, strict=True), 1)
        ],
    )
    _write_table(
        results / "tabulatedVotes.csv",
        ["", *counts, *means, "medianEmoResp", *normed],
        [
            [
                str(100_000 + row),
                *_tally(vote),
                clip,
                10,
                1 / len(vote.split(":")),
                vote,
                *[50] * 16,
            ]
            for row, (clip, (vote, _)) in enumerate(zip(clips, votes, strict=True), 1)
        ],
    )
    _write_table(
        raw / "SentenceFilenames.csv", ["Stimulus_Number", "Filename"], list(enumerate(clips, 1))
    )
    _write_table(
        raw / "VideoDemographics.csv",
        ["ActorID", "Age", "Sex", "Race", "Ethnicity"],
        [
            [actor, 20 + actor % 50, ("Male", "Female")[actor % 2], "Unknown", "Not Hispanic"]
            for actor in sorted({int(clip[:4]) for clip in clips})
        ],
    )


def _tally(vote: str) -> list[int]:
    """Return ten votes over A D F H N S, shared by the winners."""
    winners = vote.split(":")
    return [10 // len(winners) if letter in winners else 0 for letter in "ADFHNS"]


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
