"""MIMIC-CXR: radiographs of MIMIC-CXR-JPG with the reports of MIMIC-CXR; five labels a study.

Layout, as PhysioNet's wget commands leave it: `mimic-cxr-jpg/2.1.0/` (tables and files/pNN/
pNNNNNNNN/sNNNNNNNN/<dicom>.jpg) and `mimic-cxr/2.1.0/mimic-cxr-reports.zip`, which stays packed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ibma.datasets import Card, Counts, Dropped, Remote, Sample
from ibma.errors import IbmaError
from ibma.formats import checksums, radiology, tabular

IMAGES, REPORTS = "mimic-cxr-jpg", "mimic-cxr"
SPLIT, METADATA, ARCHIVE = "split.csv.gz", "metadata.csv.gz", "mimic-cxr-reports.zip"
LABELLERS = {"official": "chexpert", "5x200": "negbio"}  # whose labels an option takes
SPLITS = {"train": "train", "validate": "valid", "test": "test"}
FRONTAL = ("PA", "AP")  # in order of preference
# the findings that a study of 5x200 must lack, beside four of the five labels
OTHERS = (
    *("Enlarged Cardiomediastinum", "Fracture", "Lung Lesion", "Lung Opacity", "Pneumonia"),
    *("Pneumothorax", "Pleural Other", "Support Devices"),
)
PER_CLASS, SEED = 200, 42

CARD = Card(
    title="MIMIC-CXR",
    kind="multilabel",
    classes=radiology.LABELS,
    modalities={"image": "image", "text": "text"},
    licence="PhysioNet Credentialed Health Data License and Use Agreement 1.5.0: no part may be "
    "shared",
    access="request",
    raw_gb=570.0,
    paper=Counts(227_835, 1000),
    official=Counts(None, None),
    cite="A. E. W. Johnson et al., MIMIC-CXR-JPG, a large publicly available database of labeled "
    "chest radiographs, arXiv 1901.07042; the same authors, MIMIC-CXR, PhysioNet.",
    how_to_get=(
        "get credentialed at PhysioNet (CITI certificate), sign the agreements of "
        "https://physionet.org/content/mimic-cxr-jpg/2.1.0/ and of "
        "https://physionet.org/content/mimic-cxr/2.1.0/, then in data/raw/mimic_cxr run `wget -r -N"
        " -c -np -nH --cut-dirs=1 --user NAME --ask-password` on https://physionet.org/files/"
        "mimic-cxr-jpg/2.1.0/ (570 GB) and on https://physionet.org/files/mimic-cxr/2.1.0/"
        + ARCHIVE
    ),
    notes=(
        "Table 1's 227,835 are all studies of all splits, so the paper's training data holds its "
        "test data as written. Its 1,000 are probably MedCLIP's MIMIC-5x200 (images, drawn from "
        "all splits, seed 42); which ones cannot be recovered.",
        "Here: the official split, a study a sample, its PA view (else AP); studies without a "
        "frontal view or without a row of labels are listed as dropped.",
        "Option split: 5x200 tests on up to 200 studies per label that have this label alone (by "
        "negbio, and none of eight other findings), of validation and test patients only, so that "
        "no test patient is in train.",
        "Not mentioned counts as negative; uncertain (-1) as the option `uncertain` says; the "
        "paper does not say. The five labels are CheXpert's: the paper names none for MIMIC.",
        "687 studies have radiologists' labels (mimic-cxr-2.1.0-test-set-labeled.csv); unused.",
        "The released ViT weights (vit-b_CXR_0.5M_mae) were trained on MIMIC's train images.",
    ),
)
FILES: tuple[Remote, ...] = ()


@dataclass
class Study:
    """A study of the split table: its patient, official split and views (name -> dicom ids)."""

    subject: str
    split: str
    views: dict[str, list[str]] = field(default_factory=dict)


def samples(
    raw: Path, *, on_bad: str = "stop", split: str = "official", uncertain: str = "mixed"
) -> Iterator[Sample | Dropped]:
    """Walk the studies in the split table's order; id = `s<study>`, group = patient.

    split: `official`, or `5x200` (see the card). uncertain: see `radiology.positives`. A study
    without a report keeps an empty text; one without frontal view or labels is Dropped whatever
    `on_bad` says: it is not bad.

    Raises IbmaError naming the file: a table or the zip that is missing or of another form, another
    `split` or `uncertain`, and (on_bad="stop") a listed image that is not there.
    """
    if split not in LABELLERS:
        raise IbmaError(f"params.yaml: split '{split}': expected official or 5x200")
    root = _project(raw, IMAGES)
    labels = _labels(_table(root, f"{LABELLERS[split]}.csv.gz"), uncertain)
    studies = _studies(root)
    chosen = _five_by_200(root, studies) if split == "5x200" else None
    with _reports(_project(raw, REPORTS) / ARCHIVE) as reports:
        for number, study in studies.items():
            name, folder = f"s{number}", f"files/p{study.subject[:2]}/p{study.subject}"
            dicom = next((study.views[view][0] for view in FRONTAL if view in study.views), None)
            if dicom is None or number not in labels:
                yield Dropped(name, "no frontal view" if dicom is None else "no row of labels")
                continue
            image = root / folder / name / f"{dicom}.jpg"
            if not image.exists():
                if on_bad == "stop":
                    raise IbmaError(
                        f"{image}: missing, but listed in {METADATA}: fetch it again or set "
                        "on_bad: drop"
                    )
                yield Dropped(name, f"{image.name}: image listed but missing")
                continue
            text = _report(reports, f"{folder}/{name}.txt")
            where = SPLITS[study.split] if chosen is None else _part(number, study, chosen)
            parts: dict[str, Path | str] = {"image": image, "text": text}
            yield Sample(name, where, study.subject, labels[number], parts)


def verify(raw: Path) -> None:
    """Check tables and reports against PhysioNet's SHA256SUMS.txt; images as they are decoded.

    Raises IbmaError when one is missing or differs.
    """
    tables = (SPLIT, METADATA, *(f"{name}.csv.gz" for name in LABELLERS.values()))
    read = {IMAGES: tables, REPORTS: (ARCHIVE,)}
    listed = [
        entry
        for project, endings in read.items()
        for entry in _listed(_project(raw, project) / "SHA256SUMS.txt", endings)
    ]
    checksums.verify(listed, CARD.how_to_get)


def _listed(sums: Path, endings: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """The files of one project that end so, with their digests."""
    if not sums.exists():
        raise IbmaError(f"{sums}: missing: {CARD.how_to_get}")
    with sums.open(encoding="utf-8") as lines:
        for line in lines:
            digest, name = line.split(maxsplit=1)
            if name.strip().endswith(endings):
                yield sums.parent / name.strip(), digest


def _project(raw: Path, name: str) -> Path:
    """The newest version's folder of one of the two PhysioNet projects."""
    versions = sorted((raw / name).glob("2.*"))
    if not versions:
        raise IbmaError(f"{raw / name}: no 2.1.0/ here: {CARD.how_to_get}")
    return versions[-1]


