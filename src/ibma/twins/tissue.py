"""Generate a twin of the tissue data: eight healthy slices, four sections of tumours.

Normal spots are of four tissue types; a type is a block of marker genes and a colour of the
picture. Of the eight anomalies of a test section (it has 16 spots) three show it in their genes
alone, three in their picture alone, one by a type's genes on another type's colour, and one is
mislabelled: a normal spot. Irrelevant variation: the total of counts (expression), brightness
(picture).

Expected AUC, if anomalies that cannot be seen are ranked by chance (.5): one modality alone at
best 3/8 + 5/16 = .69; both scores added 6/8 + 2/16 = .88; both read together 7/8 + 1/16 = .94.

Deliberate faults, hNB: all array spots with `in_tissue` (those off it with few or no counts), one
spot on tissue without counts, Ensembl index beside `feature_name` (plain or categorical, one symbol
twice), raw counts in raw.X or (V07) in X, dense in V08, `is_single` beside the library in either
order, coordinates of the full picture, RGBA in V05. Deliberate faults, her2st: rows of the
selection without counts, a label row without counts and one without coordinates, labels in a frame
of 125 pixels a unit upwards, symbols in another order, one of them twice, MT- and ERCC genes, an
EXIF orientation.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = ("connective tissue", "adipose tissue", "breast glands", "immune infiltrate")
COLOURS = ((230, 150, 190), (235, 225, 200), (190, 90, 150), (110, 130, 200))
CANCER_COLOUR = (70, 40, 110)
MARKERS = [f"TYPE{kind}G{i}" for kind in range(4) for i in range(6)]
CANCER_GENES = [f"ONCO{i}" for i in range(8)]
GENES = [*MARKERS, *CANCER_GENES, *(f"HOUSE{i}" for i in range(12))]
CONTROLS = ["MT-A", "ERCC-1"]  # of wild counts: whoever counts them loses the signal
HEALTHY = [f"V{number:02d}" for number in range(3, 11)]
SECTIONS = {  # pixels a unit, picture, name of its cancer
    "A1": (60, "9769_C1_HE_small.jpg", "cancer in situ"),
    "B1": (75, "BT10737_C1_HE.jpg", "invasive cancer"),
    "C1": (75, "5714_HE_BT_C1.jpg", "invasive cancer"),
    "D1": (75, "10426_HE_BT_C1.jpg", "invasive cancer"),
}
# (genes show it, picture shows it, type of the picture after that of the genes) of 16 test spots
LOOKS = [
    *[(False, False, 0)] * 9,  # the last of these nine is labelled cancer
    *[(True, False, 0)] * 3,
    *[(False, True, 0)] * 3,
    (False, False, 2),
]
NORMALS = 8
COLUMNS, ROWS, ON_TISSUE = 6, 4, 16  # of a healthy slice
APART, SCALE = 28, 0.25  # pixels of the reduced picture between spots; reduced / full
EMPTY = ("V04", 5)  # slice, and place on it, of a spot on tissue without counts
HEADER = "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"


def write(raw: Path) -> None:
    """Write `hNB/` and `her2st/` below `raw`; the bytes depend on code and codecs alone."""
    rng = np.random.default_rng(20230601)
    (raw / "hNB").mkdir(parents=True, exist_ok=True)
    for name in HEALTHY:
        _write_healthy(raw / f"hNB/{name}.h5ad", name, rng)
    for name in SECTIONS:
        _write_section(raw / "her2st/data", name, rng)


def _counts(kind: int, cancer: bool, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw counts of GENES, then CONTROLS; genes of cancer are noisy in normal spots too."""
    mean = np.full(len(GENES), 3.0)
    mean[6 * kind : 6 * kind + 6] = 14.0
    mean[len(MARKERS) : len(MARKERS) + len(CANCER_GENES)] *= rng.gamma(2.0, 0.5, len(CANCER_GENES))
    if cancer:
        mean[len(MARKERS) : len(MARKERS) + len(CANCER_GENES)] = 16.0
    genes = rng.poisson(mean * rng.lognormal(0.0, 0.3))
    return np.concatenate([genes, rng.integers(0, 500, len(CONTROLS))])


