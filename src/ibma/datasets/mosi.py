"""CMU-MOSI: opinion clips with a sentiment score in [-3, 3]; sound, pictures and transcript.

Three forms of the data go around: (A) CMU's `Raw/`, segmented media and transcripts, no scores;
(B) MMSA's `MOSI/label.csv` with `MOSI/Raw/<video>/<clip>.mp4` (thuiar/MMSA@a94e65d); (C) `mosi.pkl`
of MAG-BERT and MIB (TmacMai/Multimodal-Information-Bottleneck@f6d006b): features, words and scores
of the clips that the paper counts. Clips are those of (B), else of (A); (C) beside them says which
of these count.
"""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ibma.datasets import Card, Counts, Dropped, Part, Remote, Sample
from ibma.errors import IbmaError
from ibma.formats import tabular

PICKLE, TABLE, TRANSCRIPTS = "mosi.pkl", "MOSI/label.csv", "Raw/Transcript/Segmented"
PICKLED_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
COLUMNS = ("video_id", "clip_id", "text", "label", "mode")

CARD = Card(
    title="CMU-MOSI",
    kind="sentiment",
    classes=("-3", "-2", "-1", "0", "1", "2", "3"),
    modalities={"audio": "audio", "visual": "frames", "text": "text"},
    licence="no agreement found; opinion videos from YouTube, research use",
    access="request",
    paper=Counts(1281, 685),
    official=Counts(1284, 686),
    cite="A. Zadeh et al., MOSI: Multimodal corpus of sentiment intensity and subjectivity "
    "analysis in online opinion videos, arXiv 1606.06259.",
    how_to_get=(
        "take MOSI/ (label.csv and Raw/) from the Google Drive folder or Baidu link in the README "
        "of https://github.com/thuiar/MMSA into data/raw/mosi, and mosi.pkl from "
        "MIB_github/datasets of https://github.com/TmacMai/Multimodal-Information-Bottleneck "
        "beside it (`git hash-object mosi.pkl` prints 25348859773f1a1570d0720de472fbed8d266f81); "
        "CMU's own Raw/ (http://immortal.multicomp.cs.cmu.edu/raw_datasets/CMU_MOSI.zip, often "
        "down) works in MOSI/'s place"
    ),
    notes=(
        "Table 1's 1,281 and 685 are the clips of mosi.pkl, four fewer than the release (1,284, "
        "229 for validation, 686). With mosi.pkl beside the media only its clips are used, the "
        "others are listed as dropped; without it, every clip of label.csv is.",
        "mosi.pkl counts segments its own way, so its clips are found by video and words.",
        "mosi.pkl alone cannot feed this data set: it holds COVAREP and Facet features, and the "
        "paper reads log-mel spectrograms and face frames.",
        "Labels are real scores; the seven classes are the nearest integers. MIB and OMIB regress "
        "the score, the paper trains classes.",
    ),
)
FILES: tuple[Remote, ...] = ()


@dataclass(frozen=True)
class Segment:
    """An entry of mosi.pkl: its name `<video>[<n>]`, its split, its score."""

    name: str
    split: str
    score: float


Segments = dict[tuple[str, str], list[Segment]]  # (video, letters of its words) -> entries


def samples(raw: Path, *, on_bad: str = "stop") -> Iterator[Sample | Dropped]:
    """Walk `label.csv`, or CMU's transcripts; id = `<video>_<clip>`, group = video.

    A clip that mosi.pkl leaves out is Dropped whatever `on_bad` says: it is not bad.

    Raises IbmaError naming the file: no media form or (C) alone, a pickle that is not mosi.pkl or
    asks for more than arrays, a table with a missing column or another split or score, and
    (on_bad="stop") a clip without media or an entry of mosi.pkl that no clip's words match.
    """
    segments = _segments(raw / PICKLE) if (raw / PICKLE).exists() else None
    for found in _walk(raw, segments):
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
    for segment in (left for waiting in (segments or {}).values() for left in waiting):
        if on_bad == "stop":
            raise IbmaError(
                f"{raw / PICKLE}: no clip has the words of {segment.name}: complete the clips, set "
                f"on_bad: drop, or remove {PICKLE} to use every clip"
            )
        yield Dropped(segment.name, f"in {PICKLE}, but no clip has its words")


