"""Read MIMIC-CXR: radiographs of MIMIC-CXR-JPG, reports of MIMIC-CXR; five labels a study.

Layout, as PhysioNet's wget commands leave it: `mimic-cxr-jpg/2.1.0/` (tables and files/pNN/
pNNNNNNNN/sNNNNNNNN/<dicom>.jpg) and `mimic-cxr/2.1.0/mimic-cxr-reports.zip`, which stays packed.

CHOICE, where the paper says nothing: a study is a sample, with the first of its PA views in the
metadata table, else of its AP views. A study of other views alone is left out. The labels are
CheXpert's five. -1 is 1 for Edema and Atelectasis, else 0, unless `uncertain` says otherwise.
CHOICE in 5x200: up to 200 studies a label, where MedCLIP has exactly 200 pictures; of held-out
patients only.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ibma.datasets import Card, Counts, Dropped, Remote, Sample
from ibma.errors import IbmaError
from ibma.files import inside
from ibma.formats import checksums, radiology, tabular
from ibma.formats.archives import DAMAGE
from ibma.formats.raw import LINE, Unreadable, lines, present
from ibma.formats.tabular import Column, Table

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
        "Here: the official split. A sample is one study with its PA view (else AP). Studies "
        "without a frontal view or without a row of labels are listed as dropped.",
        "Option split: 5x200 tests on up to 200 studies per label that have this label alone (by "
        "negbio, and none of eight other findings; -1 is 0 in these), of validation and test "
        "patients only. No patient of theirs is in train.",
        "A label that is not mentioned counts as negative, an uncertain one (-1) as the option "
        "`uncertain` says; the paper does not say. The five labels are CheXpert's, because the "
        "paper names none for MIMIC.",
        "687 studies have labels of radiologists (mimic-cxr-2.1.0-test-set-labeled.csv), which are "
        "not used.",
        "The released ViT weights (vit-b_CXR_0.5M_mae) were trained on MIMIC's train images.",
    ),
)
FILES: tuple[Remote, ...] = ()
SPLIT_TABLE = Table(
    {
        "dicom_id": tabular.NAME,
        "study_id": tabular.INTEGER,
        "subject_id": tabular.INTEGER,
        "split": Column(values=SPLITS),
    },
    CARD.how_to_get,
    unique=("dicom_id",),
)
VIEWS = Table(
    {
        "dicom_id": tabular.NAME,
        "study_id": tabular.INTEGER,
        "subject_id": tabular.INTEGER,
        "ViewPosition": tabular.TEXT,
    },
    CARD.how_to_get,
    unique=("dicom_id",),
)
LABELS = Table(
    {"study_id": tabular.INTEGER, "subject_id": tabular.INTEGER, **radiology.COLUMNS},
    CARD.how_to_get,
    unique=("study_id",),
)
FINDINGS = replace(LABELS, columns={**LABELS.columns, **dict.fromkeys(OTHERS, radiology.LABEL)})


@dataclass
class Study:
    """A study of the split table: its patient, official split and views (name -> dicom ids)."""

    subject: str
    split: str
    views: dict[str, list[str]] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Return the patient's folder, below which images and reports lie."""
        return f"files/p{self.subject[:2]}/p{self.subject}"


