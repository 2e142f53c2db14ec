"""Read IEMOCAP: turns of acted dialogues with an emotion; sound, pictures, transcript.

Layout: `IEMOCAP_full_release/Session<1..5>/` as the archive unpacks. A turn is named
`Ses01F_impro01_M003`: session, the actor who wears markers, dialogue, speaker, number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ibma.datasets import Card, Counts, Dropped, Excerpt, Part, Remote, Sample
from ibma.errors import IbmaError
from ibma.formats.raw import read_lines

RELEASE = "IEMOCAP_full_release"
ARCHIVES = (f"{RELEASE}.tar.gz",)
EMOTIONS = ("ang", "hap", "sad", "neu", "fru")
MERGED = {"exc": "hap"}
# CHOICE for split="random" alone, which needs every labelled turn: nobody says what they became
RARE = {"sur": "hap", "fea": "sad", "dis": "ang", "oth": "fru"}
SESSIONS, DIALOGUES, TURNS = 5, 151, 10_039
TEST_SESSION, TEST_SHARE = "Session5", 0.2
# 720x480 pictures: marker actor left, partner right (IoannisKansizoglou/Iemocap-preprocess)
LEFT, RIGHT = (0, 0, 360, 480), (360, 0, 720, 480)

_TURN = re.compile(r"^\[(\d+\.\d+) - (\d+\.\d+)\]\t(\S+)\t(\w+)\t")
_SAID = re.compile(r"^(Ses\w+) \[[\d.\-]+\]:\s*(.*)$")
_NAME = re.compile(r"^Ses\d\d([FM])_\w+_([FM])\w*$")

CARD = Card(
    title="IEMOCAP",
    kind="classify",
    classes=EMOTIONS,
    modalities={"audio": "audio", "visual": "frames", "text": "text"},
    licence="USC's data release form: academic use, no redistribution",
    access="request",
    raw_gb=24.0,
    paper=Counts(5990, 1541),
    official=Counts(5758, 1622),
    cite="C. Busso et al., IEMOCAP: Interactive emotional dyadic motion capture database, Language "
    "Resources and Evaluation 42, 2008.",
    how_to_get=(
        "sign https://sail.usc.edu/iemocap/Data_Release_Form_IEMOCAP.pdf, ask for access at "
        f"https://sail.usc.edu/iemocap/, put {ARCHIVES[0]} into data/raw/iemocap: the download "
        "stage unpacks it and counts what is inside"
    ),
    notes=(
        "Table 1's 5,990 and 1,541 cannot be reproduced: no set of labels with any session left "
        "out, nor improvised against scripted, gives them. They add up to one less than the 7,532 "
        "labelled turns.",
        "Classes here: anger, happiness with excitement, sadness, neutral, frustration. Sessions 1 "
        "to 4 are for training (5,758) and session 5, with two new speakers, for the test (1,622).",
        "Option split: random divides all 7,532 labelled turns 80:20 (seed 0), with surprise as "
        "happiness, fear as sadness, disgust as anger, other as frustration. It only comes near "
        "Table 1's sizes: it tests on speakers that are in training.",
        "A pair of speakers meets in one session only, so folds keep sessions whole: inside "
        "training there are four groups, and at most four folds.",
    ),
)
FILES: tuple[Remote, ...] = ()


@dataclass(frozen=True)
class Turn:
    """A line of EmoEvaluation: name, label, and seconds of the dialogue."""

    session: Path
    dialogue: str
    start: float
    end: float
    name: str
    label: str


def samples(
    raw: Path, *, on_bad: str = "stop", split: str = "session"
) -> Iterator[Sample | Dropped]:
    """Walk sessions, dialogues and turns in time; id = turn, group = session.

    Turns with another label are Dropped whatever `on_bad` says: they are not bad.

    Args:
        raw: The raw folder.
        on_bad: Whether a turn without sound, video or transcript stops, or is dropped.
        split: `session` (five labels, session 5 tests) or `random` (see the card).

    Raises:
        IbmaError: There is no release, a turn's name is not IEMOCAP's, another `split`, or
            (on_bad="stop") a turn cannot be used.
    """
    if split not in ("session", "random"):
        raise IbmaError(f"params.yaml: split '{split}': expected session or random")
    kept = {name: name for name in EMOTIONS} | MERGED | (RARE if split == "random" else {})
    tested = _drawn(raw, kept) if split == "random" else None
    said: dict[str, str] = {}
    dialogue = ""
    for turn in _turns(raw):
        if turn.dialogue != dialogue:
            dialogue = turn.dialogue
            said = _transcript(turn.session / "dialog" / "transcriptions" / f"{dialogue}.txt")
        if turn.label not in kept:
            yield Dropped(turn.name, f"label {turn.label} is none of the task's")
            continue
        missing = _missing(turn, said)
        if missing and on_bad == "stop":
            raise IbmaError(f"{raw}: {missing}: unpack the archive again or set on_bad: drop")
        if missing:
            yield Dropped(turn.name, missing)
            continue
        held_out = turn.session.name == TEST_SESSION if tested is None else turn.name in tested
        yield Sample(
            turn.name,
            "test" if held_out else "train",
            turn.session.name,
            EMOTIONS.index(kept[turn.label]),
            _parts(turn, said[turn.name]),
            dialogue,
        )


def verify(raw: Path) -> None:
    """Count sessions, dialogues and turns: the publisher lists no checksum.

    Raises:
        IbmaError: They are not 5, 151 and 10,039.
    """
    turns = list(_turns(raw))
    counts = (
        len({turn.session for turn in turns}),
        len({turn.dialogue for turn in turns}),
        len(turns),
    )
    if counts != (SESSIONS, DIALOGUES, TURNS):
        raise IbmaError(
            f"{raw / RELEASE}: {counts[0]} sessions, {counts[1]} dialogues, {counts[2]} turns: "
            f"expected {SESSIONS}, {DIALOGUES}, {TURNS}: {CARD.how_to_get}"
        )


def _turns(raw: Path) -> Iterator[Turn]:
    """Walk turns, dialogues by name, turns by time; `._` files of macOS do not fit the pattern."""
    tables = sorted((raw / RELEASE).glob("Session?/dialog/EmoEvaluation/Ses*.txt"))
    if not tables:
        raise IbmaError(
            f"{raw / RELEASE}: no Session1/dialog/EmoEvaluation here: {CARD.how_to_get}"
        )
    for table in tables:
        found = [match.groups() for match in map(_TURN.match, read_lines(table)) if match]
        for start, end, name, label in sorted(found, key=lambda turn: float(turn[0])):
            if not _NAME.match(name):
                raise IbmaError(f"{table}: turn '{name}': expected Ses<NN><F|M>_<part>_<F|M><n>")
            yield Turn(table.parents[2], table.stem, float(start), float(end), name, label)


def _drawn(raw: Path, kept: dict[str, str]) -> set[str]:
    """Draw the test turns of the random split: a fifth of all labelled ones, seed 0."""
    names = [turn.name for turn in _turns(raw) if turn.label in kept]
    order = np.random.default_rng(0).permutation(len(names))
    return {names[i] for i in order[: round(TEST_SHARE * len(names))]}


def _transcript(path: Path) -> dict[str, str]:
    """Return turn -> words; lines of the form `M: ...` and ids with XX belong to no turn."""
    if not path.exists():
        return {}
    return {match[1]: match[2].strip() for match in map(_SAID.match, read_lines(path)) if match}


def _sound(turn: Turn) -> Path:
    return turn.session / "sentences" / "wav" / turn.dialogue / f"{turn.name}.wav"


def _video(turn: Turn) -> Path:
    return turn.session / "dialog" / "avi" / "DivX" / f"{turn.dialogue}.avi"


def _missing(turn: Turn, said: dict[str, str]) -> str:
    """Return what a turn lacks, in words; empty when it is whole."""
    for path in (_sound(turn), _video(turn)):
        if not path.exists():
            place = path.relative_to(turn.session.parents[1])
            return f"{place}: missing, but {turn.name} is listed"
    return "" if turn.name in said else f"{turn.dialogue}.txt: no transcript of {turn.name}"


def _parts(turn: Turn, text: str) -> dict[str, Part]:
    """Return a turn's sound, its seconds of the speaker's half of the dialogue's video, its words.

    Which half follows from the name (see LEFT). CHOICE: no shift between sound and pictures
    (tae898/multimodal-datasets@57bac10 found 5 video frames to be best for its own purpose).
    """
    match = _NAME.match(turn.name)
    assert match, "checked in _turns"
    marked, speaker = match.groups()
    half = LEFT if marked == speaker else RIGHT
    visual = Excerpt(_video(turn), turn.start, turn.end, half)
    return {"audio": _sound(turn), "visual": visual, "text": text}
