"""The mathematics of the paper as properties, and parity with the released code."""

import itertools

import numpy as np
import pytest
import torch
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ibma.network import bounds, tasks
from ibma.network.centroids import Assignment, ClassSums


def draw_phi(rng: torch.Generator, n: int, g: int, k: int, sharpness: float) -> Tensor:
    return torch.softmax(sharpness * torch.randn(n, g, k, generator=rng, dtype=torch.float64), -1)


problems = st.tuples(
    st.integers(0, 10_000),
    st.integers(2, 20),
    st.integers(1, 3),
    st.integers(2, 6),
    st.floats(0.1, 8.0),
)


@given(problems)
@settings(max_examples=60, deadline=None)
def test_ib_is_below_ibb_under_the_assumption_of_theorem_3_1(problem):
    """The theorem assumes Pr[X in y] = p_y, so p is taken as the mean of phi(X)."""
    seed, n, g, k, sharpness = problem
    rng = torch.Generator().manual_seed(seed)
    z, other, x = (draw_phi(rng, n, g, k, sharpness) for _ in range(3))
    q = bounds.normalise_conditional(*bounds.conditional_sums(z, draw_phi(rng, n, g, k, 1.0)))
    ib = bounds.ib_modality(z, x, [other])
    ibb = (bounds.u_term(x, x.mean(0)) - bounds.v_term(z, other, q)).mean()
    assert ib <= ibb + 1e-9
    assert ibb >= -1e-9, "IBB is a KL plus a cross-entropy: never negative"


@given(problems)
@settings(max_examples=60, deadline=None)
def test_the_bound_needs_no_assumption_on_the_class_shares(problem):
    """Any p gives a bound: E[phi ln 1/p] is a cross-entropy, lowest where p is the mean of phi."""
    seed, n, g, k, sharpness = problem
    rng = torch.Generator().manual_seed(seed)
    z, other, x = (draw_phi(rng, n, g, k, sharpness) for _ in range(3))
    q = bounds.normalise_conditional(*bounds.conditional_sums(z, draw_phi(rng, n, g, k, 1.0)))
    shares = torch.softmax(sharpness * torch.randn(g, k, generator=rng, dtype=x.dtype), -1)
    tight, loose = (bounds.u_term(x, p).mean() for p in (x.mean(0), shares))
    assert tight <= loose + 1e-9
    assert bounds.ib_modality(z, x, [other]) <= loose - bounds.v_term(z, other, q).mean() + 1e-9


@given(problems)
@settings(max_examples=40, deadline=None)
def test_equation_3_factorises_and_u_does_not_contain_z(problem):
    seed, n, _, k, sharpness = problem
    rng = torch.Generator().manual_seed(seed)
    logits_z = torch.randn(n, k, generator=rng, dtype=torch.float64, requires_grad=True)
    logits_x = sharpness * torch.randn(n, k, generator=rng, dtype=torch.float64)
    joint = torch.softmax((logits_z[:, :, None] + logits_x[:, None, :]).flatten(1), 1)
    joint = joint.view(n, k, k)
    phi_z, phi_x = torch.softmax(logits_z, 1), torch.softmax(logits_x, 1)
    assert torch.allclose(joint, phi_z[:, :, None] * phi_x[:, None, :], atol=1e-12)
    prior = torch.softmax(torch.randn(k, generator=rng, dtype=torch.float64), 0)
    naive_u = (joint * torch.log(joint / (prior[None, None] * phi_z[:, :, None]))).sum((1, 2))
    closed = bounds.u_term(phi_x[:, None], prior[None])
    assert torch.allclose(naive_u, closed, atol=1e-6)
    (gradient,) = torch.autograd.grad(naive_u.sum(), logits_z)
    assert gradient.abs().max() < 1e-10


@given(problems)
@settings(max_examples=40, deadline=None)
def test_bilinear_v_equals_the_naive_sum_of_equation_4(problem):
    seed, n, g, k, sharpness = problem
    rng = torch.Generator().manual_seed(seed)
    z, other = (draw_phi(rng, n, g, k, sharpness) for _ in range(2))
    q = torch.softmax(torch.randn(g, k, k, generator=rng, dtype=torch.float64), 1)
    naive = torch.zeros(n, dtype=torch.float64)
    for a in range(k):
        for y in range(k):
            naive += (z[:, :, a] * other[:, :, y] * torch.log(q[None, :, a, y])).mean(1)
    assert torch.allclose(bounds.v_term(z, other, q), naive, atol=1e-12)


