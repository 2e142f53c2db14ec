"""CLUB, the sampled upper bound of Cheng et al. (2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.features.store import Batch
from ibma.methods.ibma import representation
from ibma.methods.ibma._contrasted import Contrasted
from ibma.network import bounds
from ibma.network.method import FUSED, Output, Spec


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
    """CLUB's sampled upper bound with a learnt q per (representation, input) pair (Algorithm 2).

    Linear95/CLUB@57b4ad7, mi_estimators.py. q learns in its own optimiser before every step, on Z
    as data; the bound's gradient reaches Z alone. CHOICE: Adam 1e-3, one inner step, hidden width
    D; Z layer-normalised, since q's variance lies in (1/e, e); per dimension. pairwise: the
    published O(n^2) form, for timing; the value is the same.
    """

    optimiser: torch.optim.Adam

    def __init__(self, spec: Spec, align: bool, *, pairwise: bool = False) -> None:
        super().__init__(spec, align)
        self.estimate = bounds.club_pairwise if pairwise else bounds.club
        pairs = [(FUSED, name) for name in self.names]
        if align:
            pairs += [(name, name) for name in self.names]
        self.q = nn.ModuleDict(
            {f"{p}|{m}": Estimator(spec.input_widths[m], spec.width) for p, m in pairs}
        )
        self.optimiser = torch.optim.Adam(self.q.parameters(), lr=1e-3)

    def target(self, place: str, out: Output) -> Tensor:
        """Return Z as q sees it."""
        return F.layer_norm(representation(place, out), (self.spec.width,))

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Fit every q to this batch."""
        z = {place: self.target(place, out).detach() for place in self.places}
        x = {name: batch.inputs[name] for name in self.names}
        losses = []
        for pair, q in self.q.items():
            place, modality = pair.split("|")
            losses.append(bounds.club_learning_loss(z[place], *q(x[modality])))
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def compress(self, place: str, modality: str, out: Output, batch: Batch) -> Tensor:
        """Return the vCLUB estimate per dimension."""
        with torch.no_grad():
            mean, log_variance = self.q[f"{place}|{modality}"](batch.inputs[modality])
        return self.estimate(self.target(place, out), mean, log_variance) / self.spec.width
