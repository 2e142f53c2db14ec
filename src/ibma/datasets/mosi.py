"""Read CMU-MOSI: opinion clips with a sentiment score in [-3, 3]; sound, pictures, transcript.

Three forms of the data go around: (A) CMU's `Raw/`, segmented media and transcripts, no scores;
(B) MMSA's `MOSI/label.csv` with `MOSI/Raw/<video>/<clip>.mp4` (thuiar/MMSA@a94e65d); (C) `mosi.pkl`
of MAG-BERT and MIB (TmacMai/Multimodal-Information-Bottleneck@f6d006b): features, words and scores
of the clips that the paper counts. Clips are those of (B), else of (A); (C) beside them says which
of these count, and must agree with (B) in split and score.

CHOICE: a text without a lower-case letter, such as (A)'s, is put into lower case. Tokenizers that
tell cases apart cut words in capitals into pieces.
"""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ibma.datasets import Card, Counts, Dropped, Part, Remote, Sample
from ibma.errors import IbmaError, one_line
from ibma.files import inside
from ibma.formats import checksums, tabular
from ibma.formats.raw import given, present, read_lines
from ibma.formats.tabular import Column, Table

PICKLE, TABLE, TRANSCRIPTS = "mosi.pkl", "MOSI/label.csv", "Raw/Transcript/Segmented"
PICKLED_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
GIT_HASH = "25348859773f1a1570d0720de472fbed8d266f81"  # of mosi.pkl in MIB's repository
CLOSE = 0.05  # scores are fifths, quarters and thirds, which a table may round to one decimal

CARD = Card(
    title="CMU-MOSI",
    kind="sentiment",
    classes=("-3", "-2", "-1", "0", "1", "2", "3"),
    modalities={"audio": "audio", "visual": "frames", "text": "text"},
    licence="no agreement found; opinion videos from YouTube, research use",
    access="request",
    paper=Counts(1281, 685),
    official=Counts(1284, 686, valid=229),
    cite="A. Zadeh et al., MOSI: Multimodal corpus of sentiment intensity and subjectivity "
    "analysis in online opinion videos, arXiv 1606.06259.",
    how_to_get=(
        "take MOSI/ (label.csv and Raw/) from the Google Drive folder or Baidu link in the README "
        "of https://github.com/thuiar/MMSA into data/raw/mosi, and mosi.pkl from "
        "MIB_github/datasets of https://github.com/TmacMai/Multimodal-Information-Bottleneck "
        f"beside it (`git hash-object {PICKLE}` prints {GIT_HASH}); "
        "CMU's own Raw/ (http://immortal.multicomp.cs.cmu.edu/raw_datasets/CMU_MOSI.zip, often "
        "down) works in MOSI/'s place"
    ),
    notes=(
        "Table 1's 1,281 and 685 are the clips of mosi.pkl, four fewer than the release (1,284, "
        "229 for validation, 686). With mosi.pkl beside the media only its clips are used, and the "
        "others are listed as dropped. Without it every clip of label.csv is used.",
        "mosi.pkl numbers segments differently, so its clips are found by video and words.",
        "mosi.pkl alone cannot feed this data set: it holds COVAREP and Facet features, and the "
        "paper reads log-mel spectrograms and face frames.",
        "Labels are real scores; the seven classes are the nearest integers. MIB and OMIB regress "
        "the score, the paper trains classes.",
    ),
)
FILES: tuple[Remote, ...] = ()
SCORE = Column("number", low=-3, high=3)
LISTED = Table(
    {
        "video_id": tabular.NAME,
        "clip_id": tabular.INTEGER,
        "text": tabular.TEXT,
        "label": SCORE,
        "mode": Column(values=tuple(PICKLED_SPLITS.values())),
    },
    CARD.how_to_get,
    unique=("video_id", "clip_id"),
)


@dataclass(frozen=True)
class Segment:
    """An entry of mosi.pkl, `<video>[<number>]`."""

    video: str
    number: int
    split: str
    score: float

    @property
    def name(self) -> str:
        """Return what the pickle calls it."""
        return f"{self.video}[{self.number}]"

    def agrees(self, row: Mapping[str, str]) -> bool:
        """Return whether a row of label.csv has this split and score."""
        return self.split == row["mode"] and abs(self.score - float(row["label"])) < CLOSE


