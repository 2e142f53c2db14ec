"""Read MELD: utterances of Friends with an emotion and a sentiment; sound, pictures, text.

Layout: `{train,dev,test}_sent_emo.csv` as in git (declare-lab/MELD@2d2011b), `MELD.Raw/` as the
10.9 GB archive unpacks, its own copies of the tables included. Ids are local to a split.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ibma.datasets import Card, Counts, Dropped, Part, Remote, Sample
from ibma.errors import IbmaError
from ibma.formats import tabular
from ibma.formats.raw import given
from ibma.formats.tabular import Table

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
SENTIMENTS = {"negative": -1, "neutral": 0, "positive": 1}
PLACED = ("MELD.Raw*",)
ARCHIVES = ("MELD.Raw.tar.gz", "MELD.Raw/*.tar.gz")
# Windows' punctuation that MELD.Raw's tables carry as C1 control characters
# (tae898/multimodal-datasets@57bac10 utils/convert_cp1252_to_utf8.py)
PUNCTUATION = str.maketrans(
    {
        "\x85": "\u2026",  # ellipsis
        "\x91": "\u2018",  # single quotes
        "\x92": "\u2019",
        "\x93": "\u201c",  # double quotes
        "\x94": "\u201d",
        "\x96": "\u2013",  # dashes
        "\x97": "\u2014",
        "\xa0": " ",
    }
)
CORRECTED = "final_videos_test"  # prefix of test clips that replace a wrong one beside them
NEVER_USABLE = {"train_dia125_utt3", "dev_dia110_utt7"}  # no moov atom; not in the archive


@dataclass(frozen=True)
class Split:
    """One of the three splits.

    Attributes:
        name: What the tables call it.
        split: What our samples call it.
        folder: Where its clips are, below MELD.Raw/ or MELD.Raw/<name>/.
    """

    name: str
    split: str
    folder: str


SPLITS = (
    Split("train", "train", "train_splits"),
    Split("dev", "valid", "dev_splits_complete"),
    Split("test", "test", "output_repeated_splits_test"),
)

EMOTION = Card(
    title="MELD (emotion)",
    kind="classify",
    classes=EMOTIONS,
    modalities={"audio": "audio", "visual": "frames", "text": "text"},
    licence="GPL-3.0 (tables and repository); the clips are copyrighted film, do not share them",
    access="open",
    raw_gb=22.0,
    paper=Counts(9989, 2610),
    official=Counts(9989, 2610, valid=1109),
    cite="S. Poria et al., MELD: A multimodal multi-party dataset for emotion recognition in "
    "conversations, ACL 2019.",
    how_to_get=(
        "the tables are fetched from git; put MELD.Raw.tar.gz (10.9 GB, from https://huggingface.co"
        "/datasets/declare-lab/MELD/resolve/main/MELD.Raw.tar.gz or http://web.eecs.umich.edu/"
        "~mihalcea/downloads/MELD.Raw.tar.gz) into data/raw/meld, the download stage unpacks it"
    ),
    notes=(
        "The paper does not mention the 1,109 utterances for validation; neither training nor test "
        "uses them here.",
        "1,038 training dialogues: the publisher's README says 1,039, Dialogue_ID 60 is absent.",
        "Two neutral clips cannot be used (train dia125_utt3 is unreadable, dev dia110_utt7 "
        "absent). CHOICE: both utterances are kept with their text alone, so the counts stay the "
        "same.",
        "Sentiment is three-way (negative, neutral, positive); the paper's section 4.3 calls it "
        "binary. Acc-2 and F1 are given in both definitions: neutral left out (majority 61.5 %), "
        "and negative against the rest (majority 68.1 %).",
        "Test clips called final_videos_test... are corrections and replace their namesakes. The "
        "tables' times are wrong in places (a test utterance of 304.94 s) and are not used here.",
        "No publisher's checksum of the archive was found; clips are checked as they are decoded.",
    ),
)
CARDS: Mapping[str, Card] = {
    "emotion": EMOTION,
    "sentiment": replace(
        EMOTION, title="MELD (sentiment)", kind="sentiment", classes=("-1", "0", "1")
    ),
}
CARD = EMOTION

_GIT = "https://raw.githubusercontent.com/declare-lab/MELD/2d2011b409d3ca2d7e94460cd007d434b1d0a102"
FILES = tuple(
    Remote(f"{_GIT}/data/MELD/{name}_sent_emo.csv", digest, f"{name}_sent_emo.csv")
    for name, digest in (
        ("train", "d2fa2d6529cf03cac2989efec05c9b27d8fd2f4c8fc5974c7ae88aa537fa02db"),
        ("dev", "2e89c6f8aa182d6f62f8c6331aece905ac7273ca4999660bfb5213e1d0370c1c"),
        ("test", "8d37103938f7067600839fe29d5a114a6cd1bcdafb75bec101e06464c5006888"),
    )
)


LISTED = Table(
    {
        "Utterance": tabular.TEXT,
        "Emotion": tabular.NAME,
        "Sentiment": tabular.NAME,
        "Dialogue_ID": tabular.INTEGER,
        "Utterance_ID": tabular.INTEGER,
    },
    EMOTION.how_to_get,
    unique=("Dialogue_ID", "Utterance_ID"),
)


def samples(
    raw: Path, *, on_bad: str = "stop", target: str = "emotion"
) -> Iterator[Sample | Dropped]:
    """Walk the three tables; id = `<table>_dia<D>_utt<U>`, group and dialogue = `<table>_<D>`.

    The dev table is split "valid". An utterance's text keeps its typographic quotes whichever table
    it came from.

    Args:
        raw: The raw folder.
        on_bad: Whether an utterance without its clip stops, or is dropped.
        target: `emotion` (label = index in EMOTIONS) or `sentiment` (-1, 0, 1).

    Raises:
        IbmaError: There are no clips at all, a table is missing or malformed, an emotion or
            sentiment is unknown, or (on_bad="stop") a clip is missing.
    """
    for split in SPLITS:
        folder = _first(raw, split, split.folder)
        table = _table(raw, split)
        for line, row in tabular.rows(table, LISTED):
            where = f"{table}: line {line}"
            dialogue, utterance = int(row["Dialogue_ID"]), int(row["Utterance_ID"])
            name = f"{split.name}_dia{dialogue}_utt{utterance}"
            clip = None if name in NEVER_USABLE else _clip(folder, dialogue, utterance)
            if clip is None and name not in NEVER_USABLE:
                if on_bad == "stop":
                    raise IbmaError(
                        f"{folder}: no dia{dialogue}_utt{utterance}.mp4, but {where} lists it: "
                        "unpack the archive again or set on_bad: drop"
                    )
                yield Dropped(name, "no clip")
                continue
            parts: dict[str, Part] = {
                "audio": clip,
                "visual": clip,
                "text": normalise(row["Utterance"]),
            }
            group = f"{split.name}_{dialogue}"
            yield Sample(name, split.split, group, _label(row, target, where), parts, group)


def normalise(text: str) -> str:
    """Return words as the subtitles had them: punctuation restored, NFC, no outer blanks."""
    return unicodedata.normalize("NFC", text.translate(PUNCTUATION)).strip()


def _table(raw: Path, split: Split) -> Path:
    """Return git's table at the root of the raw folder, else one of the archive's."""
    name = f"{split.name}_sent_emo.csv"
    return raw / name if given(raw / name) else _first(raw, split, name)


def _first(raw: Path, split: Split, name: str) -> Path:
    """Return the archive's file or folder `name`: a split may or may not have its own folder."""
    places = (raw / "MELD.Raw" / name, raw / "MELD.Raw" / split.name / name)
    found = next((place for place in places if given(place)), None)
    if found is None:
        raise IbmaError(f"{places[0]}: missing: {CARD.how_to_get}")
    return found


def _clip(folder: Path, dialogue: int, utterance: int) -> Path | None:
    """Return the corrected clip if there is one; `._` files of macOS never fit these names."""
    name = f"dia{dialogue}_utt{utterance}.mp4"
    places = (folder / f"{CORRECTED}{name}", folder / name)
    return next((place for place in places if given(place)), None)


def _label(row: Mapping[str, str], target: str, where: str) -> int:
    emotion, sentiment = row["Emotion"].lower(), row["Sentiment"].lower()
    if emotion not in EMOTIONS:
        raise IbmaError(f"{where}: emotion '{emotion}': expected one of {', '.join(EMOTIONS)}")
    if sentiment not in SENTIMENTS:
        raise IbmaError(f"{where}: sentiment '{sentiment}': expected negative, neutral or positive")
    return EMOTIONS.index(emotion) if target == "emotion" else SENTIMENTS[sentiment]
