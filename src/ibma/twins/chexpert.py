"""Generate a twin of CheXpert with reports: grey pictures with blobs, reports with words.

Each of five findings is 1 with probability .35. Its blob (a place per finding) is in the picture
with probability .8 if positive, .1 if not; its word is in the report with probability .8 / .1, so
each modality alone shows a part of it. Irrelevant variation: brightness and gradient of the
picture, filler words of the report. One training label in twenty is flipped, others are made
uncertain (-1) or not mentioned (empty).

Chance AUROC .5; one modality alone at best .85, both .94 (two independent 0.8/0.1 signals).

Deliberate faults: -1 in each label, empty labels, a lateral view in each split, Sex Unknown, Age 0,
AP/PA empty, a report with newlines and quotes, null findings, null impression, a literal
backslash-n, capitals, a training image without report, an image listed but missing, a truncated
jpg, images in the full release's batch folders, and a label (Consolidation) that no validation
image has.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma.twins import radiographs

ROOT = "CheXpert-v1.0-small"
OTHER = [
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
    *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", "Support Devices"),
]
HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OTHER]
LABELS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
PLUS = [
    *("path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id"),
    *("patient_report_date_order", "report", "section_narrative", "section_clinical_history"),
    *("section_history", "section_comparison", "section_technique", "section_procedure_comments"),
    *("section_findings", "section_impression", "section_end_of_impression", "section_summary"),
    *("section_accession_number", "age", "sex", "race", "ethnicity", "interpreter_needed"),
    *("insurance_type", "recent_bmi", "deceased", "split"),
]
TRAIN, VALID = 120, 60
HEIGHT, WIDTH = 64, 78
# places of the traps among the training images; a validation image is lateral, too
NO_REPORT, MISSING, TRUNCATED, LATERAL = 3, 5, 7, 9
QUOTED, NO_FINDINGS, NO_IMPRESSION, BACKSLASH_N, CAPITALS = 11, 13, 15, 17, 19
BATCH = (21, 22)  # these two lie in a batch folder


def write(raw: Path) -> None:
    """Write csv files, images and reports below `raw`; the bytes are a function of the code."""
    rng = np.random.default_rng(20190131)
    reports: list[dict[str, str]] = []
    for split, count, first in (("train", TRAIN, 1), ("valid", VALID, 64_541)):
        rows = [_row(raw, split, place, first, rng, reports) for place in range(count)]
        _write_csv(raw / ROOT / f"{split}.csv", HEADER, rows)
    _write_csv(raw / "df_chexpert_plus_240401.csv", PLUS, reports)
    labels = raw / "chexbert_labels"
    labels.mkdir(exist_ok=True)
    lines = [json.dumps({"path_to_image": row["path_to_image"], "Edema": None}) for row in reports]
    (labels / "findings_fixed.json").write_text("\n".join(lines) + "\n")


def _row(
    raw: Path,
    split: str,
    place: int,
    first: int,
    rng: np.random.Generator,
    reports: list[dict[str, str]],
) -> dict[str, Any]:
    """Write one image and its report; return its line of train.csv or valid.csv."""
    train = split == "train"
    truth = radiographs.findings(rng)
    if not train:
        truth[LABELS.index("Consolidation")] = False
    key = f"{split}/patient{first + place // 2:05d}/study{1 + place % 2}/view1_frontal.jpg"
    lateral = place == LATERAL
    if lateral:
        key = key.replace("view1_frontal", "view2_lateral")
    if not (train and place == MISSING):
        file = _place(raw, key, train and place in BATCH)
        radiographs.write_radiograph(file, radiographs.noticed(truth, rng), HEIGHT, WIDTH, rng)
    if train and place == TRUNCATED:
        file = raw / ROOT / key
        file.write_bytes(file.read_bytes()[:200])
    if not (train and place == NO_REPORT):
        reports.append(_report(key, split, place if train else -1, truth, rng))
    return {
        "Path": f"{ROOT}/{key}",
        "Sex": "Unknown" if place == 0 else ("Female", "Male")[place % 2],
        "Age": 0 if place == 1 else 40 + place % 50,
        "Frontal/Lateral": "Lateral" if lateral else "Frontal",
        "AP/PA": "" if lateral else ("AP", "PA")[place % 2],
        **_labels(truth, place, train, rng),
    }


def _labels(truth: NDArray[np.bool_], place: int, train: bool, rng: Any) -> dict[str, str]:
    values = {}
    for i, name in enumerate(LABELS):
        value = bool(truth[i]) ^ bool(train and rng.random() < 0.05)
        values[name] = "1.0" if value else "0.0"
        if train and place == 30 + i:
            values[name] = "-1.0"
        elif train and not value and rng.random() < 0.3:
            values[name] = ""
    return values


def _place(raw: Path, key: str, in_batch: bool) -> Path:
    if in_batch:
        return raw / "CheXpert-v1.0 batch 2 (train 1)" / key.split("/", 1)[1]
    return raw / ROOT / key


def _report(
    key: str, split: str, place: int, truth: NDArray[np.bool_], rng: np.random.Generator
) -> dict[str, str]:
    findings, impression = radiographs.sentences(radiographs.noticed(truth, rng), rng)
    if place == QUOTED:
        findings = f'the "{findings}"\nsecond line, with comma'
    elif place == NO_FINDINGS:
        findings = ""
    elif place == NO_IMPRESSION:
        impression = ""
    elif place == BACKSLASH_N:
        findings = "\\n"
    elif place == CAPITALS:
        findings, impression = findings.upper(), impression.upper()
    return dict.fromkeys(PLUS, "") | {
        "path_to_image": key,
        "frontal_lateral": "Frontal",
        "deid_patient_id": key.split("/")[1],
        "report": f"{findings} {impression}",
        "section_findings": findings,
        "section_impression": impression,
        "split": split,
    }


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def region(picture: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    """Return where the blob of a finding is drawn, if it is."""
    return radiographs.region(picture.shape[-1], label, HEIGHT, WIDTH)
