"""Generate a twin of IEMOCAP: five sessions of two short dialogues, in one archive.

Each emotion is three bits: words (ang, fru / others), tone (ang, hap / others), colour of the
speaker's half of the picture (sad / others). Irrelevant variation: loudness and phase (sound), the
other half's colour (pictures), filler words (text). One turn in ten shows a random emotion.

Five equal classes: chance .20; each modality alone at best .38, words with tone .74, the other
pairs .56, all three .92.

Deliberate faults: all line kinds of EmoEvaluation; labels exc, xxx, sur, oth; a `._` stub;
transcript lines `M: ...` and of a turn XX; a turn without transcript, one without sound; one
without wdseg; a dialogue's own stereo wav, which no loader needs.

Size: 2.5 MB, and 3.6 MB more once the archive is unpacked.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma.formats.archives import pack
from ibma.twins.video_writer import tone, write_video, write_wav

EMOTIONS = ("ang", "hap", "sad", "neu", "fru")
LABELS = {"hap": ("hap", "exc")}  # what the table calls it, in turn
HARSH, LOUD, DARK = ("ang", "fru"), ("ang", "hap"), ("sad",)  # words, tone, colour
TURNS = {1: 12, 2: 12, 3: 12, 4: 12, 5: 24}  # session -> five-class turns of a dialogue
DIALOGUES = ("F_impro01", "M_script01_1")  # of every session
RARE = ("xxx", "sur", "oth")  # appended to the first dialogue
NO_WORDS, NO_SOUND, NO_WDSEG = "Ses01F_impro01_M001", "Ses01F_impro01_F002", "Ses01F_impro01_F000"
WORDS = {True: ("grum", "dolt"), False: ("lumi", "sola")}
FILLER = ("mek", "taro", "pive", "nush", "wob", "keli", "rast", "ond", "fem", "zu", "hilt", "baq")
TONES = {True: 2000.0, False: 400.0}  # Hz
COLOURS = {True: (60, 60, 220), False: (220, 60, 60)}
RATE, FPS = 16_000, 10
WIDTH, HEIGHT = 720, 480
STEP, PAUSE = 0.6, 0.1  # seconds from turn to turn, and of silence between
NOISE = 0.1  # share of turns that tell a random emotion


@dataclass(frozen=True)
class Turn:
    """One turn; `told` is the emotion that its media tell."""

    name: str
    label: str
    told: str
    start: float
    end: float
    text: str

    @property
    def left(self) -> bool:
        """Return whether the speaker wears the markers, and sits left."""
        return self.name.rpartition("_")[2][0] == self.name[5]


def write(raw: Path) -> None:
    """Write IEMOCAP_full_release.tar.gz; the bytes depend on code and codecs alone."""
    rng = np.random.default_rng(20081105)
    with tempfile.TemporaryDirectory() as build:
        release = Path(build) / "IEMOCAP_full_release"
        for session, count in TURNS.items():
            for ending in DIALOGUES:
                dialogue = f"Ses{session:02d}{ending}"
                _write_dialogue(release / f"Session{session}", dialogue, count, rng)
        stub = release / "Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt"
        stub.write_bytes(bytes(82))
        pack(raw / f"{release.name}.tar.gz", {release.name: release})


def _write_dialogue(root: Path, dialogue: str, count: int, rng: np.random.Generator) -> None:
    turns = _turns(dialogue, count, rng)
    folders = {
        "table": root / "dialog" / "EmoEvaluation",
        "words": root / "dialog" / "transcriptions",
        "video": root / "dialog" / "avi" / "DivX",
        "whole": root / "dialog" / "wav",
        "sound": root / "sentences" / "wav" / dialogue,
        "aligned": root / "sentences" / "ForcedAlignment" / dialogue,
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    (folders["table"] / f"{dialogue}.txt").write_text(_table(turns))
    (folders["words"] / f"{dialogue}.txt").write_text(_transcript(turns))
    write_video(
        folders["video"] / f"{dialogue}.avi",
        _pictures(turns, rng),
        FPS,
        None,
        RATE,
        codecs=("mpeg4", "mp3"),
    )
    for turn in turns:
        count = round((turn.end - turn.start) * RATE)
        sound = tone(TONES[turn.told in LOUD], count, RATE, 0.1, rng)
        if turn.name != NO_SOUND:
            write_wav(folders["sound"] / f"{turn.name}.wav", sound, RATE)
        if turn.name == NO_WORDS:
            write_wav(folders["whole"] / f"{dialogue}.wav", np.stack([sound, sound]), RATE)
        if turn.name != NO_WDSEG:
            (folders["aligned"] / f"{turn.name}.wdseg").write_text("SFrm EFrm SegAScr Word\n")


def _turns(dialogue: str, count: int, rng: np.random.Generator) -> list[Turn]:
    emotions = [EMOTIONS[i % 5] for i in rng.permutation(count)]
    labels = [str(rng.choice(LABELS.get(emotion, (emotion,)))) for emotion in emotions]
    if dialogue == "Ses01F_impro01":
        emotions, labels = [*emotions, *["neu"] * len(RARE)], [*labels, *RARE]
    liars = set(rng.permutation(count)[: round(NOISE * count)].tolist())
    turns = []
    for place, (emotion, label) in enumerate(zip(emotions, labels, strict=True)):
        told = str(rng.choice(EMOTIONS)) if place in liars else emotion
        name = f"{dialogue}_{'FM'[place % 2]}{place:03d}"
        start = place * STEP + PAUSE
        words = rng.choice(FILLER, rng.integers(2, 8))
        text = " ".join([str(rng.choice(WORDS[told in HARSH])), *words])
        turns.append(Turn(name, label, told, start, (place + 1) * STEP, text))
    return turns


def _table(turns: list[Turn]) -> str:
    blocks = [
        f"[{turn.start:.4f} - {turn.end:.4f}]\t{turn.name}\t{turn.label}\t[2.5, 2.5, 2.5]\n"
        "C-E1:\tNeutral;\t()\nA-E3:\tval 2; act 4; dom  4;\t()\n"
        for turn in turns
    ]
    return "\n".join(["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n", *blocks])


def _transcript(turns: list[Turn]) -> str:
    lines = [
        f"{turn.name} [{turn.start:08.4f}-{turn.end:08.4f}]: {turn.text}\n"
        for turn in turns
        if turn.name != NO_WORDS
    ]
    odd = f"{turns[0].name[:-4]}FXX0 [000.0000-000.1000]: hum\n"
    return "".join([odd, "M: hum\n", *lines])


def _pictures(turns: list[Turn], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Draw two halves on grey; the speaker's has the emotion's colour, the other one any."""
    pictures = []
    for turn in turns:
        colours = [COLOURS[turn.told in DARK], COLOURS[bool(rng.integers(2))]]
        grey = rng.integers(90, 160, 2)
        picture = np.empty((HEIGHT, WIDTH, 3), dtype=np.uint8)
        for half, colour in enumerate(colours if turn.left else colours[::-1]):
            columns = slice(half * WIDTH // 2, (half + 1) * WIDTH // 2)
            picture[:, columns] = grey[half]
            picture[160:320, columns][:, 100:260] = colour
        pictures += [picture] * round(STEP * FPS)
    return pictures
