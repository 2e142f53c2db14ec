"""Read CMU-MOSI as open features with video, on the split whose training labels the video saw.

Files: see `ibma.formats.mosi`. The split is declare-lab's own: 1,447 and 752 utterances of 62
and 31 videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ibma.datasets import Card, Counts, Dropped, Part, Remote, Sample
from ibma.formats import mosi

CARD = Card(
    title="CMU-MOSI (open features, with video)",
    kind="sentiment",
    classes=("-3", "-2", "-1", "0", "1", "2", "3"),
    modalities={"text": "text", "audio": "vector", "video": "vector"},
    licence="no agreement found; opinion videos from YouTube, research use",
    access="open",
    raw_gb=0.007,
    official=Counts(1447, 752),
    cite="A. Zadeh et al., MOSI: Multimodal corpus of sentiment intensity and subjectivity "
    "analysis in online opinion videos, arXiv 1606.06259.",
    how_to_get="fetched from GitHub (7 MB), or from IBMA_MIRROR",
    notes=(
        "Not the standard split and not comparable with published numbers on it.",
        "The video is 100 numbers per utterance from a 3D-CNN that was trained on the labels of "
        "these 1,447 training utterances. No test label went into a feature, so the test is sound. "
        "But the video features predict the training labels far better than the test labels, which "
        "misleads methods that rely on them. Cross-validation inside training is too optimistic, "
        "because the 3D-CNN saw the held-out labels too. On the standard split the test itself "
        "would leak; see `mosi_features`.",
    ),
)
FILES = tuple(Remote(*file) for file in (*mosi.FILES, *mosi.VIDEO_FILES))


def samples(raw: Path, *, on_bad: str = "stop") -> Iterator[Sample | Dropped]:
    """Walk the utterances; text = the words (upper case), audio [73], video [100], group = video.

    Nothing is ever dropped: the files were checked by sha256, and what contradicts them stops.

    Raises:
        IbmaError: As `mosi.utterances`.
    """
    for said in mosi.utterances(raw, ("audio", "video")):
        parts: dict[str, Part] = {"text": said.words, **said.vectors}
        yield Sample(said.id, said.split, said.video, said.score, parts)
