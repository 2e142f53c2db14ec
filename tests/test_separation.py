"""The closed form of IBB's alignment term is what the code computes, in every regime of phi."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ibma.network import bounds
from ibma.network.centroids import Assignment
from ibma.results import separation as closed_form


def simplex(classes: int, width: int, norm: float, separation: float, seed: int) -> Tensor:
    """Class means [K, D] of one norm, all equally far from each other, in a random rotation.

    separation: as `separation.exponents` defines it, for vectors of unit norm.
    """
    corners = torch.eye(classes, dtype=torch.float64) - 1 / classes
    corners = corners / corners.norm(dim=1, keepdim=True)
    rest = torch.full((classes, 1), (1 - separation**2) ** 0.5, dtype=torch.float64)
    vectors = torch.cat([separation * corners, rest], dim=1)
    rng = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=rng, dtype=torch.float64))
    return norm * vectors @ turn[: classes + 1]


def by_the_code(means: Tensor, assignment: Assignment) -> Tensor:
    """-V of two modalities whose samples are their class means, Q estimated from them."""
    classes = len(means)
    systems = torch.eye(classes, dtype=torch.float64)[:, None]
    phi = assignment.phi(means, assignment.centroids(means[None], torch.ones(1, classes)))
    return -bounds.v_term(phi, phi, bounds.conditional(phi, systems)).mean()


@given(
    st.integers(2, 10),
    st.floats(0, 1),
    st.sampled_from([1.0, 4.0, 16.0, 64.0]),
    st.floats(0.5, 3.0),
    st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_the_closed_form_is_v_term_of_classes_on_a_simplex(classes, separation, beta, norm, seed):
    """Unit vectors: whatever the norm. The printed formula: the norm enters as beta does."""
    means = simplex(classes, 16, norm, separation, seed)
    for normalise, sharpness in ((True, beta), (False, beta * norm**2)):
        exponent = closed_form.exponents(classes, sharpness, np.array([separation]))
        closed = closed_form.alignment(classes, exponent)[0]
        coded = float(by_the_code(means, Assignment(beta, normalise)))
        assert coded == pytest.approx(closed, abs=1e-5)


@given(st.integers(2, 10), st.floats(0.01, 0.99), st.sampled_from([1.0, 4.0, 16.0, 64.0]))
@settings(max_examples=60, deadline=None)
def test_with_q_held_the_gradient_pulls_classes_apart_even_where_the_value_rises(
    classes, separation, beta
):
    apart = torch.tensor(separation, dtype=torch.float64, requires_grad=True)
    corners = torch.eye(classes, dtype=torch.float64) - 1 / classes
    corners = corners / corners.norm(dim=1, keepdim=True)
    rest = (1 - apart.square()).sqrt().expand(classes, 1)
    value = by_the_code(torch.cat([apart * corners, rest], dim=1), Assignment(beta, True))
    (slope,) = torch.autograd.grad(value, apart)
    assert slope <= 0, "v_term takes Q as a constant"


def test_seven_classes_of_unit_vectors_at_beta_one():
    found = closed_form.course(7, 1.0)
    numbers = [round(n, 3) for n in (found.start, found.highest, found.end)]
    assert numbers == [1.946, 1.998, 1.807]
    assert 0.5 < found.at < 1


def test_a_course_starts_at_ln_k_and_rises_above_it_to_a_height_that_beta_does_not_change():
    for classes in closed_form.CLASSES:
        flat = closed_form.course(classes, 1.0)
        assert flat.highest > np.log(classes) + 0.02 > np.log(classes) > flat.end
        for one in closed_form.REGIMES:
            found = closed_form.course(classes, one.sharpness)
            assert found.start == pytest.approx(np.log(classes), abs=1e-12)
            apart = closed_form.exponents(classes, one.sharpness, np.array(1.0))
            assert found.end == pytest.approx(closed_form.alignment(classes, apart), abs=1e-12)
            assert found.highest == pytest.approx(flat.highest, abs=1e-4)
            assert found.at == pytest.approx(flat.at / one.sharpness**0.5, rel=0.05)
