"""Read sections of the her2st release: gene counts, a pathologist's labels, places of the spots.

Layout: almaan/her2st@85df741 below `her2st/`, as `git clone` makes it. Spots are named by their
place on the array, "10x13" (column, row).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma.errors import IbmaError
from ibma.formats import expression, tabular
from ibma.formats.archives import DAMAGE
from ibma.formats.expression import Counts, Row
from ibma.formats.raw import lines, present
from ibma.formats.tabular import Column, Table

ADDRESS = (
    "https://raw.githubusercontent.com/almaan/her2st/85df7411b987a7dec3feff9718b869a7a82091ec/"
)
AGAIN = "run `dvc repro -f download`"
CHECKSUMS = Path(__file__).with_name("her2st.sha256")
CANCER = ("invasive cancer", "cancer in situ")
NORMAL = (
    *("connective tissue", "adipose tissue", "breast glands", "immune infiltrate"),
    "undetermined",
)
FRAME = ("x", "y", "pixel_x", "pixel_y")
LABELS = Table(
    dict.fromkeys(FRAME, tabular.MEASURE) | {"label": Column(values=CANCER + NORMAL)},
    AGAIN,
    delimiter="\t",
)
PLACES = Table(
    dict.fromkeys(("x", "y"), tabular.INTEGER)
    | dict.fromkeys(("new_x", "new_y", "pixel_x", "pixel_y"), tabular.NUMBER),
    AGAIN,
    unique=("x", "y"),
    delimiter="\t",
)
SLACK = 0.03  # CHOICE: a spot may be that share of the section's half width away from its place


@dataclass(frozen=True)
class Section:
    """The labelled spots of one section, in the order of its count table.

    Attributes:
        name: Name of the section, such as "A1".
        spots: Names of the spots.
        counts: Their gene counts.
        cancer: Whether each spot is invasive or in situ cancer.
        unlabelled: Spots with counts that no row of labels names.
    """

    name: str
    spots: Sequence[str]
    counts: Counts
    cancer: Sequence[bool]
    unlabelled: Sequence[str]

    @property
    def grid(self) -> list[tuple[int, int]]:
        """Return column and row of each spot on the array."""
        return [(int(x), int(y)) for x, y in (spot.split("x") for spot in self.spots)]


@dataclass(frozen=True)
class View:
    """One spot: its section, name, label, expression and that of the spots around it."""

    section: str
    spot: str
    cancer: bool
    expression: Row
    neighbourhood: Row


def files(names: Sequence[str], folders: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (address, sha256, path below the raw folder) of some sections' files.

    Args:
        names: Names of the sections.
        folders: Folders of the release's `data/`, such as "ST-cnts".
    """
    listed = [line.split() for line in CHECKSUMS.read_text().splitlines()]
    return [
        (ADDRESS + path, digest, f"her2st/{path}")
        for digest, path in listed
        if path.split("/")[1] in folders and Path(path).name[:2] in names
    ]


def read(raw: Path, name: str) -> Section:
    """Join counts and labels of one section.

    A label's coordinates are rounded to find its spot; its pixels are of another picture (125 a
    unit, upwards). Label rows without coordinates or without counts are passed over.

    Args:
        raw: The raw folder that holds `her2st/`.
        name: Name of the section.

    Raises:
        IbmaError: A file is missing or damaged, a count is no number of molecules, a label is
            outside the vocabulary, a spot has two labels, no spot has one, or the labels'
            coordinates do not fit their pixels.
    """
    path = raw / f"her2st/data/ST-cnts/{name}.tsv.gz"
    spots, counts = _counts(path)
    listed = raw / f"her2st/data/ST-pat/lbl/{name}_labeled_coordinates.tsv"
    labels = _labels(listed)
    tabular.refuse_no_match(spots, labels, (path, listed), AGAIN)
    rows = [row for row, spot in enumerate(spots) if spot in labels]
    return Section(
        name,
        [spots[row] for row in rows],
        replace(counts, values=counts.values[rows]),
        [labels[spots[row]] in CANCER for row in rows],
        [spot for spot in spots if spot not in labels],
    )


def unlabelled(sections: Sequence[Section], on_bad: str) -> Iterator[str]:
    """Yield the names, such as "A1/10x13", of spots that have counts but no label.

    Raises:
        IbmaError: There is one, and `on_bad` is "stop".
    """
    for section in sections:
        for spot in section.unlabelled:
            if on_bad == "stop":
                raise IbmaError(
                    f"{section.name}_labeled_coordinates.tsv: no label for spot {spot}, which has "
                    "counts: fetch the release again or set on_bad: drop"
                )
            yield f"{section.name}/{spot}"


