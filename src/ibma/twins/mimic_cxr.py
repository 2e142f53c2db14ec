"""Generate a twin of MIMIC-CXR: grey pictures with blobs, reports with words, two projects.

Each of five findings is present with probability .35. Its blob is in the picture with probability
.8 if present, .1 if not; its word is in the report with .8 / .1. Irrelevant variation: brightness
and gradient of the picture, filler words of the report. One label in twenty is flipped in train,
none in test; others of train are uncertain (-1) or not mentioned (empty).

Chance AUROC .5; one modality alone at best .85, both .94 (two independent 0.8/0.1 signals).

Deliberate faults: a study of two views, one lateral only, one whose jpg is missing, one truncated;
without label rows, with an empty one, without report; reports with impression only, findings only,
neither, an addendum on top, a header with a slip, one header for both; `___`. Numbers of patients
and studies lie where PhysioNet has none.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma.twins import radiographs

JPG, REPORTS = "mimic-cxr-jpg/2.1.0", "mimic-cxr/2.1.0"
LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum"),
    *("Fracture", "Lung Lesion", "Lung Opacity", "Pleural Effusion", "Pneumonia", "Pneumothorax"),
    *("Pleural Other", "Support Devices", "No Finding"),
)
DRAWN = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
METADATA = (
    *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription"),
    *("ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime"),
    *("ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning"),
    "PatientOrientationCodeSequence_CodeMeaning",
)
STUDIES = {"train": 104, "validate": 10, "test": 50}  # two of each patient
FIRST_SUBJECT, FIRST_STUDY = 19_990_000, 59_990_000
HEIGHT, WIDTH = 64, 80
# places of the traps among the training studies
TWO_VIEWS, LATERAL, MISSING, TRUNCATED, UNLABELLED, EMPTY, NO_REPORT = range(7)
IMPRESSION_ONLY, FINDINGS_ONLY, NEITHER, ADDENDUM, SLIP, BOTH = range(7, 13)
UNCERTAIN = 20  # this study and the next four are uncertain in one label each


@dataclass(frozen=True)
class Study:
    """One study; place counts within its split, images are (dicom, view)."""

    subject: int
    number: int
    split: str
    place: int
    truth: NDArray[np.bool_]
    images: tuple[tuple[str, str], ...]

    @property
    def folder(self) -> str:
        """Return where its images lie; its report lies beside this folder."""
        return f"files/p{str(self.subject)[:2]}/p{self.subject}/s{self.number}"

    def is_trap(self, place: int) -> bool:
        """Return whether this is the training study at `place`."""
        return self.split == "train" and self.place == place


def write(raw: Path) -> None:
    """Write both projects below `raw`; the bytes depend on code and Pillow alone."""
    rng = np.random.default_rng(20191212)
    studies = list(_studies(rng))
    jpg, reports = raw / JPG, raw / REPORTS
    for folder in (jpg, reports):
        folder.mkdir(parents=True, exist_ok=True)
    for study in studies:
        _write_images(jpg, study, rng)
    _write_tables(jpg, studies, rng)
    _write_reports(reports / "mimic-cxr-reports.zip", studies, rng)
    for folder in (jpg, reports):
        _write_sums(folder)


def _studies(rng: np.random.Generator) -> Iterable[Study]:
    number = 0
    for split, count in STUDIES.items():
        for place in range(count):
            views: tuple[str, ...] = (("PA", "AP")[place % 2],)
            if split == "train" and place in (TWO_VIEWS, LATERAL):
                views = ("LATERAL", "AP", "PA") if place == TWO_VIEWS else ("LATERAL",)
            images = tuple((_dicom(rng), view) for view in views)
            subject = FIRST_SUBJECT + number // 2
            truth = radiographs.findings(rng)
            yield Study(subject, FIRST_STUDY + number, split, place, truth, images)
            number += 1


def _dicom(rng: np.random.Generator) -> str:
    """Draw a name of five groups of eight hex digits."""
    digits = rng.bytes(20).hex()
    return "-".join(digits[start : start + 8] for start in range(0, 40, 8))


def _write_images(root: Path, study: Study, rng: np.random.Generator) -> None:
    if study.is_trap(MISSING):
        return
    shown = radiographs.noticed(study.truth, rng)
    for dicom, _ in study.images:
        path = root / study.folder / f"{dicom}.jpg"
        radiographs.write_radiograph(path, shown, HEIGHT, WIDTH, rng)
        if study.is_trap(TRUNCATED):
            path.write_bytes(path.read_bytes()[:200])


def _write_tables(root: Path, studies: Sequence[Study], rng: np.random.Generator) -> None:
    images = [(study, dicom, view) for study in studies for dicom, view in study.images]
    split = [(dicom, s.number, s.subject, s.split) for s, dicom, _ in images]
    _write_gz(root, "split", ("dicom_id", "study_id", "subject_id", "split"), split)
    metadata = [
        (d, s.subject, s.number, "CHEST", view, HEIGHT, WIDTH, 21800101, "0", "", "", "")
        for s, d, view in images
    ]
    _write_gz(root, "metadata", METADATA, metadata)
    labels = [(s.subject, s.number, *_labels(s, rng)) for s in studies if not s.is_trap(UNLABELLED)]
    for labeller in ("chexpert", "negbio"):
        _write_gz(root, labeller, ("subject_id", "study_id", *LABELS), labels)
    names = [f"{s.folder}/{dicom}.jpg\n" for s, dicom, _ in images]
    (root / "IMAGE_FILENAMES").write_text("".join(names))
    airspace = [label.replace("Lung Opacity", "Airspace Opacity") for label in LABELS]
    radiologist = [(s.number, *("0",) * 14) for s in studies if s.split == "test"]
    table = root / "mimic-cxr-2.1.0-test-set-labeled.csv"
    table.write_bytes(_csv(("study_id", *airspace), radiologist))


def _labels(study: Study, rng: np.random.Generator) -> list[str]:
    """Return a row's 14 cells: the five drawn findings, the others negative or empty."""
    train = study.split == "train"
    flipped = study.truth ^ (train & (rng.random(5) < 0.05))
    cells = dict.fromkeys(LABELS, "")
    for i, name in enumerate(DRAWN):
        silent = train and not flipped[i] and rng.random() < 0.3
        cells[name] = "" if silent else ("1.0" if flipped[i] else "0.0")
        if study.is_trap(UNCERTAIN + i):
            cells[name] = "-1.0"
    return [""] * 14 if study.is_trap(EMPTY) else list(cells.values())


