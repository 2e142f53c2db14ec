"""Read IEMOCAP: turns of acted dialogues with an emotion; sound, pictures, transcript.

Layout: `IEMOCAP_full_release/Session<1..5>/` as the archive unpacks. A turn is named
`Ses01F_impro01_M003`: session, the actor who wears markers, dialogue, speaker, number.

CHOICE: a speaker's picture is a whole half of the frame. Others crop the left one to rows 122 to
360 and columns 6 to 354 of 480 x 720.
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
LABELS = (*EMOTIONS, *MERGED, *RARE, "xxx")  # xxx: the raters did not agree
SESSIONS, DIALOGUES, TURNS = 5, 151, 10_039
TEST_SESSION, TEST_SHARE = "Session5", 0.2
# shares of the picture: marker actor left, partner right (IoannisKansizoglou/Iemocap-preprocess)
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)

_MEANT = re.compile(r"^[^\w%]*\[|Ses\d\d[FM]_")  # a line of a turn, right or wrong; % is a comment
_TURN = re.compile(r"^\[(\d{1,6}(?:\.\d+)?) - (\d{1,6}(?:\.\d+)?)\]\t(\S+)\t(\w+)\t")
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
        "CHOICE: classes are anger, happiness with excitement, sadness, neutral, frustration. "
        "Sessions 1 to 4 are for training (5,758) and session 5, with two new speakers, for the "
        "test (1,622).",
        "Option split: random divides all 7,532 labelled turns 80:20 (seed 0), with surprise as "
        "happiness, fear as sadness, disgust as anger, other as frustration. It only comes near "
        "Table 1's sizes: it tests on speakers that are in training.",
        "A pair of speakers meets in one session only, so folds keep sessions whole: inside "
        "training there are four groups, and at most four folds.",
    ),
)
FILES: tuple[Remote, ...] = ()
Said = dict[str, dict[int, str]]  # turn -> line of the transcript -> its words


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
        on_bad: Whether a turn without sound, video, or exactly one transcript stops, or is dropped.
        split: `session` (five labels, session 5 tests) or `random` (see the card).

    Raises:
        IbmaError: A session is not there, a table is malformed, another `split`, or (on_bad="stop")
            a turn cannot be used.
    """
    if split not in ("session", "random"):
        raise IbmaError(f"params.yaml: split '{split}': expected session or random")
    kept = {name: name for name in EMOTIONS} | MERGED | (RARE if split == "random" else {})
    tested = _drawn(raw, kept) if split == "random" else None
    said: Said = {}
    dialogue = ""
    for turn in _turns(raw):
        if turn.dialogue != dialogue:
            dialogue = turn.dialogue
            said = _transcript(turn.session / "dialog" / "transcriptions" / f"{dialogue}.txt")
        if turn.label not in kept:
            yield Dropped(turn.name, f"label {turn.label} is none of the task's")
            continue
        fault = _fault(turn, said)
        if fault and on_bad == "stop":
            raise IbmaError(f"{raw}: {fault}: unpack the archive again or set on_bad: drop")
        if fault:
            yield Dropped(turn.name, fault)
            continue
        (words,) = said[turn.name].values()
        held_out = turn.session.name == TEST_SESSION if tested is None else turn.name in tested
        yield Sample(
            turn.name,
            "test" if held_out else "train",
            turn.session.name,
            EMOTIONS.index(kept[turn.label]),
            _parts(turn, words),
            dialogue,
        )


def verify(raw: Path) -> None:
    """Count dialogues and turns: the publisher lists no checksum.

    Raises:
        IbmaError: They are not 151 and 10,039, or a session or table is not as it should be.
    """
    turns = list(_turns(raw))
    counts = len({turn.dialogue for turn in turns}), len(turns)
    if counts != (DIALOGUES, TURNS):
        raise IbmaError(
            f"{raw / RELEASE}: {counts[0]} dialogues, {counts[1]} turns: "
            f"expected {DIALOGUES}, {TURNS}: {CARD.how_to_get}"
        )


