"""Read CREMA-D: acted audio-visual emotions, 91 actors, 12 sentences, 6 emotions.

Layout: CheyneyComputerScience/CREMA-D@1658cd3 (`AudioWAV/`, `VideoFlash/`) and the clip lists of
GeWu-Lab/OGM-GE_CVPR2022@343dc1d (`OGM/{train,test}.csv`, no header, CRLF). A clip's label is the
acted emotion in its name, not the crowd's vote.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from pathlib import Path

from ibma.datasets import Card, Counts, Dropped, Remote, Sample
from ibma.errors import IbmaError
from ibma.formats import checksums, tabular
from ibma.formats.tabular import Column, Table

LISTS = (
    "https://raw.githubusercontent.com/GeWu-Lab/OGM-GE_CVPR2022/"
    "343dc1d95c9bda88f105c0da8d24f185e0e98b54/data/CREMAD/"
)

CARD = Card(
    title="CREMA-D",
    kind="classify",
    classes=("NEU", "HAP", "SAD", "FEA", "DIS", "ANG"),
    modalities={"audio": "audio", "visual": "frames"},
    licence="ODbL 1.0 and DbCL 1.0",
    access="open",
    raw_gb=3.0,
    paper=Counts(6698, 744),
    official=Counts(6698, 744),
    cite="H. Cao et al., CREMA-D: Crowd-sourced emotional multimodal actors dataset, "
    "IEEE Trans. Affective Computing 5(4), 2014.",
    how_to_get=(
        "fill the authors' form (in their README), then in data/raw/crema_d: "
        "GIT_LFS_SKIP_SMUDGE=1 git clone https://github.com/CheyneyComputerScience/CREMA-D.git && "
        'cd CREMA-D && git lfs pull -I "AudioWAV/*,VideoFlash/*" '
        "(3 GB; a zip download holds only pointers)"
    ),
    notes=(
        "The counts are those of OGM-GE's lists; the lists, not the release, define the split.",
        "All 91 actors are in both splits: it is not speaker-independent. No validation split.",
        "Known glitches, all in train and kept: 1076_MTI_SAD_XX (silent wav, error picture), "
        "1076_MTI_NEU_XX (very short flv), 1064_TIE_SAD_XX (no duration), 1064_IEO_DIS_MD "
        "(one minute long).",
        "The paper says log-mel spectrograms, OGM-GE uses plain log-STFT: see `spectrogram`.",
    ),
)
CHECKSUMS = Path(__file__).with_name("crema_d.sha256.xz")  # as `sha256sum` prints them
CLIP = re.compile(r"\d{4}_[A-Z]{3}_([A-Z]{3})_[A-Z]{2}")  # actor, sentence, emotion, level
LISTED = Table(
    {"clip": tabular.NAME, "label": Column(values=CARD.classes)},
    "run `dvc repro -f download@crema_d`",
    unique=("clip",),
    header=False,
)
PLACED = ("AudioWAV", "CREMA-D/AudioWAV")
FILES = (
    Remote(
        LISTS + "train.csv",
        "68d0d3fd253830328fc92c68f3cf2e215db8c5b86757ad9c5112d2c76ba68bde",
        "OGM/train.csv",
    ),
    Remote(
        LISTS + "test.csv",
        "14866c99301fd56fb4a16f8a7048a8a6372a47069aee9f216443bc718be45f1f",
        "OGM/test.csv",
    ),
)


def verify(raw: Path) -> None:
    """Check all 14,884 media files against the release's git-lfs pointers (at 1658cd3).

    Raises:
        IbmaError: Files are missing or differ, pointers included; it counts them.
    """
    listed = lzma.decompress(CHECKSUMS.read_bytes()).decode().splitlines()
    pairs = (line.split(maxsplit=1) for line in listed)
    checksums.verify([(_media(raw) / path, digest) for digest, path in pairs], CARD.how_to_get)


def _media(raw: Path) -> Path:
    """Return the clone's folder, or the raw folder itself."""
    return raw / "CREMA-D" if (raw / "CREMA-D").is_dir() else raw


def samples(raw: Path, *, on_bad: str = "stop") -> Iterator[Sample | Dropped]:
    """Walk OGM's lists in order; group = actor.

    Media lie in `AudioWAV/` and `VideoFlash/` below `raw` or below `raw/CREMA-D`.

    Raises:
        IbmaError: A list is missing or malformed, a name is no CREMA-D clip, a label contradicts
            it, or (on_bad="stop") a clip has no media.
    """
    media = _media(raw)
    for split in ("train", "test"):
        for line, clip, label in _listed(raw / "OGM" / f"{split}.csv"):
            parts = {
                "audio": media / "AudioWAV" / f"{clip}.wav",
                "visual": media / "VideoFlash" / f"{clip}.flv",
            }
            missing = [path for path in parts.values() if not path.exists()]
            if not missing:
                yield Sample(clip, split, clip[:4], CARD.classes.index(label), parts)
            elif on_bad == "drop":
                yield Dropped(clip, f"{missing[0].name}: missing")
            else:
                raise IbmaError(
                    f"{missing[0]}: missing, but listed in OGM/{split}.csv line {line}: "
                    f"{CARD.how_to_get}"
                )


def _listed(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, clip, label)."""
    for line, row in tabular.rows(path, LISTED):
        name = CLIP.fullmatch(row["clip"])
        if name is None or name[1] != row["label"]:
            raise IbmaError(
                f"{path}: line {line}: label '{row['label']}' contradicts name '{row['clip']}': "
                "expected 'AAAA_SSS_EEE_LL,EEE'"
            )
        yield line, row["clip"], row["label"]