def _write_reports(path: Path, studies: Sequence[Study], rng: np.random.Generator) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for study in studies:
            text = _report(study, rng)
            if not study.is_trap(NO_REPORT):
                # a fixed time: the bytes stay the same
                package.writestr(zipfile.ZipInfo(f"{study.folder}.txt"), text)


def _report(study: Study, rng: np.random.Generator) -> str:
    findings, impression = radiographs.sentences(radiographs.noticed(study.truth, rng), rng)
    title = " " * 33 + "FINAL REPORT\n EXAMINATION:  CHEST (PA)\n \n COMPARISON:  ___ of ___.\n \n"
    first = f" FINDINGS:\n \n {findings} on ___\n \n"
    second = f" IMPRESSION:\n \n {impression}\n"
    bodies = {
        IMPRESSION_ONLY: second,
        FINDINGS_ONLY: first,
        NEITHER: f" {findings} {impression}\n",
        SLIP: first + second.replace("IMPRESSION", "IMPRESSON"),
        BOTH: f" FINDINGS AND IMPRESSION:\n \n {findings} {impression}\n",
    }
    text = title + bodies.get(study.place if study.split == "train" else -1, first + second)
    if study.is_trap(ADDENDUM):
        text = f" ADDENDUM:\n IMPRESSION:  see below.\n {'_' * 70}\n{text}"
    return text


def _write_gz(
    root: Path, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    path = root / f"mimic-cxr-2.0.0-{name}.csv.gz"
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write(_csv(header, rows))


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()


def _write_sums(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "SHA256SUMS.txt"
    ]
    (folder / "SHA256SUMS.txt").write_text("".join(lines))


def region(picture: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    """Return where the blob of a finding is drawn, if it is."""
    return radiographs.region(picture.shape[-1], label, HEIGHT, WIDTH)
