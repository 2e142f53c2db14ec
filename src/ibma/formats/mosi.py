"""Read CMU-MOSI's utterances from two public repositories: words, scores, feature vectors.

declare-lab/multimodal-deep-learning@111b401, bc-LSTM/data: `transcripts.csv` (utterance, words,
video number, score >= 0) and a split of its own into 1,447 and 752 utterances. The first column of
`text_{train,test}.csv` says which rows of the transcripts these are; the rows of
`{audio,video}_{train,test}0.csv` are in the same order and end in the label.
ASA-MOSI/Audio-Sentiment-Analysis@c482dd2: `OpinionLevelSentiment.csv` (start, end, video, number,
score). No file has a header.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ibma.errors import IbmaError
from ibma.formats import tabular
from ibma.formats.tabular import Column, Table

GITHUB = "https://raw.githubusercontent.com/"
CHECKSUMS = Path(__file__).with_name("mosi.sha256")  # of <owner>/<repository>/<commit>/<path>
TRANSCRIPTS, SCORES = "transcripts.csv", "OpinionLevelSentiment.csv"
WIDTHS = {"audio": 73, "video": 100}  # numbers of one vector
_LISTED = (line.split() for line in CHECKSUMS.read_text().splitlines())
_ALL = tuple((GITHUB + path, digest, Path(path).name) for digest, path in _LISTED)
VIDEO_FILES = tuple(file for file in _ALL if file[2].startswith("video"))
FILES = tuple(file for file in _ALL if file not in VIDEO_FILES)  # address, sha256, path
AGAIN = "run `dvc repro -f download`"


def _table(columns: Mapping[str, Column], unique: Sequence[str] = ()) -> Table:
    return Table(columns, AGAIN, unique, header=False)


def _numbers(count: int) -> dict[str, Column]:
    return {f"number {place}": tabular.NUMBER for place in range(1, count + 1)}


SPOKEN = _table(
    {
        "utterance": tabular.NAME,
        "words": tabular.TEXT,
        "video": tabular.TEXT,
        "positive": Column(values=("0", "1")),
    },
    unique=("utterance",),
)
SCORED = _table(
    {
        "start": tabular.NUMBER,
        "end": tabular.NUMBER,
        "video": tabular.NAME,
        "number": tabular.INTEGER,
        "score": Column("number", low=-3, high=3),
    },
    unique=("video", "number"),
)
ORDER = _table({"row": tabular.INTEGER} | _numbers(100), ("row",))


@dataclass(frozen=True)
class Utterance:
    """What was said, how it sounded and looked, and how positive it was.

    Attributes:
        id: `<video>_<number>`.
        video: Id of the video.
        words: In capitals.
        score: From -3 to 3.
        split: train (1,447) or test (752).
        vectors: audio [73] (openSMILE), video [100] (a 3D-CNN fitted on the 1,447 labels).
    """

    id: str
    video: str
    words: str
    score: float
    split: str
    vectors: dict[str, tuple[float, ...]]


def utterances(raw: Path, kinds: Sequence[str]) -> Iterator[Utterance]:
    """Walk the 1,447 utterances, then the 752.

    Args:
        raw: The folder that holds the files.
        kinds: Which vectors each utterance gets: "audio", "video" or both.

    Raises:
        IbmaError: A file is missing, a row is of another form, or two files contradict each other.
            They were checked by sha256, so nothing in them is left out.
    """
    transcripts = [row for _, row in tabular.rows(raw / TRANSCRIPTS, SPOKEN)]
    scores = {
        f"{row['video']}_{row['number']}": float(row["score"])
        for _, row in tabular.rows(raw / SCORES, SCORED)
    }
    names = [row["utterance"] for row in transcripts]
    tabular.refuse_no_match(names, scores, (raw / TRANSCRIPTS, raw / SCORES), AGAIN)
    for split in ("train", "test"):
        order = _order(raw / f"text_{split}.csv", len(transcripts))
        tables = {kind: _vectors(raw / f"{kind}_{split}0.csv", kind, len(order)) for kind in kinds}
        for place, row in enumerate(order):
            name, positive = names[row], transcripts[row]["positive"]
            score = scores.get(name)
            if score is None or positive != str(int(score >= 0)):
                raise _broken(
                    raw / TRANSCRIPTS, row + 1, f"{name} has label {positive} but score {score}"
                )
            for kind, table in tables.items():
                if table[place][-1] != float(positive):
                    path = raw / f"{kind}_{split}0.csv"
                    raise _broken(path, place + 1, f"{name} has label {positive} elsewhere")
            vectors = {kind: tuple(table[place][:-1]) for kind, table in tables.items()}
            video = name.rpartition("_")[0]
            yield Utterance(name, video, transcripts[row]["words"], score, split, vectors)


def _order(path: Path, count: int) -> list[int]:
    """Return which rows of the transcripts a split's rows are."""
    order = []
    for line, row in tabular.rows(path, ORDER):
        if int(row["row"]) >= count:
            raise _broken(path, line, f"'{row['row']}' is no row of {TRANSCRIPTS}")
        order.append(int(row["row"]))
    return order


def _vectors(path: Path, kind: str, count: int) -> list[list[float]]:
    table = _table(_numbers(WIDTHS[kind] + 1))
    found = [[float(cell) for cell in row.values()] for _, row in tabular.rows(path, table)]
    if len(found) != count:
        raise _broken(path, len(found), f"the last of {len(found)}, expected {count}")
    return found


def _broken(path: Path, row: int, found: str) -> IbmaError:
    return IbmaError(f"{path}: line {row}: {found}: {AGAIN}")