Segments = dict[tuple[str, str], list[Segment]]  # (video, letters of its words) -> by number


def verify(raw: Path) -> None:
    """Check mosi.pkl, if it is there, against its git hash; nobody lists one of the media.

    Raises:
        IbmaError: It is another file.
    """
    path = raw / PICKLE
    if given(path) and checksums.git_hash(present(path, CARD.how_to_get)) != GIT_HASH:
        raise IbmaError(f"{path}: is not MIB's {PICKLE}: use the original file: {CARD.how_to_get}")


def samples(raw: Path, *, on_bad: str = "stop") -> Iterator[Sample | Dropped]:
    """Walk `label.csv`, or CMU's transcripts; id = `<video>_<clip>`, group = video.

    A clip that mosi.pkl leaves out is Dropped whatever `on_bad` says: it is not bad.

    Args:
        raw: The raw folder.
        on_bad: Whether a clip without media, and an entry of mosi.pkl that no clip's words match,
            stop or are dropped.

    Raises:
        IbmaError: There are no media or (C) alone, the pickle is not mosi.pkl or asks for more than
            arrays, the table is malformed or contradicts mosi.pkl, no clip is in mosi.pkl, or
            (on_bad="stop") a clip cannot be used.
    """
    segments = _segments(raw / PICKLE) if given(raw / PICKLE) else None
    matched = False
    for found in _walk(raw, segments):
        matched = matched or isinstance(found, Sample)
        missing = [path for path in _media(found) if not path.exists()]
        if not missing:
            yield found
        elif on_bad == "drop":
            yield Dropped(found.id, f"{missing[0].relative_to(raw)}: missing")
        else:
            raise IbmaError(
                f"{missing[0]}: missing, but {found.id} is listed: copy it there, or set on_bad: "
                "drop"
            )
    left = [segment for waiting in (segments or {}).values() for segment in waiting]
    if left and not matched:
        raise IbmaError(
            f"{raw / PICKLE}: nothing in it matches a clip's words: the first here is "
            f"'{left[0].name}', the last clip '{found.id}': use the files of one release"
        )
    for segment in left:
        if on_bad == "stop":
            raise IbmaError(
                f"{raw / PICKLE}: no clip has the words of {segment.name}: complete the clips, set "
                f"on_bad: drop, or remove {PICKLE} to use every clip"
            )
        yield Dropped(segment.name, f"in {PICKLE}, but no clip has its words")


def _walk(raw: Path, segments: Segments | None) -> Iterator[Sample | Dropped]:
    """Walk the clips of whichever form has media."""
    if given(raw / TABLE):
        return _mmsa(raw / TABLE, segments)
    if not (raw / TRANSCRIPTS).is_dir():
        alone = f"{PICKLE} alone has neither sound nor pictures"
        raise IbmaError(f"{raw}: {f'no {TABLE}' if segments is None else alone}: {CARD.how_to_get}")
    if segments is None:
        raise IbmaError(f"{raw}: CMU's Raw/ has no scores, add {PICKLE}: {CARD.how_to_get}")
    return _cmu(raw / "Raw", segments)


def _mmsa(table: Path, segments: Segments | None) -> Iterator[Sample | Dropped]:
    """Walk form (B): one mp4 for sound and pictures."""
    listed = list(tabular.rows(table, LISTED))
    counted = None if segments is None else _counted(table, listed, segments)
    for line, row in listed:
        video, name = row["video_id"], f"{row['video_id']}_{row['clip_id']}"
        media = inside(table.parent / "Raw", f"{video}/{row['clip_id']}.mp4")
        if counted is not None and line not in counted:
            yield _left_out(name)
            continue
        parts: dict[str, Part] = {"audio": media, "visual": media, "text": _words(row["text"])}
        yield Sample(name, row["mode"], video, float(row["label"]), parts)


def _counted(
    table: Path, listed: Sequence[tuple[int, dict[str, str]]], segments: Segments
) -> set[int]:
    """Return the lines of the clips that mosi.pkl has, and take its entries of them.

    Raises:
        IbmaError: The words of an entry are there, but with another split or score.
    """
    counted = set()
    for line, row in listed:
        waiting = _waiting(segments, row["video_id"], row["text"])
        if agreeing := [one for one in waiting if one.agrees(row)]:
            waiting.remove(agreeing[0])
            counted.add(line)
    for line, row in listed:
        waiting = _waiting(segments, row["video_id"], row["text"])
        if line not in counted and waiting:
            raise IbmaError(
                f"{table}: line {line}: score {row['label']} in {row['mode']}: expected "
                f"{waiting[0].score:g} in {waiting[0].split}, as {PICKLE} has it for the same "
                f"words ({waiting[0].name}): use the files of one release"
            )
    return counted


