"""Read her2st for anomaly detection: normal spots of four tumours train, four others test.

Layout, views and labels as data set `her2st`. Train: normal spots of E1, F1, G2, H1. Test: all
spots of A1, B1, C1, D1, which are the paper's 10x-hBC-A..D.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ibma.datasets import Card, Counts, Dropped, Remote, Sample
from ibma.formats import her2st
from ibma.params import Count

TRAIN = ("E1", "F1", "G2", "H1")
TEST = ("A1", "B1", "C1", "D1")

CARD = Card(
    title="her2st (one class)",
    kind="one_class",
    classes=("normal", "anomalous"),
    modalities={"expression": "expression", "neighbourhood": "expression"},
    licence="no licence file: cite, do not redistribute",
    access="open",
    raw_gb=0.009,
    official=Counts(1094, 1123),
    cite="A. Andersson et al., Spatial deconvolution of HER2-positive breast cancer delineates "
    "tumor-associated cell type interactions, Nature Communications 12, 2021.",
    how_to_get="fetched from github.com/almaan/her2st, or from IBMA_MIRROR",
    notes=(
        "CHOICE: not the paper's protocol, which trains on healthy Visium slices (data set "
        "`tissue`). The test spots are the same. Here training and test have one platform and one "
        "laboratory.",
        "The counts are spots with counts and a label; cancer spots of the training sections are "
        "left out, but a normal spot's neighbourhood may hold some.",
        "Genes are chosen on E1, a training section. Groups are sections.",
        "Measured here: the squared distance to the mean of train gives mean AUC .19 (expression) "
        "and .70 (neighbourhood). A value below .5 is no error: spots with few counts lie far "
        "from the mean, and normal spots have fewer.",
        "The total of a spot's counts is a confound: see data set `her2st`.",
    ),
)
FILES = tuple(Remote(*file) for file in her2st.files(TRAIN + TEST, ("ST-cnts", "ST-pat")))


def samples(
    raw: Path, *, on_bad: str = "stop", n_genes: Count = 3000
) -> Iterator[Sample | Dropped]:
    """Walk the training sections, then the test sections; group = section.

    Args:
        raw: The raw folder.
        on_bad: Whether a spot with counts but no label stops, or is dropped.
        n_genes: Length of both vectors.

    Raises:
        IbmaError: A table is missing or malformed, there are fewer than n_genes common genes, or
            (on_bad="stop") a spot has no label.
    """
    found = [her2st.read(raw, name) for name in TRAIN + TEST]
    for spot in her2st.unlabelled(found, on_bad):
        yield Dropped(spot, "no label")
    for view in her2st.views(found, n_genes):
        trains = view.section in TRAIN
        if trains and view.cancer:
            continue
        yield Sample(
            f"{view.section}/{view.spot}",
            "train" if trains else "test",
            view.section,
            int(view.cancer),
            {"expression": view.expression, "neighbourhood": view.neighbourhood},
        )
