"""Compare two terms in their cheap form with the form that the papers write."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.measure import Row, Spread, interleaved, peak_bytes, speed_up
from ibma.network import bounds

BATCH = 64
ROUNDS = 15


def v_as_written(phi_z: Tensor, phi_other: Tensor, q: Tensor) -> Tensor:
    """Sum V_i as Theorem 3.1 does: over all a and y of the joint table, [n, G, K, K] -> [n]."""
    joint = phi_z[:, :, :, None] * phi_other[:, :, None, :]
    return (joint * torch.log(q)).sum((2, 3)).mean(1)


def assignments(n: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw phi_z and phi_other [n, 1, K], the first with a gradient, and Q [1, K, K]."""
    torch.manual_seed(0)
    phi_z, phi_other = torch.softmax(torch.randn(2, n, 1, classes), dim=-1)
    q = torch.softmax(torch.randn(1, classes, classes), dim=1)
    return phi_z.requires_grad_(), phi_other, q


def with_gradient(form: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], None]:
    """Return value and gradient, as training needs them."""

    def run() -> None:
        inputs[0].grad = None
        form(*inputs).mean().backward()

    return run


def v_forms(classes: int) -> dict[str, Callable[[], None]]:
    """Return both forms of V with its gradient, ours first."""
    inputs = assignments(BATCH, classes)
    forms = {"bilinear": bounds.v_term, "[B, C, C]": v_as_written}
    return {name: with_gradient(form, *inputs) for name, form in forms.items()}


def rows() -> Iterator[Row]:
    """Compare V over the number of classes, CLUB over the batch."""
    for classes in (6, 64, 256):
        label = f"V of a batch of {BATCH}, C = {classes}"
        yield speed_up(label, interleaved(v_forms(classes), ROUNDS))
        ours, written = map(peak_bytes, v_forms(classes).values())
        yield Row(
            f"memory of {label}",
            f"bilinear {ours / 2**20:.3g} MiB",
            f"[B, C, C] {written / 2**20:.3g} MiB",
            Spread.exactly(written / ours),
        )
    for n in (64, 256):
        z, mean = torch.randn(2, n, 512)
        inputs = (z.requires_grad_(), mean, torch.zeros_like(mean))
        forms = {"moments": bounds.club, "all pairs": bounds.club_pairwise}
        functions = {name: with_gradient(form, *inputs) for name, form in forms.items()}
        yield speed_up(f"CLUB, 512 numbers, batch of {n}", interleaved(functions, ROUNDS))