def views(sections: Sequence[Section], n_genes: int) -> Iterator[View]:
    """Yield every labelled spot of the sections; genes are chosen on the first of them.

    Raises:
        IbmaError: As `expression.panel`.
    """
    tables = expression.panel([section.counts for section in sections], n_genes)
    for section, rows in zip(sections, tables, strict=True):
        around = expression.neighbourhood(rows, section.grid)
        for spot, cancer, row, near in zip(
            section.spots, section.cancer, rows, around, strict=True
        ):
            yield View(section.name, spot, cancer, row, near)


def pixels(raw: Path, section: Section) -> tuple[NDArray[np.float64], float]:
    """Return the centres (x, y) of a section's spots in its picture, and pixels per array unit.

    Args:
        raw: The raw folder that holds `her2st/`.
        section: A section as `read` returns it.

    Returns:
        Centres [n, 2] and a number.

    Raises:
        IbmaError: The file is missing or damaged, it lacks a spot, or its pixels are not the spots'
            places enlarged.
    """
    path = raw / f"her2st/data/ST-spotfiles/{section.name}_selection.tsv"
    placed = {}
    for _, row in tabular.rows(path, PLACES):
        x, y, *where = (float(row[name]) for name in PLACES.columns)
        placed[_spot(x, y)] = where
    lost = [spot for spot in section.spots if spot not in placed]
    if lost:
        raise IbmaError(f"{path}: no row for spot {lost[0]}, which has counts: fetch it again")
    found = np.array([placed[spot] for spot in section.spots])
    _check_frame(path, found, upwards=False)
    columns, centres = found[:, 0], found[:, 2:]
    return centres, float(np.polyfit(columns, centres[:, 0], 1)[0])


def _check_frame(path: Path, found: NDArray[np.float64], upwards: bool) -> None:
    """Refuse pixels that are not the places on the array, enlarged alike in both directions.

    In the release the two enlargements differ by 1.3 % at most, and no spot is off its place.

    Args:
        path: The file, for the error.
        found: x, y and the pixels of both, [n, 4].
        upwards: Whether the picture's y grows upwards, that of the array never does.
    """
    places, pixels = np.split(found - found.mean(axis=0), 2, axis=1)
    unit = np.linalg.norm(pixels) / max(float(np.linalg.norm(places)), 1e-9)
    off = np.abs(pixels - unit * places * (1, -1 if upwards else 1)).max(axis=1)
    if not off.max() <= SLACK * unit * np.abs(places).max():  # NaN of huge numbers is no fit
        x, y, *_ = found[off.argmax()]
        raise IbmaError(
            f"{path}: pixels do not fit the places of the spots, least at ({x:g}, {y:g}): expected "
            f"pixel_x and pixel_y as x and y, enlarged alike: {AGAIN}"
        )


def _counts(path: Path) -> tuple[list[str], Counts]:
    """Read rows `spot<tab>count...` under a header of gene symbols whose first cell is empty."""
    from scipy import sparse

    present(path, AGAIN)
    rows: dict[str, Any] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            content = lines(file, path)
            genes = next(content, "").rstrip("\n").split("\t")[1:]
            for line in content:
                spot, _, cells = line.rstrip("\n").partition("\t")
                if re.fullmatch(r"\d{1,4}x\d{1,4}", spot) is None or spot in rows:
                    raise IbmaError(
                        f"{path}: row '{spot[:60]}': expected <column>x<row>, each once: {AGAIN}"
                    )
                rows[spot] = sparse.csr_matrix(_row(cells, len(genes), f"{path}: row {spot}"))
    except DAMAGE as error:
        raise IbmaError(f"{path}: broken ({error}): {AGAIN}") from None
    if not rows:
        raise IbmaError(f"{path}: holds no spot: {AGAIN}")
    return list(rows), Counts(path, genes, sparse.vstack(list(rows.values()), format="csr"))


def _row(cells: str, count: int, where: str) -> NDArray[np.int32]:
    if not re.fullmatch(r"\d{1,9}(\t\d{1,9})*", cells) or cells.count("\t") + 1 != count:
        raise IbmaError(
            f"{where}: expected {count} whole counts: use the raw counts of the release"
        )
    return np.fromstring(cells, dtype=np.int32, sep="\t")


def _labels(path: Path) -> dict[str, str]:
    labels: dict[str, str] = {}
    found = []
    for line, row in tabular.rows(path, LABELS):
        x, y, *pixels = (tabular.measure(row[name]) for name in FRAME)
        if np.isnan((x, y, *pixels)).any():
            continue
        found.append((x, y, *pixels))
        if _spot(x, y) in labels:
            raise IbmaError(f"{path}: line {line}: a second label for spot {_spot(x, y)}: {AGAIN}")
        labels[_spot(x, y)] = row["label"]
    if found:
        _check_frame(path, np.array(found), upwards=True)
    return labels


def _spot(x: float, y: float) -> str:
    return f"{round(x)}x{round(y)}"