def _paint(
    picture: NDArray[np.uint8],
    centre: tuple[float, float],
    half: int,
    colour: Sequence[int],
    rng: np.random.Generator,
) -> None:
    """Paint a square of noisy colour and private brightness."""
    x, y = (round(value) for value in centre)
    square = np.asarray(colour) * rng.uniform(0.75, 1.05) + rng.normal(
        0, 6, (2 * half, 2 * half, 3)
    )
    picture[y - half : y + half, x - half : x + half] = np.clip(square, 0, 255)


# --- healthy slices ------------------------------------------------------------------------------


def _write_healthy(path: Path, name: str, rng: np.random.Generator) -> None:
    place = np.arange(COLUMNS * ROWS)
    column, row = place % COLUMNS, place // COLUMNS
    centres = np.stack([20 + APART * (column + row % 2 / 2), 30 + APART * 0.866 * row], axis=1)
    on_tissue = np.isin(place, rng.choice(place, ON_TISSUE, replace=False))
    picture = np.full((200, 200, 4 if name == "V05" else 3), 245, dtype=np.uint8)
    only_here = [f"V{i}" for i in range(23)]
    genes = [*GENES, *CONTROLS, *only_here, GENES[0]]  # one symbol twice
    counts = np.zeros((len(place), len(genes)), dtype=np.int64)
    for spot in place[on_tissue]:
        kind = int(rng.integers(4))
        _paint(picture[:, :, :3], tuple(centres[spot]), APART // 2, COLOURS[kind], rng)
        counts[spot, : len(GENES + CONTROLS)] = _counts(kind, False, rng)
        counts[spot, len(GENES + CONTROLS) :] = rng.poisson(2, len(only_here) + 1)
    counts[place[~on_tissue][:2]] = rng.poisson(0.2, (2, len(genes)))  # ambient molecules
    if name == EMPTY[0]:
        counts[place[on_tissue][EMPTY[1]]] = 0
    obs = {"in_tissue": on_tissue.astype(int), "array_row": row, "array_col": 2 * column + row % 2}
    _write_h5ad(path, name, genes, counts, obs, centres / SCALE, picture)


def _write_h5ad(
    path: Path,
    name: str,
    genes: Sequence[str],
    counts: NDArray[np.int64],
    obs: dict[str, NDArray[np.int64]],
    spatial: NDArray[np.float64],
    picture: NDArray[np.uint8],
) -> None:
    import h5py

    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with h5py.File(path, "w") as file:
        table = file.create_group("obs")
        table.attrs["_index"] = "_index"
        table["_index"] = [f"BARCODE{i:02d}-1" for i in range(len(counts))]
        for column, values in obs.items():
            table[column] = values
        raw = file if name == "V07" else file.create_group("raw")
        _write_genes(raw, genes, categorical=name in HEALTHY[::2])
        _write_matrix(raw, counts.astype(np.float32), dense=name == "V08")
        if raw is not file:
            _write_genes(file, genes, categorical=True)
            _write_matrix(file, np.log1p(counts / totals * 1e4).astype(np.float32), dense=False)
        file["obsm/spatial"] = spatial
        uns = file.create_group("uns/spatial", track_order=True)
        if name != "V06":
            uns["is_single"] = True
        library = uns.create_group(f"library_{name}")
        library.create_dataset("images/hires", data=picture, compression="gzip")
        library["scalefactors/tissue_hires_scalef"] = SCALE
        library["scalefactors/spot_diameter_fullres"] = 0.55 * APART / SCALE
        if name == "V06":
            uns["is_single"] = True


def _write_genes(root: Any, genes: Sequence[str], categorical: bool) -> None:
    table = root.create_group("var")
    table.attrs["_index"] = "_index"
    table["_index"] = [f"ENSG{i:011d}" for i in range(len(genes))]
    if categorical:
        names = sorted(set(genes))
        table["feature_name/categories"] = names
        table["feature_name/codes"] = np.array([names.index(gene) for gene in genes], np.int16)
    else:
        table["feature_name"] = list(genes)


def _write_matrix(root: Any, values: NDArray[np.float32], dense: bool) -> None:
    from scipy import sparse

    if dense:
        root["X"] = values
        return
    matrix = sparse.csr_matrix(values)
    group = root.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "shape": values.shape})
    for part in ("data", "indices", "indptr"):
        group[part] = getattr(matrix, part)


