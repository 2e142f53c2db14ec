"""CLUB, the contrastive upper bound of Cheng et al. (2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.methods.ibma import BoundSpec, Step
from ibma.methods.ibma._contrasted import Contrasted
from ibma.network import bounds
from ibma.network.method import FUSED


class Estimator(nn.Module):
    """CLUB's q(z | x): mean and, through tanh, log variance, a ReLU network each."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance [B, D] of z given inputs [B, R]."""
        return self.mean(x), self.log_variance(x).tanh()


class Bound(Contrasted):
    """CLUB's upper bound (vCLUB) with a learnt q per (representation, input) pair (Algorithm 2).

    Linear95/CLUB@57b4ad7, mi_estimators.py. q learns in its own optimiser before every step, on Z
    as data; the bound's gradient reaches Z alone. CHOICE: Adam 1e-3, one inner step, hidden width
    D; Z layer-normalised, since q's variance lies in (1/e, e); the bound is per dimension (divided
    by D), so that eta in (0, 1) can weigh it, and the undivided one is left out. pairwise: the
    published O(n^2) form, for timing; the value is the same.
    """

    optimiser: torch.optim.Adam

    def __init__(self, spec: BoundSpec, align: bool, *, pairwise: bool = False) -> None:
        super().__init__(spec, align)
        self.estimate = bounds.club_pairwise if pairwise else bounds.club
        pairs = [(FUSED, name) for name in self.names]
        if align:
            pairs += [(name, name) for name in self.names]
        self.q = nn.ModuleDict(
            {f"{p}|{m}": Estimator(spec.input_widths[m], spec.widths[p]) for p, m in pairs}
        )
        self.optimiser = torch.optim.Adam(self.q.parameters(), lr=1e-3, fused=True)

    def target(self, place: str, step: Step) -> Tensor:
        """Return Z as q sees it."""
        return F.layer_norm(step.z[place], (self.spec.widths[place],))

    def inner_step(self, step: Step) -> None:
        """Fit every q to this batch; it keeps no gradient that another optimiser could apply."""
        pairs = [(place, modality) for place, _, modality in (k.partition("|") for k in self.q)]
        pairs = [pair for pair in pairs if pair[0] in step.z]
        losses = [self.term(step, pair, self._learning_loss) for pair in pairs]
        if not losses:
            return
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _learning_loss(self, place: str, modality: str, step: Step) -> Tensor:
        z, q = self.target(place, step).detach(), self.q[f"{place}|{modality}"]
        return bounds.club_learning_loss(z, *q(step.inputs[modality]))

    def compress(self, place: str, modality: str, step: Step) -> Tensor:
        """Return the vCLUB estimate per dimension."""
        with torch.no_grad():
            mean, log_variance = self.q[f"{place}|{modality}"](step.inputs[modality])
        total = self.estimate(self.target(place, step), mean, log_variance)
        return total / self.spec.widths[place]