@given(problems)
@settings(max_examples=40, deadline=None)
def test_columns_of_q_sum_to_one_also_for_a_class_nobody_has(problem):
    seed, n, g, k, sharpness = problem
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, k - 1, (n, g), generator=rng)
    systems = torch.nn.functional.one_hot(labels, k).double()
    q = bounds.conditional(draw_phi(rng, n, g, k, sharpness), systems)
    assert torch.allclose(q.sum(1), torch.ones(g, k, dtype=torch.float64))


def test_algorithm_3_by_hand():
    phi = torch.tensor([[[0.9, 0.1]], [[0.7, 0.3]], [[0.2, 0.8]]])
    systems = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    expected = torch.tensor([[[0.8, 0.2], [0.2, 0.8]]])
    assert torch.allclose(bounds.conditional(phi, systems), expected)


def test_uniform_q_gives_no_gradient():
    z = torch.randn(5, 1, 4, requires_grad=True)
    v = bounds.v_term(
        torch.softmax(z, -1), torch.softmax(torch.randn(5, 1, 4), -1), torch.full((1, 4, 4), 0.25)
    )
    assert torch.allclose(v, torch.full((5,), -float(np.log(4))))
    v.sum().backward()
    assert z.grad is not None and z.grad.abs().max() < 1e-6


def test_one_class_makes_every_bound_vanish():
    phi = torch.ones(6, 1, 1)
    assert bounds.u_term(phi, torch.ones(1, 1)).abs().max() == 0
    assert bounds.v_term(phi, phi, torch.ones(1, 1, 1)).abs().max() == 0


def test_mutual_information_of_copies_is_the_entropy():
    systems = torch.eye(4, dtype=torch.float64)[torch.arange(8) % 4].unsqueeze(1)
    assert bounds.mutual_information(systems, systems) == pytest.approx(np.log(4))
    uniform = torch.full((8, 1, 4), 0.25, dtype=torch.float64)
    assert bounds.mutual_information(systems, uniform) == pytest.approx(0.0, abs=1e-12)


def slow_information(a: Tensor, b: Tensor) -> float:
    """Sum the averaged joint table of every class system cell by cell; mean over systems."""
    total = 0.0
    for g in range(a.shape[1]):
        joint = sum(torch.outer(x, y) for x, y in zip(a[:, g], b[:, g], strict=True)) / len(a)
        for row, column in itertools.product(range(joint.shape[0]), range(joint.shape[1])):
            if joint[row, column] > 0:
                product = joint[row].sum() * joint[:, column].sum()
                total += float(joint[row, column] * torch.log(joint[row, column] / product))
    return total / a.shape[1]


@given(problems)
@settings(max_examples=20, deadline=None)
def test_ib_losses_are_compression_less_alignment_or_prediction(problem):
    """Of two other modalities and three inputs; labels leave cells of the joint table empty."""
    seed, n, g, k, sharpness = problem
    rng = torch.Generator().manual_seed(seed)
    z, one, two, x = (draw_phi(rng, n, g, k, sharpness) for _ in range(4))
    systems = torch.nn.functional.one_hot(torch.randint(0, k, (n, g), generator=rng), k).double()
    kept = {name: slow_information(z, other) for name, other in (("x", x), ("1", one), ("2", two))}
    found = float(bounds.ib_modality(z, x, [one, two]))
    assert found == pytest.approx(kept["x"] - (kept["1"] + kept["2"]) / 2, abs=1e-9)
    found = float(bounds.ib_fused(z, [x, one, two], systems))
    assert found == pytest.approx(sum(kept.values()) - slow_information(z, systems), abs=1e-9)


def test_u_is_a_kl_from_class_shares_and_a_class_nobody_has_counts_as_zero():
    systems = torch.tensor([[[1.0, 0, 0]], [[1, 0, 0]], [[0, 1, 0]], [[1, 0, 0]]])
    prior = bounds.priors(systems)
    assert prior.tolist() == [[0.75, 0.25, 0.0]]
    phi = torch.tensor([[[0.5, 0.25, 0.25]], [[0.0, 1.0, 0.0]]], dtype=torch.float64)
    expected = torch.tensor([0.5 * np.log(0.5 / 0.75), np.log(4)], dtype=torch.float64)
    torch.testing.assert_close(bounds.u_term(phi, prior.double()), expected)


def test_gaussian_kl_equals_torch():
    mean, std = torch.randn(5, 3, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(mean, std), normal(torch.zeros_like(mean), torch.ones_like(std))
    )
    assert torch.allclose(bounds.gaussian_kl(mean, std), expected, atol=1e-12)


