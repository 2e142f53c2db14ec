"""Compute information-bottleneck quantities as pure functions of soft assignments.

Shapes: n samples, G class systems, K classes per system (see `ibma.network.tasks`). A soft
assignment phi is [n, G, K] with rows that sum to 1; a conditional table Q is [G, K, K] with
Q[g, a, y] = Pr[Z in a | y], columns (over a) summing to 1. All values are in nats. Equation numbers
are the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor

# CHOICE: Q is clamped here before its logarithm, so that no term of V is below -18.4 nats: entries
# can be 0 where phi is nearly one-hot
FLOOR = 1e-8


def priors(systems: Tensor) -> Tensor:
    """Return p_y of Theorem 3.1 from one-hot class systems: [n, G, K] -> [G, K].

    A sample without a label counts in none of its classes.
    """
    counts = systems.sum(0)
    return counts / counts.sum(-1, keepdim=True).clamp_min(1.0)


def u_term(phi_x: Tensor, prior: Tensor) -> Tensor:
    """Compute U_i of Theorem 3.1, averaged over class systems: [n].

    Eq. 3 factorises, phi(Z in a, X in y) = phi(Z, a) phi(X, y), so the sum over a drops out and
    U_i = KL(phi(X_i) || p): it does not contain Z and has no gradient. It is therefore computed
    once, in the centroid stage. A class with p_y = 0 has no centroid and counts as 0.

    Args:
        phi_x: [n, G, K].
        prior: p_y, [G, K].
    """
    log_ratio = torch.log(phi_x.clamp_min(FLOOR)) - torch.log(prior.clamp_min(FLOOR))
    terms = torch.where(prior > 0, phi_x * log_ratio, torch.zeros_like(phi_x))
    return terms.sum(-1).mean(-1)


def v_term(phi_z: Tensor, phi_other: Tensor, q: Tensor) -> Tensor:
    """Compute V_i of Theorem 3.1, averaged over class systems: [n].

    The sum over a and y of phi_z[a] phi_other[y] ln Q[a, y] is bilinear: one [K, K] product, never
    [n, K, K].

    Args:
        phi_z: of the modality that is aligned, [n, G, K].
        phi_other: of the other modality, or one-hot labels for the fused term (Eq. 11), [n, G, K].
        q: [G, K, K], taken as a constant.
    """
    log_q = torch.log(q.detach().clamp_min(FLOOR))
    return (phi_z * torch.einsum("gay,ngy->nga", log_q, phi_other)).sum(-1).mean(-1)


def conditional(phi_z: Tensor, systems: Tensor) -> Tensor:
    """Compute Q of Eqs. 10 and 12 (Algorithms 3 and 4) from phi_z and systems [n, G, K]."""
    return normalise_conditional(*conditional_sums(phi_z, systems))


def conditional_sums(phi_z: Tensor, systems: Tensor) -> tuple[Tensor, Tensor]:
    """Return numerator [G, K, K] and class counts [G, K] of Q, so that batches can be added up."""
    return torch.einsum("nga,ngy->gay", phi_z, systems), systems.sum(0)


def normalise_conditional(joint: Tensor, counts: Tensor) -> Tensor:
    """Divide the sums of `conditional_sums`; a class nobody has keeps the uniform column 1/K."""
    q = joint / counts.clamp_min(1.0).unsqueeze(1)
    return torch.where(counts.unsqueeze(1) > 0, q, torch.full_like(q, 1.0 / q.shape[-1]))


def mutual_information(phi_a: Tensor, phi_b: Tensor) -> Tensor:
    """Compute the plug-in I(A, B) of the averaged joint table, averaged over class systems.

    The joint table of one sample is an outer product (Eqs. 3 and 4).

    Args:
        phi_a, phi_b: [n, G, K] and [n, G, L].
    """
    joint = torch.einsum("nga,ngb->gab", phi_a, phi_b) / len(phi_a)
    product = joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True)
    log_ratio = torch.log(joint.clamp_min(torch.finfo(joint.dtype).tiny)) - torch.log(
        product.clamp_min(torch.finfo(joint.dtype).tiny)
    )
    return (joint * log_ratio).sum((1, 2)).mean()


def ib_modality(phi_z: Tensor, phi_x: Tensor, phi_others: list[Tensor]) -> Tensor:
    """Compute IB^(j) = I(Z_j, X_j) - I(Z_j, Z_j'), averaged over j' (section 3.1).

    This plug-in value, not IBB, is the "IB loss" of Table 5: IBB is never negative.
    """
    alignment = torch.stack([mutual_information(phi_z, other) for other in phi_others]).mean()
    return mutual_information(phi_z, phi_x) - alignment


def ib_fused(phi_z: Tensor, phi_xs: list[Tensor], systems: Tensor) -> Tensor:
    """Compute IB^(fuse) = sum_j I(Z, X_j) - I(Z, Y) (section 3.1)."""
    compression = torch.stack([mutual_information(phi_z, phi_x) for phi_x in phi_xs]).sum()
    return compression - mutual_information(phi_z, systems)


def plug_in_information(
    phi_a: Tensor, phi_b: Tensor, marginal_a: Tensor, marginal_b: Tensor
) -> Tensor:
    """Compute `mutual_information` of a batch against given marginals, with a gradient.

    Where the marginals are the batch's own, value and gradient are those of `mutual_information`.

    Args:
        phi_a, phi_b: [n, G, K] and [n, G, L].
        marginal_a, marginal_b: [G, K] and [G, L], taken as constants.
    """
    joint = torch.einsum("nga,ngb->gab", phi_a, phi_b) / len(phi_a)
    product = marginal_a.detach().unsqueeze(2) * marginal_b.detach().unsqueeze(1)
    ratio = joint.clamp_min(FLOOR).log() - product.clamp_min(FLOOR).log()
    return (joint * ratio).sum((1, 2)).mean()


def gate_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the KL of multiplicative Gaussian gates, prior optimised out, per feature [D].

    Dai et al. 2018; zhuchen03/VIBNet@2ebc51c, ib_layers.py, kl_closed_form (which sums them).
    """
    return 0.5 * torch.log1p(mean.square() / (log_variance.exp() + FLOOR))


def gate_log_alpha(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return ln of the gates' noise-to-signal ratio [D]; evaluation shuts gates that are >= 0."""
    return log_variance - torch.log(mean.square() + FLOOR)


def gaussian_kl(mean: Tensor, std: Tensor) -> Tensor:
    """Compute KL(N(mean, std^2) || N(0, 1)) per element, in nats; same shape as `mean`."""
    return 0.5 * (mean.square() + std.square() - 1.0) - torch.log(std)


def released_bound(phi_z: Tensor, phi_other: Tensor, phi_x: Tensor) -> Tensor:
    """Compute the bound of the released code, averaged over class systems: a scalar.

    Statistical-Deep-Learning/IBMA@c04b18b, ib_loss.py: -H(phi(X)) minus the bilinear term with a Q
    that is estimated on the batch from both soft assignments and keeps its gradient. It has neither
    p_y nor, like IBB, a gradient through its compression half. All arguments are [n, G, K].
    """
    q = batch_conditional(phi_z, phi_other)
    negative_entropy = (phi_x * torch.log(phi_x.clamp_min(1e-9))).sum(-1)
    log_q = torch.log(q.clamp_min(1e-9))
    cross = (phi_z * torch.einsum("gay,ngy->nga", log_q, phi_other)).sum(-1)
    return (negative_entropy - cross).mean()


def batch_conditional(phi_z: Tensor, phi_other: Tensor) -> Tensor:
    """Compute Q[g, a, y] = Pr[Z in a | Z' in y] from two soft assignments (released code).

    A class to which no sample of the batch is assigned has probability 0, there NaN.
    """
    mass = phi_other.sum(0).unsqueeze(1).clamp_min(1e-9)
    return torch.einsum("nga,ngy->gay", phi_z, phi_other) / mass


def club(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the vCLUB estimate of I(X, Z) on a batch (paper Algorithm 2, line 6), in nats.

    The mean of ln q(z_j | x_i) over j needs only the first two moments of z, so this exact form
    costs O(n d); the normaliser of q cancels. It equals `club_pairwise` (Linear95/CLUB@57b4ad7,
    mi_estimators.py).

    Args:
        z: [n, d].
        mean, log_variance: of the Gaussian q(z | x_i), [n, d].
    """
    first, second = z.mean(0), z.square().mean(0)
    positive = (z - mean).square()
    negative = second - 2.0 * mean * first + mean.square()
    return ((negative - positive) / (2.0 * log_variance.exp())).sum(1).mean()


def club_pairwise(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute `club` as the papers write it, over all pairs: O(n^2 d) time and memory."""
    positive = (z - mean).square()
    negative = (z[None] - mean[:, None]).square().mean(1)
    return ((negative - positive) / (2.0 * log_variance.exp())).sum(1).mean()


def club_learning_loss(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the negative log-likelihood of q without its constant, which q minimises, in nats.

    As Statistical-Deep-Learning/IBMA@c04b18b, ib_losses.py; Linear95/CLUB@57b4ad7 uses twice this.
    """
    return 0.5 * ((z - mean).square() / log_variance.exp() + log_variance).sum(1).mean()
