"""The plug-in information bottleneck as a loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ibma.methods.ibma import BoundSpec, Step
from ibma.methods.ibma._assigned import Assigned
from ibma.network import bounds, distributed
from ibma.network.method import FUSED


class Bound(Assigned):
    """The plug-in IB itself on the batch, against running marginals: it does compress.

    Not in the paper. CHOICE: marginals keep 9 parts in 10 of the past; with the batch's own the
    value would be biased more, the smaller the batch. Several processes share them.
    """

    MEMORY = 0.9

    def __init__(self, spec: BoundSpec, align: bool) -> None:
        super().__init__(spec, align)
        systems, classes = spec.systems
        for what in (*self.assigned, *(f"x_{name}" for name in self.names), "y"):
            uniform = torch.full((systems, classes), 1.0 / classes)
            self.register_buffer(f"marginal_{what}", uniform)

    def inner_step(self, step: Step) -> None:
        """Move every marginal towards the batch's."""
        super().inner_step(step)
        self._move_marginals(step)

    @torch.no_grad()
    def _move_marginals(self, step: Step) -> None:
        counted = float(bool(step.weight))
        totals = {
            what: torch.cat([value.sum(0), value.new_full(value.shape[1:], len(value))]) * counted
            for what, value in self._assignments(step)
        }
        distributed.add_up(totals.values())
        for what, total in totals.items():
            sums, counts = total.chunk(2)
            weight = (1.0 - self.MEMORY) * (counts > 0)
            old = self.get_buffer(f"marginal_{what}")
            new = old.lerp(sums / counts.clamp_min(1.0), weight)
            old.copy_(torch.where(new.isfinite(), new, old))  # a batch may hold NaN

    def _assignments(self, step: Step) -> Iterator[tuple[str, Tensor]]:
        """Yield phi of every place and input for the samples that have it, and the labels."""
        for place in self.assigned_of(step):
            yield place, self.phi(place, step.having(place))
        for name in self.names:
            yield f"x_{name}", step.having(name).phi_x[name]
        yield "y", step.systems

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return the terms of `Frame`."""
        return super().terms(self.assign(step))

    def compress(self, place: str, modality: str, step: Step) -> Tensor:
        """Return I(Z, X) of the averaged joint table."""
        phi = self.phi(place, step)
        return self.information(place, phi, f"x_{modality}", step.phi_x[modality])

    def relate(self, j: str, other: str, step: Step) -> Tensor:
        """Return I(Z_j, Z_other) of the averaged joint table."""
        return self.information(j, self.phi(j, step), other, self.phi(other, step))

    def predict(self, step: Step) -> Tensor | None:
        """Return I(Z, Y) of the averaged joint table."""
        if FUSED not in step.z:
            return None
        return self.information(FUSED, self.phi(FUSED, step), "y", step.systems)

    def information(self, a: str, phi_a: Tensor, b: str, phi_b: Tensor) -> Tensor:
        """Return `bounds.plug_in_information` with the running marginals of a and b."""
        marginal_a, marginal_b = (self.get_buffer(f"marginal_{what}") for what in (a, b))
        return bounds.plug_in_information(phi_a, phi_b, marginal_a, marginal_b)