def _cmu(root: Path, segments: Segments) -> Iterator[Sample | Dropped]:
    """Walk form (A): a wav and an mp4 per segment; split and score are those of mosi.pkl."""
    for path in sorted((root / "Transcript" / "Segmented").glob("*.annotprocessed")):
        for number, text in _transcript(path):
            name, waiting = f"{path.stem}_{number}", _waiting(segments, path.stem, text)
            if not waiting:
                yield _left_out(name)
                continue
            segment = waiting.pop(0)
            parts: dict[str, Part] = {
                "audio": root / "Audio" / "WAV_16000" / "Segmented" / f"{name}.wav",
                "visual": root / "Video" / "Segmented" / f"{name}.mp4",
                "text": _words(text),
            }
            yield Sample(name, segment.split, path.stem, segment.score, parts)


def _transcript(path: Path) -> list[tuple[str, str]]:
    """Return (number, words) of a video's clips, by number."""
    clips = []
    for place, line in enumerate(read_lines(path), 1):
        number, _, text = line.partition("_")
        if not number.isdecimal():
            raise IbmaError(f"{path}: line {place}: '{line[:40]}': expected <n>_DELIM_<words>")
        clips.append((number, text.removeprefix("DELIM_")))
    return sorted(clips, key=lambda clip: int(clip[0]))


def _words(text: str) -> str:
    """Return a text, in lower case if it is all in capitals."""
    return text.lower() if text.isupper() else text


def _media(found: Sample | Dropped) -> list[Path]:
    if isinstance(found, Dropped):
        return []
    return [part for part in found.parts.values() if isinstance(part, Path)]


def _left_out(name: str) -> Dropped:
    return Dropped(name, f"not among the paper's clips ({PICKLE})")


# --- mosi.pkl ------------------------------------------------------------------------------------


def _segments(path: Path) -> Segments:
    """Return the entries of mosi.pkl by what a clip is found with, its video and words."""
    found: Segments = {}
    content = _load(path)
    try:
        for key, split in PICKLED_SPLITS.items():
            for (words, _, _), label, name in content[key]:
                score = str(np.asarray(label).item())
                if expected := SCORE.expects(score):
                    raise ValueError(f"label '{score}' of {name}, expected {expected}")
                video, _, number = name.removesuffix("]").rpartition("[")
                segment = Segment(video, int(number), split, float(score))
                found.setdefault((video, _letters(" ".join(words))), []).append(segment)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise IbmaError(
            f"{path}: is not MIB's {PICKLE} ({type(error).__name__}: {error}): expected train, dev "
            "and test lists of ((words, visual, acoustic), label, segment): use the original file"
        ) from None
    for waiting in found.values():
        waiting.sort(key=lambda segment: segment.number)
    return found


def _waiting(segments: Segments, video: str, text: str) -> list[Segment]:
    """Return the entries with these words that no clip has taken: two clips may say the same."""
    return segments.get((video, _letters(text)), [])


def _letters(text: str) -> str:
    """Return letters and digits in lower case: (A) shouts, (C) does not, quotes come and go."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


class _Arrays(pickle.Unpickler):
    """Load arrays in built-in containers; a pickle is a program, any other name is refused."""

    NAMES = {  # what pickled arrays ask for; the modules' names differ between numpy's releases
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "_reconstruct": np.zeros(0).__reduce__()[0],
        "scalar": np.float64(0).__reduce__()[0],
        "encode": codecs.encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the object that a pickle names."""
        if module.split(".")[0] not in ("numpy", "_codecs") or name not in self.NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.NAMES[name]


def _load(path: Path) -> Any:
    present(path, CARD.how_to_get)
    try:
        with path.open("rb") as file:
            return _Arrays(file).load()
    except Exception as error:  # a broken pickle may raise anything
        raise IbmaError(f"{path}: not loaded ({one_line(error)}): use the original file") from None
