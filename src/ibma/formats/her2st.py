"""Sections of the her2st release: gene counts, the pathologist's labels, places of the spots.

Layout: almaan/her2st@85df741 below `her2st/`, as `git clone` makes it. Spots are named by their
place on the array, "10x13" (column, row).
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma.errors import IbmaError
from ibma.formats import expression, tabular
from ibma.formats.expression import Counts, Row

ADDRESS = (
    "https://raw.githubusercontent.com/almaan/her2st/85df7411b987a7dec3feff9718b869a7a82091ec/"
)
AGAIN = "run `dvc repro download`"
CHECKSUMS = Path(__file__).with_name("her2st.sha256")
CANCER = ("invasive cancer", "cancer in situ")
NORMAL = (
    "connective tissue",
    "adipose tissue",
    "breast glands",
    "immune infiltrate",
    "undetermined",
)


@dataclass(frozen=True)
class Section:
    """The labelled spots of one section, in the order of its count table.

    cancer: invasive or in situ, [n]. unlabelled: spots with counts that no label row names.
    """

    name: str
    spots: Sequence[str]
    counts: Counts
    cancer: Sequence[bool]
    unlabelled: Sequence[str]

    @property
    def grid(self) -> list[tuple[int, int]]:
        """Column and row of each spot on the array."""
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
    """(address, sha256, path below the raw folder) of these sections' files in these folders."""
    listed = [line.split() for line in CHECKSUMS.read_text().splitlines()]
    return [
        (ADDRESS + path, digest, f"her2st/{path}")
        for digest, path in listed
        if path.split("/")[1] in folders and Path(path).name[:2] in names
    ]


def read(raw: Path, name: str) -> Section:
    """Join counts and labels of section `name`.

    A label's coordinates are rounded to find its spot; its pixels are of another picture (125 a
    unit, upwards) and not read. Label rows without coordinates or without counts are passed over.

    Raises IbmaError naming file and row: missing or broken files, counts that are no numbers of
    molecules, a label outside the vocabulary, two labels of one spot.
    """
    path = raw / f"her2st/data/ST-cnts/{name}.tsv.gz"
    spots, counts = _counts(path)
    labels = _labels(raw / f"her2st/data/ST-pat/lbl/{name}_labeled_coordinates.tsv")
    rows = [row for row, spot in enumerate(spots) if spot in labels]
    if not rows:
        raise IbmaError(f"{path}: none of its spots is labelled: fetch the release again")
    return Section(
        name,
        [spots[row] for row in rows],
        Counts(counts.genes, counts.values[rows]),
        [labels[spots[row]] in CANCER for row in rows],
        [spot for spot in spots if spot not in labels],
    )


def unlabelled(sections: Sequence[Section], on_bad: str) -> Iterator[str]:
    """Names "A1/10x13" of the spots with counts but no label.

    Raises IbmaError at the first one when on_bad is "stop".
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
    """Every labelled spot of the sections; genes are chosen on the first of them.

    Raises IbmaError as `expression.panel`.
    """
    tables = expression.panel([section.counts for section in sections], n_genes)
    for section, rows in zip(sections, tables, strict=True):
        around = expression.neighbourhood(rows, section.grid)
        for spot, cancer, row, near in zip(
            section.spots, section.cancer, rows, around, strict=True
        ):
            yield View(section.name, spot, cancer, row, near)


def pixels(raw: Path, section: Section) -> tuple[NDArray[np.float64], float]:
    """Centres (x, y) [n, 2] of a section's spots in its H&E picture, and pixels per array unit.

    Raises IbmaError naming the file, and the spot that it lacks.
    """
    path = raw / f"her2st/data/ST-spotfiles/{section.name}_selection.tsv"
    measured = ("x", "y", "new_x", "pixel_x", "pixel_y")
    placed = {}
    for line, row in tabular.rows(path, measured, AGAIN, delimiter="\t"):
        x, y, *where = (_number(row, name, path, line) for name in measured)
        placed[_spot(x, y)] = where
    lost = [spot for spot in section.spots if spot not in placed]
    if lost:
        raise IbmaError(f"{path}: no row for spot {lost[0]}, which has counts: fetch it again")
    columns, *centres = np.array([placed[spot] for spot in section.spots]).T
    return np.stack(centres, axis=1), float(np.polyfit(columns, centres[0], 1)[0])


def _counts(path: Path) -> tuple[list[str], Counts]:
    """Read `spot<tab>count...` rows under a header of gene symbols whose first cell is empty."""
    from scipy import sparse

    if not path.exists():
        raise IbmaError(f"{path}: missing: run `dvc repro download`")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            genes = file.readline().rstrip("\n").split("\t")[1:]
            rows = [line.rstrip("\n").partition("\t") for line in file]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise IbmaError(
            f"{path}: broken ({error}): delete it and run `dvc repro download`"
        ) from None
    values = np.zeros((len(rows), len(genes)), dtype=np.int32)
    for value, (spot, _, cells) in zip(values, rows, strict=True):
        if re.fullmatch(r"\d+x\d+", spot) is None:
            raise IbmaError(f"{path}: row '{spot}': expected <column>x<row>: fetch it again")
        if re.fullmatch(r"\d+(\t\d+)*", cells) is None or cells.count("\t") + 1 != len(genes):
            raise IbmaError(
                f"{path}: row {spot}: expected {len(genes)} whole counts: use the raw counts of "
                "the release"
            )
        value[:] = np.fromstring(cells, dtype=np.int32, sep="\t")
    return [spot for spot, _, _ in rows], Counts(genes, sparse.csr_matrix(values))


def _labels(path: Path) -> dict[str, str]:
    labels: dict[str, str] = {}
    for line, row in tabular.rows(path, ("x", "y", "label"), AGAIN, delimiter="\t"):
        if row["x"] == "NA" or row["y"] == "NA":
            continue
        spot = _spot(*(_number(row, name, path, line) for name in ("x", "y")))
        if row["label"] not in CANCER + NORMAL:
            raise IbmaError(
                f"{path}: line {line}: label '{row['label']}' is not one of "
                f"{', '.join(CANCER + NORMAL)}"
            )
        if spot in labels:
            raise IbmaError(f"{path}: line {line}: a second label for spot {spot}: fetch it again")
        labels[spot] = row["label"]
    return labels


def _spot(x: float, y: float) -> str:
    return f"{round(x)}x{round(y)}"


def _number(row: Mapping[str, str], column: str, path: Path, line: int) -> float:
    try:
        return float(row[column])
    except ValueError:
        raise IbmaError(
            f"{path}: line {line}: {column} '{row[column]}': expected a number: fetch it again"
        ) from None