def samples(
    raw: Path, *, on_bad: str = "stop", split: str = "official", uncertain: str = "mixed"
) -> Iterator[Sample | Dropped]:
    """Walk the studies in the split table's order; id = `s<study>`, group = patient.

    A study without a report keeps an empty text; one without frontal view or labels is Dropped
    whatever `on_bad` says: it is not bad.

    Args:
        raw: The raw folder.
        on_bad: Whether an image that is not there and a damaged report stop, or drop the study.
        split: `official`, or `5x200` (see the card).
        uncertain: What -1 becomes, see `radiology.positives`.

    Raises:
        IbmaError: A table or the zip is missing, malformed or of other studies; another `split` or
            `uncertain`; and (on_bad="stop") an image or report that cannot be used.
    """
    if split not in LABELLERS:
        raise IbmaError(f"params.yaml: split '{split}': expected official or 5x200")
    root, archive = _project(raw, IMAGES), _project(raw, REPORTS) / ARCHIVE
    studies = _studies(root)
    labels = _labels(_table(root, f"{LABELLERS[split]}.csv.gz"), studies, uncertain)
    if split == "5x200":
        chosen = _five_by_200(root, studies)
        _hold_out(studies, chosen)
        labels |= chosen
    texts = Counter[tuple[str, bool]]()
    with _reports(archive, studies) as reports:
        for number, study in studies.items():
            name, where = f"s{number}", SPLITS[study.split]
            dicom = next((study.views[view][0] for view in FRONTAL if view in study.views), None)
            if dicom is None or number not in labels:
                yield Dropped(name, "no frontal view" if dicom is None else "no row of labels")
                continue
            image = inside(root, f"{study.folder}/{name}/{dicom}.jpg")
            try:
                if not image.exists():
                    raise Unreadable(f"{image.name}: image listed but missing")
                text = _report(reports, f"{study.folder}/{name}.txt")
            except Unreadable as error:
                if on_bad == "stop":
                    raise IbmaError(
                        f"{image.parent}: {error}: fetch it again or set on_bad: drop"
                    ) from None
                yield Dropped(name, str(error))
                continue
            texts[where, bool(text)] += 1
            parts: dict[str, Path | str] = {"image": image, "text": text}
            yield Sample(name, where, study.subject, labels[number], parts)
    radiology.tell_empty(texts, archive)


def verify(raw: Path) -> None:
    """Check tables and reports against PhysioNet's SHA256SUMS.txt; images as they are decoded.

    Raises:
        IbmaError: One is missing, not listed there, or differs.
    """
    images, reports = _project(raw, IMAGES), _project(raw, REPORTS)
    endings = (SPLIT, METADATA, *(f"{name}.csv.gz" for name in LABELLERS.values()))
    tables = [_table(images, ending) for ending in endings]
    listed = [*_listed(images, tables), *_listed(reports, [reports / ARCHIVE])]
    checksums.verify(listed, CARD.how_to_get)


