"""Measure how much two batches of vectors share or differ: pieces of several methods' losses.

Estimates of information are in nats. Shapes: a and b are [B, d].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

FLOOR = 1e-12


def infonce(scores: Tensor) -> Tensor:
    """Compute InfoNCE, a lower bound on the information between two views, at most ln B.

    ln B minus it is the contrastive cross-entropy of CLIP. Source: Linear95/CLUB@57b4ad7,
    mi_estimators.py, InfoNCE.

    Args:
        scores: [B, B]; entry (i, j) scores row i of one view with row j of the other, so that the
            true pairs lie on the diagonal.
    """
    return (scores.diagonal() - scores.logsumexp(1)).mean() + math.log(len(scores))


def cosine_scores(a: Tensor, b: Tensor, temperature: float | Tensor) -> Tensor:
    """Return the cosine of every row of a [B, d] and of b [N, d] over the temperature: [B, N].

    A zero row has cosine 0 with everything.
    """
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature


def contrastive(a: Tensor, b: Tensor, temperature: float | Tensor) -> Tensor:
    """Compute the symmetric InfoNCE cross-entropy between two views of the same samples: a scalar.

    ChangKe123/CLFA@ac96b8d, models.py, VitBERT.contrastive (on pooled vectors).
    """
    scores = cosine_scores(a, b, temperature)
    return math.log(len(a)) - 0.5 * (infonce(scores) + infonce(scores.T))


def cmd(a: Tensor, b: Tensor, moments: int = 5) -> Tensor:
    """Compute the central moment discrepancy of two batches: a scalar.

    declare-lab/MISA@ec42fad, src/utils/functions.py: without the factors 1/|b - a|^k of the
    original definition. Equal moments have distance 0 and, unlike there, gradient 0 instead of NaN.
    """
    mean_a, mean_b = a.mean(0), b.mean(0)
    total = _norm(mean_a - mean_b)
    for k in range(2, moments + 1):
        total = total + _norm((a - mean_a).pow(k).mean(0) - (b - mean_b).pow(k).mean(0))
    return total


def _norm(x: Tensor) -> Tensor:
    """Return the Euclidean norm of all numbers, whose gradient at 0 is 0.

    Not by `sqrt`: that is MKL's, which rounds differently on different processors.
    """
    norm: Tensor = torch.linalg.vector_norm(x)
    return norm


def laplace_kernel(x: Tensor) -> Tensor:
    """Compute the Laplace kernel exp(-sqrt(1 / 2d) ||x_i - x_j||): [..., B, d] -> [..., B, B].

    The kernel and width of songxmu/APIB@6ed8d9d, pruners/HSIClasso.py (ICCV version).
    """
    return torch.exp(-math.sqrt(0.5 / x.shape[-1]) * _distances(x))


def _distances(x: Tensor) -> Tensor:
    # a matrix product would lose the small ones to rounding
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def centre(kernel: Tensor) -> Tensor:
    """Centre kernels: H K H with H = I - 11^T / B, [..., B, B] -> [..., B, B]."""
    rows = kernel - kernel.mean(-1, keepdim=True)
    return rows - rows.mean(-2, keepdim=True)


def hsic(a: Tensor, b: Tensor) -> Tensor:
    """Compute the normalised HSIC of two kernels, in [0, 1] for positive semi-definite ones.

    It is the biased estimate: <HaH, HbH> over the product of the norms.

    Args:
        a, b: [B, B], not yet centred.
    """
    a, b = centre(a), centre(b)
    return (a * b).sum() / (_norm(a) * _norm(b) + FLOOR)
