"""Turn gene counts of tissue slices into log-normalised vectors over one panel of genes.

Order of steps as Catchxu/STANDS@b1abd13, src/stands/_read.py; formulas as scanpy (see each).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma.errors import IbmaError

CONTROLS = ("ERCC", "MT-")  # spike-ins and mitochondrial genes: dropped before anything is counted
MIN_SPOTS = 10  # a gene seen in fewer spots of the first slice is no candidate
BINS = 20  # of mean expression; scanpy's default

Row = NDArray[np.float32] | None  # None: nothing was counted there


@dataclass(frozen=True)
class Counts:
    """Raw counts of one slice: their file, gene symbols [g], a scipy CSR matrix [spots, g]."""

    path: Path
    genes: Sequence[str]
    values: Any


def panel(slices: Sequence[Counts], n_genes: int) -> list[list[Row]]:
    """Return log-normalised expression of every spot of every slice, [n_genes] each.

    Genes are those that all slices have, in the first slice's order, less the controls; of a
    symbol listed twice the first column counts. Kept are the n_genes that vary most in the first
    slice.

    Args:
        slices: Raw counts.
        n_genes: How many genes are kept.

    Returns:
        A list of rows for each slice; None in place of a row for a spot without any count.

    Raises:
        IbmaError: Two slices hold the same counts, one holds none, or fewer than n_genes can be
            chosen.
    """
    shared = _shared_genes(slices)
    if not shared:
        raise IbmaError("no gene is in every slice: expected gene symbols in all files")
    _refuse_copies(slices)
    normalised = [_normalised(_columns(counts, shared)) for counts in slices]
    chosen = _highly_variable(normalised[0], n_genes)
    return [_rows(values, chosen) for values in normalised]


def _shared_genes(slices: Sequence[Counts]) -> list[str]:
    everywhere = set.intersection(*(set(counts.genes) for counts in slices))
    kept = (gene for gene in dict.fromkeys(slices[0].genes) if gene in everywhere)
    return [gene for gene in kept if not gene.startswith(CONTROLS)]


def _refuse_copies(slices: Sequence[Counts]) -> None:
    """Refuse two slices whose spots have the same totals, one by one: one stands in for another."""
    seen: dict[bytes, Path] = {}
    for counts in slices:
        first = seen.setdefault(_totals(counts.values).tobytes(), counts.path)
        if first != counts.path:
            raise IbmaError(f"{counts.path}: the same counts as {first}: fetch both again")


def _totals(values: Any) -> NDArray[np.float64]:
    return np.asarray(values.sum(axis=1), dtype=np.float64).ravel()


def _columns(counts: Counts, genes: Sequence[str]) -> Any:
    """Return the columns of `genes`; reversed, so that the first of two equal symbols wins."""
    place = {gene: column for column, gene in reversed(list(enumerate(counts.genes)))}
    columns = counts.values[:, [place[gene] for gene in genes]]
    if not columns.sum():
        raise IbmaError(f"{counts.path}: no spot has a count: fetch it again")
    return columns


def _normalised(values: Any) -> Any:
    """Scale every spot to the slice's median total; spots without counts stay zero.

    Source: scanpy's `pp.normalize_total` with its defaults.
    """
    totals = _totals(values)
    counted = totals > 0
    scale = np.divide(np.median(totals[counted]), totals, out=np.zeros_like(totals), where=counted)
    return values.multiply(scale[:, None]).tocsr()


def _highly_variable(values: Any, n_genes: int) -> NDArray[np.int64]:
    """Return the columns of the n_genes most dispersed genes, in column order.

    ln(variance / mean) is standardised among the genes of one of 20 equal bins of ln(1 + mean); a
    gene alone in its bin scores 1. Source: scanpy's `pp.highly_variable_genes`, flavour 'seurat'.
    Of genes that tie at the edge the first in order are taken, where scanpy takes all.
    """
    import pandas as pd

    seen = np.flatnonzero(np.asarray((values > 0).sum(axis=0)).ravel() >= MIN_SPOTS)
    if len(seen) < n_genes:
        raise IbmaError(
            f"params.yaml: n_genes {n_genes}: only {len(seen)} genes are in every slice and in "
            f"{MIN_SPOTS} spots of the first: lower it"
        )
    dense = values[:, seen].toarray()
    mean, variance = dense.mean(axis=0), dense.var(axis=0, ddof=1)
    with np.errstate(divide="ignore"):
        dispersion = pd.Series(np.log(variance / mean)).replace(-np.inf, np.nan)
    binned = dispersion.groupby(pd.cut(np.log1p(mean), BINS, labels=False))
    spread = binned.transform("std")
    score = (dispersion - binned.transform("mean")) / spread
    score = score.mask(spread.isna() & dispersion.notna(), 1.0)
    best = np.argsort(-score.to_numpy(), kind="stable")[:n_genes]  # NaN last
    return seen[np.sort(best)]


def _rows(values: Any, chosen: NDArray[np.int64]) -> list[Row]:
    counted = np.asarray(values.sum(axis=1)).ravel() > 0
    logged = np.log1p(values[:, chosen].toarray()).astype(np.float32)
    return [row if any_count else None for row, any_count in zip(logged, counted, strict=True)]


def neighbourhood(rows: Sequence[Row], grid: Sequence[tuple[int, int]]) -> list[Row]:
    """Return the mean expression of the up to eight spots next to each spot, itself left out.

    Args:
        rows: Expression of each spot, None for one without counts.
        grid: Column and row of each spot on the array.

    Returns:
        A row for each spot, None for one without neighbours.
    """
    placed = dict(zip(grid, rows, strict=True))
    steps = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)]
    around = ([placed.get((x + dx, y + dy)) for dx, dy in steps] for x, y in grid)
    counted = ([row for row in near if row is not None] for near in around)
    return [np.mean(near, axis=0) if near else None for near in counted]