def _listed(root: Path, files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return files of a project with their digests; it must list them all."""
    sums = present(root / "SHA256SUMS.txt", CARD.how_to_get)
    paths = {path.name: path for path in files}
    digests: dict[Path, str] = {}
    with sums.open(encoding="utf-8", errors="replace") as file:
        for line in lines(file, sums):
            digest, _, name = line.strip().partition(" ")
            if path := paths.get(name.strip().rpartition("/")[2]):
                digests[path] = digest
    for path in files:
        if path not in digests:
            raise IbmaError(f"{sums}: lists no {path.name}: fetch it again: {CARD.how_to_get}")
    return list(digests.items())


def _project(raw: Path, name: str) -> Path:
    """Return the newest version's folder of one of the two PhysioNet projects."""
    versions = sorted((raw / name).glob("2.*"))
    if not versions:
        raise IbmaError(f"{raw / name}: no 2.1.0/ here: {CARD.how_to_get}")
    return versions[-1]


def _table(root: Path, ending: str) -> Path:
    """Return `mimic-cxr-2.0.0-<ending>`: the tables kept this number in release 2.1.0."""
    found = sorted(root.glob(f"mimic-cxr-2.*-{ending}")) or [root / f"mimic-cxr-2.0.0-{ending}"]
    if len(found) > 1:
        raise IbmaError(
            f"{root}: {' and '.join(path.name for path in found)}: expected one of them: remove "
            "those that are not of this release"
        )
    return found[0]


def _studies(root: Path) -> dict[str, Study]:
    """Return study number -> its patient, split and views."""
    studies: dict[str, Study] = {}
    table = _table(root, SPLIT)
    for line, row in tabular.rows(table, SPLIT_TABLE):
        found = Study(row["subject_id"], row["split"])
        if studies.setdefault(row["study_id"], found) != found:
            raise IbmaError(
                f"{table}: line {line}: study {row['study_id']} is also of another patient or "
                f"split: use the original file: {CARD.how_to_get}"
            )
    viewed = set()
    for row in _rows(_table(root, METADATA), VIEWS, studies):
        viewed.add(row["study_id"])
        if row["study_id"] in studies and row["ViewPosition"] in FRONTAL:
            views = studies[row["study_id"]].views
            views.setdefault(row["ViewPosition"], []).append(row["dicom_id"])
    tabular.refuse_no_match(studies, viewed, (table, METADATA), CARD.how_to_get)
    return studies


def _rows(path: Path, table: Table, studies: Mapping[str, Study]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table, whose patients must be those of the split table."""
    for line, row in tabular.rows(path, table):
        study = studies.get(row["study_id"])
        if study and study.subject != row["subject_id"]:
            raise IbmaError(
                f"{path}: line {line}: study {row['study_id']} is of patient {row['subject_id']}, "
                f"in {SPLIT} of {study.subject}: use the original files: {CARD.how_to_get}"
            )
        yield row


def _labels(
    table: Path, studies: Mapping[str, Study], uncertain: str
) -> dict[str, tuple[int, ...]]:
    labels = {
        row["study_id"]: radiology.positives(row, uncertain)
        for row in _rows(table, LABELS, studies)
    }
    tabular.refuse_no_match(studies, labels, (SPLIT, table), CARD.how_to_get)
    return labels


def _five_by_200(root: Path, studies: Mapping[str, Study]) -> dict[str, tuple[int, ...]]:
    """Choose studies of held-out patients with one of the five labels and no other finding.

    Returns:
        Study number -> labels, of which one is 1: here -1 is 0 whatever `uncertain` says.
    """
    columns = (*radiology.LABELS, *OTHERS)
    alone: dict[str, list[str]] = {label: [] for label in radiology.LABELS}
    for row in _rows(_table(root, "negbio.csv.gz"), FINDINGS, studies):
        study = studies.get(row["study_id"])
        found = [column for column in columns if radiology.VALUES[row[column]] == 1]
        if study and study.split != "train" and study.views and len(found) == 1:
            alone.get(found[0], []).append(row["study_id"])
    rng = np.random.default_rng(SEED)
    return {
        numbers[i]: tuple(int(label == only) for label in radiology.LABELS)
        for only, numbers in alone.items()
        for i in rng.permutation(len(numbers))[:PER_CLASS].tolist()
    }


def _hold_out(studies: Mapping[str, Study], chosen: Collection[str]) -> None:
    """Test on the chosen studies alone; neither train nor test on others of held-out patients."""
    patients = {studies[number].subject for number in chosen}
    for number, study in studies.items():
        if number in chosen:
            study.split = "test"
        elif study.split == "test" or study.subject in patients:
            study.split = "validate"


def _reports(path: Path, studies: Mapping[str, Study]) -> zipfile.ZipFile:
    """Open the archive of reports, which stays packed."""
    present(path, CARD.how_to_get)
    try:
        reports = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise IbmaError(f"{path}: {error}: fetch it again: {CARD.how_to_get}") from None
    names = set(reports.namelist())
    for split in SPLITS:
        expected = (
            f"{study.folder}/s{number}.txt"
            for number, study in studies.items()
            if study.split == split
        )
        sides = (f"{SPLIT}, split {split}", path)
        tabular.refuse_no_match(expected, names, sides, CARD.how_to_get)
    return reports


def _report(reports: zipfile.ZipFile, name: str) -> str:
    try:
        if reports.getinfo(name).file_size > LINE:
            raise Unreadable(f"{name}: longer than {LINE:,} characters")
        words = reports.read(name)
    except KeyError:
        return ""
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise Unreadable(f"{name}: damaged ({error})") from None
    if b"\0" in words:
        raise Unreadable(f"{name}: a NUL character: no UTF-8 text")
    return radiology.report_text(words.decode("utf-8", errors="replace"))