def _walk(raw: Path, segments: Segments | None) -> Iterator[Sample | Dropped]:
    """The clips of whichever form has media."""
    if (raw / TABLE).exists():
        return _mmsa(raw / TABLE, segments)
    if not (raw / TRANSCRIPTS).is_dir():
        alone = f"{PICKLE} alone has neither sound nor pictures"
        raise IbmaError(f"{raw}: {f'no {TABLE}' if segments is None else alone}: {CARD.how_to_get}")
    if segments is None:
        raise IbmaError(f"{raw}: CMU's Raw/ has no scores, add {PICKLE}: {CARD.how_to_get}")
    return _cmu(raw / "Raw", segments)


def _mmsa(table: Path, segments: Segments | None) -> Iterator[Sample | Dropped]:
    """Form (B): one mp4 for sound and pictures."""
    for line, row in tabular.rows(table, COLUMNS, CARD.how_to_get):
        where = f"{table}: line {line}"
        video, name = row["video_id"], f"{row['video_id']}_{row['clip_id']}"
        if row["mode"] not in PICKLED_SPLITS.values():
            raise IbmaError(f"{where}: mode '{row['mode']}': expected train, valid or test")
        score = _score(row["label"], where)
        if segments is not None and _take(segments, video, row["text"]) is None:
            yield _left_out(name)
            continue
        media = table.parent / "Raw" / video / f"{row['clip_id']}.mp4"
        parts: dict[str, Part] = {"audio": media, "visual": media, "text": row["text"]}
        yield Sample(name, row["mode"], video, score, parts)


def _cmu(root: Path, segments: Segments) -> Iterator[Sample | Dropped]:
    """Form (A): a wav and an mp4 per segment; split and score are those of mosi.pkl."""
    for path in sorted((root / "Transcript" / "Segmented").glob("*.annotprocessed")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for place, line in enumerate(lines, 1):
            number, _, text = line.partition("_")
            if not number.isdecimal():
                raise IbmaError(f"{path}: line {place}: '{line[:40]}': expected <n>_DELIM_<words>")
            name, text = f"{path.stem}_{number}", text.removeprefix("DELIM_")
            segment = _take(segments, path.stem, text)
            if segment is None:
                yield _left_out(name)
                continue
            parts: dict[str, Part] = {
                "audio": root / "Audio" / "WAV_16000" / "Segmented" / f"{name}.wav",
                "visual": root / "Video" / "Segmented" / f"{name}.mp4",
                "text": text,
            }
            yield Sample(name, segment.split, path.stem, segment.score, parts)


def _media(found: Sample | Dropped) -> list[Path]:
    if isinstance(found, Dropped):
        return []
    return [part for part in found.parts.values() if isinstance(part, Path)]


def _left_out(name: str) -> Dropped:
    return Dropped(name, f"not among the paper's clips ({PICKLE})")


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = float("nan")
    if not -3 <= score <= 3:
        raise IbmaError(f"{where}: label '{text}': expected a number from -3 to 3")
    return score


# --- mosi.pkl ------------------------------------------------------------------------------------


def _segments(path: Path) -> Segments:
    """Entries `((words, visual, acoustic), label, segment)` by what a clip can be found with."""
    found: Segments = {}
    content = _load(path)
    try:
        for key, split in PICKLED_SPLITS.items():
            for (words, _, _), label, name in content[key]:
                score = _score(str(np.ravel(label)[0]), f"{path}: {name}")
                video = name.rpartition("[")[0]
                found.setdefault((video, _letters(" ".join(words))), []).append(
                    Segment(name, split, score)
                )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise IbmaError(
            f"{path}: is not MIB's {PICKLE} ({type(error).__name__}: {error}): expected train, dev "
            "and test lists of ((words, visual, acoustic), label, segment): use the original file"
        ) from None
    return found


def _take(segments: Segments, video: str, text: str) -> Segment | None:
    """Remove and return the entry with these words: two clips may say the same."""
    waiting = segments.get((video, _letters(text)))
    return waiting.pop(0) if waiting else None


def _letters(text: str) -> str:
    """Letters and digits in lower case: (A) shouts, (C) is in lower case, quotes come and go."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


class _Arrays(pickle.Unpickler):
    """Loads arrays in built-in containers; a pickle is a program, any other name is refused."""

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
    try:
        with path.open("rb") as file:
            return _Arrays(file).load()
    except Exception as error:  # a broken pickle may raise anything
        raise IbmaError(
            f"{path}: not loaded ({' '.join(str(error).split())}): use the original file"
        ) from None