# --- tumour sections -----------------------------------------------------------------------------


def _write_section(root: Path, name: str, rng: np.random.Generator) -> None:
    from PIL import Image

    unit, file_name, cancer_name = SECTIONS[name]
    picture = np.full((400, 400, 3), 245, dtype=np.uint8)
    genes = [*rng.permutation([*GENES, *CONTROLS]), *(f"{name}-{i}" for i in range(13)), GENES[0]]
    order = [genes.index(gene) for gene in (*GENES, *CONTROLS)]
    counted, selected, labelled = [], [HEADER], ["Row.names\tx\ty\tpixel_x\tpixel_y\tlabel"]
    for place, look in enumerate(rng.permutation(len(LOOKS))):
        x, y = 9 + place % 4, 10 + place // 4
        exact = (x + rng.uniform(-0.06, 0.06), y + rng.uniform(-0.06, 0.06))
        centre = (unit * (exact[0] - 7.5), unit * (exact[1] - 9.5))
        in_genes, in_picture, shift = LOOKS[look]
        kind = int(rng.integers(4))
        colour = CANCER_COLOUR if in_picture else COLOURS[(kind + shift) % 4]
        _paint(picture, centre, round(0.3 * unit), colour, rng)
        counts = np.concatenate([np.zeros(len(order), int), rng.poisson(2, 14)])
        counts[order] = _counts(kind, in_genes, rng)
        counted.append("\t".join([f"{x}x{y}", *map(str, counts)]))
        normal_name = "undetermined" if look == 0 else TYPES[kind]
        labelled.append(_labelled(exact, normal_name if look < NORMALS else cancer_name))
        selected.append(_selected((x, y), exact, centre))
    selected += [_selected((x, 3), (x, 3), (9.0, 9.0)) for x in (3, 4)]
    labelled += [
        _labelled((3.01, 3.02), "undetermined"),
        "1379x6121\tNA\tNA\tNA\tNA\tadipose tissue",
    ]
    _write_gz(root / f"ST-cnts/{name}.tsv.gz", ["\t".join(["", *genes]), *counted])
    _write_lines(root / f"ST-spotfiles/{name}_selection.tsv", selected)
    _write_lines(root / f"ST-pat/lbl/{name}_labeled_coordinates.tsv", labelled)
    target = root / f"ST-imgs/{name[0]}/{name}/{file_name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 1
    Image.fromarray(picture).save(target, quality=92, exif=exif)


def _selected(
    spot: tuple[int, int], exact: tuple[float, float], centre: tuple[float, float]
) -> str:
    numbers = [*exact, *centre]
    return "\t".join([*map(str, spot), *(f"{value:.3f}" for value in numbers), "1"])


def _labelled(exact: tuple[float, float], label: str) -> str:
    """Return a row of the pathologist's file: pixels of another picture, y upwards."""
    x, y = 125 * (exact[0] - 1), 4402.8 - 125 * exact[1]
    cells = [f"{x:.0f}x{y:.0f}", *(f"{value:.3f}" for value in (*exact, x, y)), label]
    return "\t".join(cells)


def _write_gz(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
