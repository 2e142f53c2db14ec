"""Twin of CREMA-D: tones and moving blobs in real wav and flv files.

Each emotion is a pair (tone, colour) out of 3 tones x 2 colours: sound alone and pictures alone
leave classes confused, only both name it. A clip's private nuisance is its loudness and phase
(sound) and its background (pictures). One clip in ten of train carries media of another emotion.

Chance 1/6; sound alone at best 1/2, pictures alone at best 1/3, both together 1 on test.

Traps, as in the real release: a silent wav, a two-frame flv, an flv ten times longer, a listed name
without media, a wav that is a git-lfs pointer, a vote tie, a byte-order mark, CRLF lists.
"""

from __future__ import annotations

import csv
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
SENTENCES = ["IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI"]
ACTORS = {"train": range(1001, 1009), "test": range(1009, 1013)}
PER_ACTOR = 12  # clips; 96 train, 48 test
TONES = (330.0, 990.0, 2970.0)  # Hz
COLOURS = ((220, 60, 60), (60, 60, 220))
RATE, WIDTH, HEIGHT, FPS = 16_000, 96, 72, 10
NOISE = 0.1  # share of train clips whose media belong to another emotion
SILENT, SHORT, LONG, STUB, ABSENT = 0, 1, 2, 3, 4  # places of the traps in the train list


def write(raw: Path) -> None:
    """Write lists, votes and media below `raw`; the bytes are a function of the code alone."""
    rng = np.random.default_rng(20140704)
    for folder in ("OGM", "AudioWAV", "VideoFlash", "processedResults"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    lists = {split: _clips(split) for split in ACTORS}
    for split, clips in lists.items():
        _write_list(raw / "OGM" / f"{split}.csv", clips)
        for place, clip in enumerate(clips):
            _write_clip(raw, clip, place if split == "train" else -1, rng, noisy=split == "train")
    _write_list(raw / "OGM" / "data.csv", lists["train"] + lists["test"])
    (raw / "OGM" / "stat.csv").write_bytes("\ufeff".encode() + "\r\n".join(EMOTIONS).encode())
    _write_votes(raw, lists["train"] + lists["test"])


def _clips(split: str) -> list[str]:
    return [
        f"{actor}_{SENTENCES[i]}_{EMOTIONS[(i + actor) % 6]}_{_level(i)}"
        for actor in ACTORS[split]
        for i in range(PER_ACTOR)
    ]


def _level(sentence: int) -> str:
    return ("LO", "MD", "HI")[sentence % 3] if SENTENCES[sentence] == "IEO" else "XX"


def _write_clip(raw: Path, clip: str, place: int, rng: np.random.Generator, noisy: bool) -> None:
    if place == ABSENT:
        return
    emotion = EMOTIONS.index(clip.split("_")[2])
    if noisy and rng.random() < NOISE:
        emotion = int(rng.integers(6))
    sound = _sound(emotion, rng)
    pictures = _pictures(emotion, rng, {SHORT: 2, LONG: 120}.get(place, 12))
    wav = raw / "AudioWAV" / f"{clip}.wav"
    if place == STUB:
        wav.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\n")
    else:
        _write_wav(wav, np.zeros_like(sound) if place == SILENT else sound)
    _write_flv(raw / "VideoFlash" / f"{clip}.flv", pictures, sound)


def _sound(emotion: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """16-bit mono, 0.6 to 0.9 s: a tone in noise, private loudness and phase."""
    seconds = np.arange(int(rng.uniform(0.6, 0.9) * RATE)) / RATE
    loudness, phase = rng.uniform(0.2, 0.8), rng.uniform(0, 2 * np.pi)
    tone = np.sin(2 * np.pi * TONES[emotion % 3] * seconds + phase)
    wave_form = loudness * tone + 0.1 * rng.normal(size=len(seconds))
    return (np.clip(wave_form, -1, 1) * 32767).astype(np.int16)


def _pictures(emotion: int, rng: np.random.Generator, count: int) -> list[NDArray[np.uint8]]:
    """A coloured blob that wanders over a background of private brightness."""
    background = int(rng.integers(20, 200))
    x, y = rng.integers(24, WIDTH - 24), rng.integers(24, HEIGHT - 24)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pictures = []
    for step in range(count):
        picture = np.full((HEIGHT, WIDTH, 3), background, dtype=np.uint8)
        picture[(rows - y) ** 2 + (columns - x - step % 12) ** 2 < 18**2] = COLOURS[emotion // 3]
        pictures.append(picture)
    return pictures


def _write_wav(path: Path, sound: NDArray[np.int16]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(sound.tobytes())


def _write_flv(path: Path, pictures: Sequence[NDArray[np.uint8]], sound: NDArray[np.int16]) -> None:
    import av

    with av.open(str(path), "w", format="flv") as container:
        video = container.add_stream("flv1", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("mp3", rate=22_050)
        audio.bit_rate = 32_000
        speech = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        speech.sample_rate, speech.time_base = RATE, Fraction(1, RATE)
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        container.mux(audio.encode(speech))
        container.mux(audio.encode())


def _write_list(path: Path, clips: Sequence[str]) -> None:
    lines = [f"{clip},{clip.split('_')[2]}\r\n" for clip in clips]
    path.write_bytes("".join(lines).encode())


def _write_votes(raw: Path, clips: Sequence[str]) -> None:
    """summaryTable.csv with the real header, its unnamed row index and one tie."""
    header = ["", "FileName", "VoiceVote", "VoiceLevel", "FaceVote", "FaceLevel"]
    with (raw / "processedResults" / "summaryTable.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow([*header, "MultiModalVote", "MultiModalLevel"])
        for row, clip in enumerate(clips, 1):
            vote, level = ("A:D", "50:50") if row == 1 else (clip.split("_")[2][0], "70")
            writer.writerow([row, clip, *(vote, level) * 3])