def test_parity_cluster_scores():
    d = golden("ibma_cluster_scores_beta1.0")
    for normalise, key in ((True, "scores"), (False, "scores_nonorm")):
        assignment = Assignment(float(d["beta"]), normalise)
        phi = assignment.phi(d["features"], d["centroids"].unsqueeze(0))
        assert torch.allclose(phi[:, 0], d[key], atol=1e-8, rtol=0)


def test_parity_estimate_q():
    d = golden("ibma_estimate_q")
    q = bounds.batch_conditional(d["scores_first"].unsqueeze(1), d["scores_second"].unsqueeze(1))
    assert torch.allclose(q[0], d["q"], atol=1e-8, rtol=0)


def test_the_released_bound_is_finite_where_a_batch_lacks_a_class():
    phi = torch.eye(3)[[0, 1, 0, 1]].unsqueeze(1).requires_grad_()
    value = bounds.released_bound(phi, phi, phi.detach())
    value.backward()
    assert value.isfinite() and phi.grad.isfinite().all()


def test_priors_count_samples_without_a_label_nowhere():
    y = torch.tensor([[1.0, 0.0], [0.0, torch.nan], [-1.0, torch.nan]])
    prior = bounds.priors(tasks.build("multilabel", ["a", "b"]).systems(y))
    assert prior.tolist() == [[0.5, 0.5], [1.0, 0.0]]


def test_parity_ib_upper_bound():
    d = golden("ibma_ib_upper_bound")
    first, second, x = (
        d[k].unsqueeze(1) for k in ("scores_first", "scores_second", "input_scores")
    )
    assert torch.allclose(bounds.batch_conditional(first, second)[0], d["q"], atol=1e-8)
    assert torch.allclose(bounds.released_bound(first, second, x), d["bound"], atol=1e-8, rtol=0)


def test_parity_ib_upper_bound_loss_and_its_gradients():
    d = golden("ibma_IBUpperBoundLoss")
    for beta in (1.0, 2.5):
        assignment = Assignment(beta, True)
        a, b = (d[f"features_{m}"].clone().requires_grad_() for m in "ab")
        phi_a = assignment.phi(a, d["centroids_a"])
        phi_b = assignment.phi(b, d["centroids_b"])
        loss_a = bounds.released_bound(phi_a, phi_b, d["input_scores_a"])
        loss_b = bounds.released_bound(phi_b, phi_a, d["input_scores_b"])
        assert torch.allclose(loss_a, d[f"loss_a_mean_b{beta}"], atol=1e-8, rtol=0)
        assert torch.allclose(loss_b, d[f"loss_b_mean_b{beta}"], atol=1e-8, rtol=0)
        if beta == 1.0:
            (loss_a + loss_b).backward()
            assert torch.allclose(a.grad, d["grad_a"], atol=1e-8, rtol=0)
            assert torch.allclose(b.grad, d["grad_b"], atol=1e-8, rtol=0)


def test_parity_compute_centroids_with_a_label_that_is_in_neither_class():
    d = golden("ibma_compute_centroids")
    systems = torch.stack([d["labels"] == 0, d["labels"] == 1], -1).double()
    assignment = Assignment()
    sums = ClassSums.zeros((3, 2), 5, d["features"])
    sums.add(d["features"], systems)
    found = assignment.centroids(sums.sums, sums.counts)
    assert torch.allclose(found[:, 1], d["centroids"], atol=1e-8, rtol=0)
    assert torch.allclose(found[:, 0], d["anti_centroids"], atol=1e-8, rtol=0)


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_club_by_moments_equals_all_pairs(seed, n, d):
    rng = torch.Generator().manual_seed(seed)
    z, mean, log_variance = (
        torch.randn(n, d, generator=rng, dtype=torch.float64) for _ in range(3)
    )
    moments = bounds.club(z, mean, log_variance)
    pairs = bounds.club_pairwise(z, mean, log_variance)
    assert torch.allclose(moments, pairs, atol=1e-10, rtol=1e-10)


def test_parity_club_of_the_released_code():
    d = golden("ibma_club")

    def net(name: str, x: Tensor) -> Tensor:
        w = {k: d[f"w__{name}__{k.replace('.', '__')}"] for k in ("0.weight", "0.bias")}
        hidden = torch.relu(x @ w["0.weight"].T + w["0.bias"])
        return hidden @ d[f"w__{name}__2__weight"].T + d[f"w__{name}__2__bias"]

    mean, log_variance = net("mu_net", d["x"]), torch.tanh(net("logvar_net", d["x"]))
    assert torch.allclose(bounds.club(d["y"], mean, log_variance), d["club"], atol=1e-8, rtol=0)
    learning = bounds.club_learning_loss(d["y"], mean, log_variance)
    assert torch.allclose(learning, d["learning_loss"], atol=1e-8, rtol=0)
