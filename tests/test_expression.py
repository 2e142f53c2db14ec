"""Normalisation, choice of genes and neighbourhoods, against numbers worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from ibma.errors import IbmaError
from ibma.formats import expression
from ibma.formats.expression import Counts


def counts(genes, rows, path="A1.tsv.gz"):
    return Counts(Path(path), genes, sparse.csr_matrix(np.array(rows)))


def test_totals_become_the_median_and_an_empty_spot_stays_empty():
    values = sparse.csr_matrix(np.array([[1, 3], [2, 6], [0, 0], [4, 4]]))
    assert expression._normalised(values).toarray().tolist() == [[2, 6], [2, 6], [0, 0], [4, 4]]


def test_the_choice_of_genes_by_hand():
    """A and B share a bin: ln(1.11 / 2) and ln(10 / 2) standardise to -.71 and .71.

    C is alone in its bin and scores 1; D never varies and comes last; E is seen in 9 of 10 spots.
    """
    a = [1] * 5 + [3] * 5
    b = [1] * 9 + [11]
    c = [6, 7] * 5
    d = [4] * 10
    e = [0] + [90] * 9
    values = sparse.csr_matrix(np.array([a, b, c, d, e], dtype=float).T)
    chosen = [expression._highly_variable(values, n).tolist() for n in (1, 2, 3, 4)]
    assert chosen == [[2], [1, 2], [0, 1, 2], [0, 1, 2, 3]]
    with pytest.raises(IbmaError, match="n_genes 5: only 4 genes .* in 10 spots"):
        expression._highly_variable(values, 5)


def test_a_panel_has_the_genes_of_all_slices_in_the_firsts_order_and_no_controls():
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 9, (10, 5))
    first = counts(["B", "MT-X", "A", "ERCC-1", "ONLY"], rows)
    rows_of_second = [[1, 3, 50, 70, 90], [0, 0, 60, 0, 7]]
    second = counts(["A", "B", "A", "MT-X", "ERCC-1"], rows_of_second, "B1.tsv.gz")
    ((row, *_), (b_and_a, nothing)) = expression.panel([first, second], 2)
    scale = np.median(rows[:, 0] + rows[:, 2]) / (rows[0, 0] + rows[0, 2])
    assert row == pytest.approx(np.log1p(rows[0, [0, 2]] * scale), rel=1e-6)
    assert b_and_a == pytest.approx(np.log1p([3, 1])), "of A listed twice the first column counts"
    assert nothing is None, "the second A and the controls do not make it a spot with counts"


def test_slices_without_a_common_gene_are_refused():
    with pytest.raises(IbmaError, match="no gene is in every slice: expected gene symbols"):
        expression.panel([counts(["A"], [[1]]), counts(["ENSG1"], [[1]])], 1)


def test_a_slice_without_counts_or_with_those_of_another_is_refused():
    rows = np.random.default_rng(0).integers(1, 9, (10, 2))
    first = counts(["A", "B"], rows)
    for other, told in {
        "a copy": (counts(["B", "A"], rows[:, ::-1], "B1.tsv.gz"), "the same counts as A1.tsv.gz"),
        "controls": (counts(["A", "B", "MT-X"], [[0, 0, 5]], "B1.tsv.gz"), "no spot has a count"),
    }.values():
        with pytest.raises(IbmaError, match=f"B1.tsv.gz: {told}"):
            expression.panel([first, other], 1)


def test_the_neighbourhood_is_the_mean_of_adjacent_spots_only():
    grid = [(1, 1), (2, 2), (2, 1), (4, 1), (1, 2)]
    rows = [np.array([v], dtype=np.float32) for v in (1, 2, 4, 8)] + [None]
    around = expression.neighbourhood(rows, grid)
    assert [None if near is None else float(near[0]) for near in around] == [
        3.0,  # of 2 and 4; the empty spot is passed over
        2.5,
        1.5,
        None,  # (4, 1) has no neighbour
        pytest.approx(7 / 3),
    ]