def _turns(raw: Path) -> Iterator[Turn]:
    """Walk turns, dialogues by name, turns by time; `._` files of macOS do not fit the pattern."""
    for number in range(1, SESSIONS + 1):
        folder = raw / RELEASE / f"Session{number}/dialog/EmoEvaluation"
        tables = sorted(folder.glob("Ses*.txt"))
        if not tables:
            raise IbmaError(
                f"{folder}: no Ses*.txt here (capitals matter): unpack the archive again, or "
                f"{CARD.how_to_get}"
            )
        for table in tables:
            yield from sorted(_listed(table), key=lambda turn: turn.start)


def _listed(table: Path) -> list[Turn]:
    """Return the turns of a table; other lines are a rater's, a comment or empty."""
    lines = enumerate(read_lines(table), 1)
    turns = [_turn(table, number, line) for number, line in lines if _MEANT.search(line)]
    if not turns:
        raise IbmaError(f"{table}: no turn here: unpack the archive again")
    return turns


def _turn(table: Path, number: int, line: str) -> Turn:
    """Return the turn of a line; refuse one that is written otherwise."""
    match = _TURN.match(line)
    wrong = repr(line[:60])
    expected = "'[<start> - <end>]', name, label and '[V, A, D]', tabs between"
    if match:
        start, end, name, label = float(match[1]), float(match[2]), match[3], match[4]
        if not _NAME.match(name):
            wrong, expected = f"turn '{name}'", "Ses<NN><F|M>_<part>_<F|M><n>"
        elif label not in LABELS:
            wrong, expected = f"label '{label}' of {name}", f"one of {', '.join(LABELS)}"
        elif start >= end:
            wrong, expected = f"{name} from {start} to {end} s", "an end after the start"
        else:
            return Turn(table.parents[2], table.stem, start, end, name, label)
    raise IbmaError(
        f"{table}: line {number}: {wrong}: expected {expected}: unpack the archive again"
    )


def _drawn(raw: Path, kept: dict[str, str]) -> set[str]:
    """Draw the test turns of the random split: a fifth of all labelled ones, seed 0."""
    names = [turn.name for turn in _turns(raw) if turn.label in kept]
    order = np.random.default_rng(0).permutation(len(names))
    return {names[i] for i in order[: round(TEST_SHARE * len(names))]}


def _transcript(path: Path) -> Said:
    """Return what was said; lines of the form `M: ...` and ids with XX belong to no turn."""
    said: Said = {}
    for number, line in enumerate(read_lines(path) if path.exists() else (), 1):
        if match := _SAID.match(line):
            said.setdefault(match[1], {})[number] = match[2].strip()
    return said


def _sound(turn: Turn) -> Path:
    return turn.session / "sentences" / "wav" / turn.dialogue / f"{turn.name}.wav"


def _video(turn: Turn) -> Path:
    return turn.session / "dialog" / "avi" / "DivX" / f"{turn.dialogue}.avi"


def _fault(turn: Turn, said: Said) -> str:
    """Return what is wrong with a turn's files, in words; empty when nothing is."""
    for path in (_sound(turn), _video(turn)):
        if not path.exists():
            place = path.relative_to(turn.session.parents[1])
            return f"{place}: missing, but {turn.name} is listed"
    lines = list(said.get(turn.name, ()))
    if len(lines) > 1:
        both = f"lines {lines[0]} and {lines[1]}"
        return f"{turn.dialogue}.txt: {both}: two transcripts of {turn.name}, expected one"
    return "" if lines else f"{turn.dialogue}.txt: no transcript of {turn.name}"


def _parts(turn: Turn, text: str) -> dict[str, Part]:
    """Return a turn's sound, its seconds of the speaker's half of the dialogue's video, its words.

    Which half follows from the name (see LEFT). CHOICE: no shift between sound and pictures
    (tae898/multimodal-datasets@57bac10 found 5 video frames to be best for its own purpose).
    """
    match = _NAME.match(turn.name)
    assert match, "checked in _turn"
    marked, speaker = match.groups()
    half = LEFT if marked == speaker else RIGHT
    visual = Excerpt(_video(turn), turn.start, turn.end, half)
    return {"audio": _sound(turn), "visual": visual, "text": text}
