"""Read breast tissue: Visium slices of healthy donors (train), her2st sections of tumours (test).

Layout: `hNB/V03.h5ad` .. `hNB/V10.h5ad` as CELLxGENE publishes them (schema 7.1.0, spatial), and
`her2st/` as almaan/her2st@85df741. The paper's 10x-hNB-A..H are V03..V10 and 10x-hBC-A..D are A1,
B1, C1, D1 (wqlzuel/MEATRD@9f8eee2, build_datasets.py). Modalities are expression (the genes that
vary most in the first healthy slice) and a patch of the stained section around the spot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma.datasets import Card, Counts, Dropped, Remote, Sample
from ibma.errors import IbmaError
from ibma.formats import expression, h5ad, her2st, pictures
from ibma.params import Count

HEALTHY = {f"V{number:02d}": f"10x-hNB-{letter}" for number, letter in enumerate("ABCDEFGH", 3)}
TUMOURS = {
    "A1": ("10x-hBC-A", "9769_C1_HE_small.jpg"),
    "B1": ("10x-hBC-B", "BT10737_C1_HE.jpg"),
    "C1": ("10x-hBC-C", "5714_HE_BT_C1.jpg"),
    "D1": ("10x-hBC-D", "10426_HE_BT_C1.jpg"),
}
# A patch shows 100 um of tissue: the distance of Visium's spots, half that of her2st's array.
HALF_UNIT = 0.5
NARROWEST = 8  # CHOICE: pixels of a patch that is accepted; real ones have some 25 and more
SPOTS = 18_183  # of Table 1: the healthy slices' spots on tissue

CARD = Card(
    title="10x-hNB and 10x-hBC (breast tissue)",
    kind="one_class",
    classes=("normal", "anomalous"),
    modalities={"expression": "expression", "image": "image"},
    licence="healthy slices CC BY 4.0; her2st has no licence file: cite, do not redistribute",
    access="open",
    paper=Counts(SPOTS, 1_123),
    official=Counts(None, 1_123),
    cite="T. Kumar et al., A spatially resolved single-cell genomic atlas of the adult human "
    "breast, Nature 620, 2023. A. Andersson et al., Spatial deconvolution of HER2-positive breast "
    "cancer delineates tumor-associated cell type interactions, Nature Communications 12, 2021.",
    how_to_get=(
        "open https://cellxgene.cziscience.com/collections/4195ab4c-20bd-4cd3-8b3d-65601277e731, "
        "download the .h5ad of each Visium section V03 .. V10 (assay Visium, section name in the "
        "title) and save it as data/raw/tissue/hNB/<section>.h5ad; `dvc repro download@tissue` "
        "fetches her2st"
    ),
    notes=(
        "Paper C.1 says eight cancer slices 10x-hBC-A-D: there are four. her2st is legacy Spatial "
        "Transcriptomics, not 10x Visium.",
        "1,123 test spots are the sections' 346 + 295 + 176 + 306; 18,183 training spots should "
        "be the sum of V03..V10's spots on tissue. That could not be checked here: the download "
        "of real files stops where the sum is another.",
        "Anomalous is invasive cancer and cancer in situ; undetermined spots count as normal, "
        "which is what the paper's F1 at chance level implies.",
        "CELLxGENE's links expire and its table of sections is not known here, so you place the "
        "h5ad files by hand. Nobody publishes checksums of them or of the four H&E pictures.",
        "IBMA_MIRROR holds no H&E picture of the test sections: unset it to fetch them. Without "
        "them the loader stops, because zeros for every test image would be another experiment. "
        "The release's app/www/imgs/A1_HE_image_dark.png cannot replace one: it is blackened and "
        "shows the pathologist's outlines in a corner.",
        "A spot on tissue without a single count is kept, without expression.",
        "CHOICE: a patch is 100 um wide on both platforms; in the literature it has a fixed number "
        "of pixels.",
        "F1 uses the true share of anomalies as its threshold, as in the literature.",
    ),
)
PLACED = ("hNB/*.h5ad",)
_PICTURES = {name: f"data/ST-imgs/{name[0]}/{name}/{file}" for name, (_, file) in TUMOURS.items()}
FILES = (
    *(
        Remote(*file)
        for file in her2st.files(tuple(TUMOURS), ("ST-cnts", "ST-pat", "ST-spotfiles"))
    ),
    *(Remote(her2st.ADDRESS + path, None, f"her2st/{path}") for path in _PICTURES.values()),
)


@dataclass(frozen=True)
class _Slice:
    """Spots of one slice in one order: names, counts, patches, and 0/1 labels."""

    name: str
    group: str
    split: str
    spots: Sequence[str]
    counts: expression.Counts
    patches: Sequence[NDArray[np.uint8]]
    labels: Sequence[int]


def samples(
    raw: Path, *, on_bad: str = "stop", n_genes: Count = 3000
) -> Iterator[Sample | Dropped]:
    """Walk V03..V10, then A1..D1; group = the paper's name of the slice.

    Args:
        raw: The raw folder.
        on_bad: Whether a test spot without label stops, or is dropped.
        n_genes: Length of the expression vector; genes are chosen on V03, without labels.

    Raises:
        IbmaError: A slice or table is missing or malformed, counts are not raw, two slices are the
            same, spots and picture do not fit, there are fewer than n_genes common genes, or
            (on_bad="stop") a test spot has no label.
    """
    slices = [_healthy(raw / f"hNB/{name}.h5ad", group) for name, group in HEALTHY.items()]
    found = [her2st.read(raw, name) for name in TUMOURS]
    for spot in her2st.unlabelled(found, on_bad):
        yield Dropped(spot, "no label")
    slices += [_tumour(raw, section) for section in found]
    tables = expression.panel([part.counts for part in slices], n_genes)
    for part, rows in zip(slices, tables, strict=True):
        for spot, row, patch, label in zip(
            part.spots, rows, part.patches, part.labels, strict=True
        ):
            parts = {"expression": row, "image": patch}
            yield Sample(f"{part.name}/{spot}", part.split, part.group, label, parts)


def verify(raw: Path) -> None:
    """Count the healthy slices' spots on tissue: the publisher lists no checksum.

    Raises:
        IbmaError: They are not 18,183 altogether; it tells how many each slice has.
    """
    paths = {name: raw / f"hNB/{name}.h5ad" for name in HEALTHY}
    counts = {name: h5ad.count_on_tissue(path, CARD.how_to_get) for name, path in paths.items()}
    if sum(counts.values()) != SPOTS:
        each = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise IbmaError(
            f"{raw / 'hNB'}: {sum(counts.values()):,} spots on tissue ({each}), "
            f"expected {SPOTS:,}: {CARD.how_to_get}"
        )


def _healthy(path: Path, group: str) -> _Slice:
    """Read a slice; a patch of it is as wide as its spots are apart."""
    section = h5ad.read(path, CARD.how_to_get)
    patches = _patches(path, section.picture, section.centres, section.apart)
    labels = [0] * len(section.spots)
    return _Slice(path.stem, group, "train", section.spots, section.counts, patches, labels)


def _tumour(raw: Path, section: her2st.Section) -> _Slice:
    group, _ = TUMOURS[section.name]
    path = raw / "her2st" / _PICTURES[section.name]
    if not path.exists():
        raise IbmaError(
            f"{path}: missing: unset IBMA_MIRROR, which lacks it, and run "
            "`dvc repro download@tissue`"
        )
    centres, unit = her2st.pixels(raw, section)
    patches = _patches(path, np.asarray(pictures.read(path)), centres, HALF_UNIT * unit)
    labels = [int(cancer) for cancer in section.cancer]
    return _Slice(section.name, group, "test", section.spots, section.counts, patches, labels)


def _patches(
    path: Path, picture: NDArray[np.uint8], centres: NDArray[np.float64], side: float
) -> list[NDArray[np.uint8]]:
    """Cut squares [S, S, 3] around centres (x, y), black beyond the edge of the picture."""
    _check_places(path, picture, centres, side)
    half = round(side / 2)
    framed = np.pad(picture, ((half, half), (half, half), (0, 0)))
    corners = centres.round().astype(int)  # the frame moves the centre by `half`
    return [framed[y : y + 2 * half, x : x + 2 * half].copy() for x, y in corners]


def _check_places(
    path: Path, picture: NDArray[np.uint8], centres: NDArray[np.float64], side: float
) -> None:
    """Refuse a picture that the spots leave, or whose size is not that of their coordinates."""
    height, width, _ = picture.shape
    size = f"the picture of {width} x {height} pixels"
    outside = ((centres < 0) | (centres >= (width, height))).any(axis=1)
    wrong = ""
    if outside.any():
        x, y = centres[outside][0]
        wrong = f"a spot at ({x:.0f}, {y:.0f}) lies outside {size}"
    elif (centres < (width / 2, height / 2)).all():
        wrong = f"all spots lie in the upper left quarter of {size}"
    elif side < NARROWEST:
        wrong = f"a patch would be {side:.1f} pixels wide in {size}, expected {NARROWEST} or more"
    if wrong:
        raise IbmaError(
            f"{path}: {wrong}: picture and coordinates do not belong together, fetch both again"
        )
