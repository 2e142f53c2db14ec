"""Read her2st: spots of eight HER2-positive breast tumours, cancer or not, by a pathologist.

Layout: `her2st/` as almaan/her2st@85df741; sections A1, B1, C1, D1, E1, F1, G2, H1, one a patient.
Folds leave patients out: run k tests on patient k mod 8. Two views of a spot: its own expression
and the mean expression of the spots next to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ibma.datasets import Card, Counts, Dropped, Remote, Sample
from ibma.formats import her2st
from ibma.params import Count

SECTIONS = ("A1", "B1", "C1", "D1", "E1", "F1", "G2", "H1")
PATIENTS = "ABCDEFGH"

CARD = Card(
    title="her2st",
    kind="classify",
    classes=("normal", "cancer"),
    modalities={"expression": "expression", "neighbourhood": "expression"},
    licence="no licence file: cite, do not redistribute",
    access="open",
    raw_gb=0.009,
    official=Counts(3481, None),
    folds=len(PATIENTS),
    cite="A. Andersson et al., Spatial deconvolution of HER2-positive breast cancer delineates "
    "tumor-associated cell type interactions, Nature Communications 12, 2021.",
    how_to_get="fetched from github.com/almaan/her2st, or from IBMA_MIRROR",
    notes=(
        "Not in the paper as a supervised task; sections A1, B1, C1, D1 are its 10x-hBC-A..D.",
        "3,481 is the number of spots with counts and a label; their share of cancer goes from "
        ".214 (B) to .876 (A). Cancer is invasive or in situ; undetermined spots count as normal.",
        "CHOICE: the second view is the neighbourhood, the mean of up to eight adjacent spots. "
        "H&E pictures are not used: file names are known for sections A1 to D1 only, and no copy "
        "was available to take checksums of.",
        "Genes are chosen without labels on A1, which is also the test section of fold 0.",
        "Confound: the total of a spot's counts alone gives AUC .75 over all spots, .74 as mean "
        "over patients. Scaling spots to one total does not remove it: fewer counts give more "
        "zeros.",
        "Measured here with logistic regression, patients left out, mean AUC over patients: "
        "expression .86, neighbourhood .87, both .89 at C = 1e-4; .83, .87, .88 at C = 1e-3.",
    ),
)
FILES = tuple(Remote(*file) for file in her2st.files(SECTIONS, ("ST-cnts", "ST-pat")))


def samples(
    raw: Path, *, on_bad: str = "stop", n_genes: Count = 3000
) -> Iterator[Sample | Dropped]:
    """Walk the sections in order; group = patient, the letter of the section.

    Args:
        raw: The raw folder.
        on_bad: Whether a spot with counts but no label stops, or is dropped.
        n_genes: Length of both vectors.

    Raises:
        IbmaError: A table is missing or malformed, there are fewer than n_genes common genes, or
            (on_bad="stop") a spot has no label.
    """
    found = [her2st.read(raw, name) for name in SECTIONS]
    for spot in her2st.unlabelled(found, on_bad):
        yield Dropped(spot, "no label")
    for view in her2st.views(found, n_genes):
        patient = view.section[0]
        parts = {"expression": view.expression, "neighbourhood": view.neighbourhood}
        yield Sample(
            f"{view.section}/{view.spot}",
            f"fold{PATIENTS.index(patient)}",
            patient,
            int(view.cancer),
            parts,
        )