def _table(root: Path, ending: str) -> Path:
    """`mimic-cxr-2.0.0-<ending>`: the tables kept this number in release 2.1.0."""
    return next(iter(sorted(root.glob(f"mimic-cxr-2.*-{ending}"))), root / ending)


def _studies(root: Path) -> dict[str, Study]:
    """Study number -> its patient, split and views."""
    studies: dict[str, Study] = {}
    table = _table(root, SPLIT)
    for line, row in tabular.rows(table, ("study_id", "subject_id", "split"), CARD.how_to_get):
        if row["split"] not in SPLITS:
            raise IbmaError(
                f"{table}: line {line}: split '{row['split']}': expected train, validate or test"
            )
        studies.setdefault(row["study_id"], Study(row["subject_id"], row["split"]))
    table = _table(root, METADATA)
    for _, row in tabular.rows(table, ("dicom_id", "study_id", "ViewPosition"), CARD.how_to_get):
        if row["study_id"] in studies and row["ViewPosition"] in FRONTAL:
            views = studies[row["study_id"]].views
            views.setdefault(row["ViewPosition"], []).append(row["dicom_id"])
    return studies


def _labels(table: Path, uncertain: str) -> dict[str, tuple[int, ...]]:
    columns = ("study_id", *radiology.LABELS)
    return {
        row["study_id"]: radiology.positives(row, uncertain, f"{table}: line {line}")
        for line, row in tabular.rows(table, columns, CARD.how_to_get)
    }


def _five_by_200(root: Path, studies: Mapping[str, Study]) -> set[str]:
    """Studies of held-out patients with one of the five labels and no other finding."""
    table = _table(root, "negbio.csv.gz")
    columns = (*radiology.LABELS, *OTHERS)
    alone: dict[str, list[str]] = {label: [] for label in radiology.LABELS}
    for line, row in tabular.rows(table, ("study_id", *columns), CARD.how_to_get):
        study = studies.get(row["study_id"])
        found = [c for c in columns if radiology.mentioned(row[c], f"{table}: line {line}") == 1]
        if study and study.split != "train" and study.views and len(found) == 1:
            alone.get(found[0], []).append(row["study_id"])
    rng = np.random.default_rng(SEED)
    return {
        numbers[i]
        for numbers in alone.values()
        for i in rng.permutation(len(numbers))[:PER_CLASS].tolist()
    }


def _part(number: str, study: Study, chosen: set[str]) -> str:
    if number in chosen:
        return "test"
    return "train" if study.split == "train" else "valid"


def _reports(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise IbmaError(f"{path}: missing: {CARD.how_to_get}") from None
    except zipfile.BadZipFile as error:
        raise IbmaError(f"{path}: {error}: fetch it again: {CARD.how_to_get}") from None


def _report(reports: zipfile.ZipFile, name: str) -> str:
    try:
        words = reports.read(name)
    except KeyError:
        return ""
    return radiology.report_text(words.decode("utf-8", errors="replace"))
