"""Read a part of PAD-UFES-20: smartphone photographs of skin lesions, and patients' histories.

Layout: `images/<img_id>` and `metadata.csv`, as sanderengel/fyp2023@775c537 holds the 686 lesions
that have a mask there. Folds leave patients out: run k tests on fold k mod 5.
"""

from __future__ import annotations

import lzma
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ibma.datasets import Card, Counts, Dropped, Remote, Sample
from ibma.errors import IbmaError
from ibma.files import inside
from ibma.formats import tabular
from ibma.formats.tabular import Column, Table

FOLDS = 5
CLASSES = {
    "BCC": "basal cell carcinoma",
    "NEV": "nevus",
    "SEK": "seborrheic keratosis",
    "ACK": "actinic keratosis",
    "MEL": "melanoma",
    "SCC": "squamous cell carcinoma",
}
REGIONS = (
    *("ABDOMEN", "ARM", "BACK", "CHEST", "EAR", "FACE", "FOOT"),
    *("FOREARM", "HAND", "LIP", "NECK", "NOSE", "SCALP", "THIGH"),
)
SIGNS = ("itch", "grew", "hurt", "changed", "bleed", "elevation")
TOLD = {"True": 1.0, "False": -1.0, "UNK": 0.0}  # CHOICE: nothing marks what is not known

CARD = Card(
    title="PAD-UFES-20 (part)",
    kind="classify",
    classes=tuple(CLASSES.values()),
    modalities={"image": "image", "history": "vector"},
    licence="CC BY 4.0",
    access="open",
    raw_gb=0.1,
    official=Counts(2298, None),
    folds=FOLDS,
    cite="A. G. C. Pacheco et al., PAD-UFES-20: a skin lesion dataset composed of patient data and "
    "clinical images collected from smartphones, Data in Brief 32, 2020 (Mendeley zr7vgbcyr2).",
    how_to_get="fetched from github.com/sanderengel/fyp2023, or from IBMA_MIRROR",
    notes=(
        "Not in the paper. 686 of the publisher's 2,298 photographs, 300 x 300 pixels; larger ones "
        "are at the publisher's address.",
        "There is no official split. CHOICE: five folds by patient, stratified by class "
        "(StratifiedGroupKFold of scikit-learn, seed 0).",
        "Leak: thirteen columns of the anamnesis are empty for most lesions that were not "
        "biopsied, so missing values reveal the class (AUC .68). The eight columns used here "
        "are filled in for all: age, region, itch, grew, hurt, changed, bleed, elevation.",
    ),
)
_GIT = (
    "https://raw.githubusercontent.com/sanderengel/fyp2023/"
    "775c5379b55fc541a4a6dbd519313a7179358bf4/"
)
_LISTED = lzma.decompress(Path(__file__).with_name("pad_ufes.sha256.xz").read_bytes()).decode()
METADATA = "metadata.csv"
FILES = (
    Remote(
        f"{_GIT}metadata_withmasks.csv",
        "9e6be2d87f6562685225098d5822cae9146f172fa2efd79a022de6f898388c4b",
        METADATA,
    ),
    *(
        Remote(f"{_GIT}images/img/{name}", digest, f"images/{name}")
        for digest, name in (line.split() for line in _LISTED.splitlines())
    ),
)
ADVICE = "run `dvc repro -f download@pad_ufes`"
LESIONS = Table(
    {
        "img_id": tabular.NAME,
        "patient_id": tabular.NAME,
        "diagnostic": Column(values=tuple(CLASSES)),
        "age": Column("number", low=0, high=120),
        "region": Column(values=REGIONS),
        "mask": Column(values=("0", "1")),
    }
    | dict.fromkeys(SIGNS, Column(values=tuple(TOLD))),
    ADVICE,
    unique=("img_id",),
)


def samples(raw: Path, *, on_bad: str = "stop") -> Iterator[Sample | Dropped]:
    """Walk the lesions with a photograph in the order of their names; group = patient.

    Raises:
        IbmaError: The table is malformed, or has too few lesions with a mask; or (on_bad="stop") a
            photograph is missing.
    """
    rows = [row for _, row in tabular.rows(raw / METADATA, LESIONS) if row["mask"] == "1"]
    _check_counts(rows, raw / METADATA)
    rows.sort(key=lambda row: row["img_id"])
    for row, fold in zip(rows, _folds(rows), strict=True):
        picture = inside(raw / "images", row["img_id"])
        if not picture.exists():
            if on_bad == "stop":
                raise IbmaError(f"{picture}: missing, {METADATA} names it: {ADVICE}")
            yield Dropped(row["img_id"], "no photograph")
            continue
        label = list(CLASSES).index(row["diagnostic"])
        parts: dict[str, Path | tuple[float, ...]] = {"image": picture, "history": history(row)}
        yield Sample(row["img_id"], f"fold{fold}", row["patient_id"], label, parts)


def history(row: dict[str, str]) -> tuple[float, ...]:
    """Return age in centuries, the region as one of 14, and six signs: yes 1, no -1, unknown 0."""
    region = [float(row["region"] == name) for name in REGIONS]
    return (float(row["age"]) / 100, *region, *(TOLD[row[sign]] for sign in SIGNS))


def _check_counts(rows: list[dict[str, str]], path: Path) -> None:
    """Raise an error unless every fold can have a patient and a lesion of each class."""
    counts = Counter(row["diagnostic"] for row in rows)
    found = {f"lesions of class {name}": counts[name] for name in CLASSES}
    found["patients"] = len({row["patient_id"] for row in rows})
    for what, count in found.items():
        if count < FOLDS:
            raise IbmaError(
                f"{path}: {count} {what} with mask 1: expected {FOLDS} or more, one for each fold: "
                f"{ADVICE}"
            )


def _folds(rows: list[dict[str, str]]) -> list[int]:
    """Return the test fold of every lesion; a patient is in one fold."""
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    folds = np.zeros(len(rows), dtype=int)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    labels = [row["diagnostic"] for row in rows]
    groups = [row["patient_id"] for row in rows]
    for fold, (_, test) in enumerate(splitter.split(labels, labels, groups)):
        folds[test] = fold
    return [int(fold) for fold in folds]
