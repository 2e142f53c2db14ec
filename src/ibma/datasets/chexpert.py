"""Read CheXpert v1.0 (or -small) with the reports of CheXpert Plus: radiographs, five labels.

Layouts: `CheXpert-v1.0-small/{train,valid}.csv` with the images below it; the full release's
`CheXpert-v1.0 batch N (...)` folders; `df_chexpert_plus_240401.csv` beside them. The test split is
the official valid.csv (234 radiographs read by three radiologists).

CHOICE: -1 is 1 for Edema and Atelectasis, else 0, as medical_mae has it, unless `uncertain` says
otherwise. The paper says nothing, and the labels of its code hold no -1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ibma.datasets import Card, Counts, Dropped, Remote, Sample
from ibma.errors import IbmaError
from ibma.files import inside
from ibma.formats import radiology, tabular
from ibma.formats.raw import given
from ibma.formats.tabular import Column, Table

REPORTS = "df_chexpert_plus_240401.csv"
REPORTED = 223_462  # rows of it
ROOTS = (  # where train.csv may lie; the last is the full release as its four zips unpack
    "CheXpert-v1.0-small",
    "CheXpert-v1.0",
    "CheXpert-v1.0 batch 1 (validate & csv)",
)

CARD = Card(
    title="CheXpert",
    kind="multilabel",
    classes=radiology.LABELS,
    modalities={"image": "image", "text": "text"},
    licence="Stanford University School of Medicine Research Use Agreement",
    access="request",
    raw_gb=11.0,
    paper=Counts(223_414, 234),
    official=Counts(223_414, 234),
    cite="J. Irvin et al., CheXpert: A large chest radiograph dataset with uncertainty labels and "
    "expert comparison, AAAI 2019. P. Chambon et al., CheXpert Plus, arXiv 2405.19538.",
    how_to_get=(
        "register at https://aimi.stanford.edu/datasets/chexpert-plus and for CheXpert-v1.0, "
        "accept the agreement, put CheXpert-v1.0-small/ and " + REPORTS + " into data/raw/chexpert"
    ),
    notes=(
        "The counts are rows of train.csv and valid.csv: frontal and lateral views.",
        "A training image without a row in CheXpert Plus (186 by the published counts) keeps an "
        "empty text.",
        "A label that is not mentioned counts as negative, an uncertain one (-1) as the option "
        "`uncertain` says.",
        "The authors' released code selects its epoch on the test set and uses the image alone at "
        "test time; here the last epoch counts and both modalities are used.",
    ),
)
FILES: tuple[Remote, ...] = ()
LISTED = Table(
    {
        "Path": tabular.NAME,
        "Frontal/Lateral": Column(values=("Frontal", "Lateral")),
        **radiology.COLUMNS,
    },
    CARD.how_to_get,
    unique=("Path",),
)
TOLD = Table(
    dict.fromkeys(("path_to_image", "section_findings", "section_impression"), tabular.TEXT),
    CARD.how_to_get,
)


def samples(
    raw: Path, *, on_bad: str = "stop", uncertain: str = "mixed", frontal_only: bool = False
) -> Iterator[Sample | Dropped]:
    """Walk train.csv, then valid.csv; group = patient; text = findings and impression.

    Args:
        raw: The raw folder.
        on_bad: Whether a listed image that is not there stops, or is dropped.
        uncertain: What -1 becomes: `mixed` (1 for Edema and Atelectasis, else 0; medical_mae's
            rule), `ones` or `zeros`.
        frontal_only: Leave lateral views out (Table 1 counts both).

    Raises:
        IbmaError: A table is missing or malformed, a path or label has another form, no image of a
            split has a report, or (on_bad="stop") a listed image is not there.
    """
    root = _root(raw)
    batches = sorted(raw.glob("CheXpert-v1.0 batch *"))
    reports = _reports(raw / REPORTS)
    tables = {"train": root / "train.csv", "test": root / "valid.csv"}
    for table in tables.values():
        listed = (key for _, key, _ in _listed(table))
        tabular.refuse_no_match(listed, reports, (table, raw / REPORTS), CARD.how_to_get)
    texts = Counter[tuple[str, bool]]()
    for split, table in tables.items():
        for line, key, row in _listed(table):
            if frontal_only and row["Frontal/Lateral"] != "Frontal":
                continue
            name, image = key.removesuffix(".jpg"), _image(root, batches, key)
            if image is None:
                if on_bad == "stop":
                    raise IbmaError(
                        f"{root / key}: missing, but listed in {table.name} line {line}: "
                        "unpack the release again or set on_bad: drop"
                    )
                yield Dropped(name, "image listed but missing")
                continue
            label, text = radiology.positives(row, uncertain), reports.get(key, "")
            texts[split, bool(text)] += 1
            parts: dict[str, Path | str] = {"image": image, "text": text}
            yield Sample(name, split, key.split("/")[1], label, parts)
    radiology.tell_empty(texts, raw / REPORTS)


def verify(raw: Path) -> None:
    """Count the rows of train.csv, valid.csv and the reports: no publisher lists a checksum.

    Raises:
        IbmaError: They are not 223,414, 234 and 223,462.
    """
    tables = (
        (_root(raw) / "train.csv", LISTED, CARD.official.train),
        (_root(raw) / "valid.csv", LISTED, CARD.official.test),
        (raw / REPORTS, TOLD, REPORTED),
    )
    for path, table, expected in tables:
        count = sum(1 for _ in tabular.rows(path, table))
        if count != expected:
            raise IbmaError(f"{path}: {count} rows: expected {expected}: use the original file")


def _listed(table: Path) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Yield (line, `train/patientN/studyM/view.jpg`, row)."""
    for line, row in tabular.rows(table, LISTED):
        if len(row["Path"].split("/")) != 5:
            raise IbmaError(
                f"{table}: line {line}: path '{row['Path']}': expected "
                "<release>/<split>/<patient>/<study>/<view>.jpg: use the original file"
            )
        inside(table.parent, row["Path"])
        yield line, row["Path"].split("/", 1)[1], row


def _root(raw: Path) -> Path:
    for name in ROOTS:
        if given(raw / name / "train.csv"):
            return raw / name
    raise IbmaError(f"{raw}: no CheXpert-v1.0-small/train.csv: {CARD.how_to_get}")


def _image(root: Path, batches: list[Path], key: str) -> Path | None:
    """Return the image below the csv's folder, or below a batch folder of the full release."""
    places = [root / key, *(batch / key.split("/", 1)[1] for batch in batches)]
    return next((path for path in places if given(path)), None)


def _reports(path: Path) -> dict[str, str]:
    """Return `train/patientN/studyM/view.jpg` -> "findings: ..., impression: ...", if not empty."""
    reports: dict[str, str] = {}
    for line, row in tabular.rows(path, TOLD):
        key, *sections = (row[name] for name in TOLD.columns)
        text = radiology.wording(*sections)
        if reports.setdefault(key, text) != text:
            raise IbmaError(f"{path}: line {line}: a second report of '{key}': use the original")
    return {key: text for key, text in reports.items() if text}
