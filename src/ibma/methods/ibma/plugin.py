"""The plug-in information bottleneck as a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ibma.features.store import Batch
from ibma.methods.ibma._assigned import Assigned
from ibma.network import bounds
from ibma.network.method import FUSED, Output, Spec


class Bound(Assigned):
    """The plug-in IB itself on the batch, against running marginals: it does compress.

    Not in the paper. CHOICE: marginals keep 9 parts in 10 of the past; with the batch's own the
    value would be biased more, the smaller the batch.
    """

    MEMORY = 0.9

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        systems, classes = spec.systems
        for what in (*self.assigned, *(f"x_{name}" for name in self.names), "y"):
            uniform = torch.full((systems, classes), 1.0 / classes)
            self.register_buffer(f"marginal_{what}", uniform)

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Move every marginal towards the batch's."""
        super().inner_step(out, batch)
        phi = {place: self.phi_of(place, out).detach() for place in self.assigned}
        phi |= {f"x_{name}": batch.phi_x[name] for name in self.names}
        for what, value in (phi | {"y": self.spec.systems_of(batch)}).items():
            self.get_buffer(f"marginal_{what}").lerp_(value.mean(0), 1.0 - self.MEMORY)

    def compress(self, place: str, modality: str, out: Output, batch: Batch) -> Tensor:
        """Return I(Z, X) of the averaged joint table."""
        phi = self.phi_of(place, out)
        return self.information(place, phi, f"x_{modality}", batch.phi_x[modality])

    def relate(self, j: str, other: str, out: Output) -> Tensor:
        """Return I(Z_j, Z_other) of the averaged joint table."""
        return self.information(j, self.phi_of(j, out), other, self.phi_of(other, out))

    def predict(self, out: Output, batch: Batch) -> Tensor:
        """Return I(Z, Y) of the averaged joint table."""
        phi = self.phi_of(FUSED, out)
        return self.information(FUSED, phi, "y", self.spec.systems_of(batch))

    def information(self, a: str, phi_a: Tensor, b: str, phi_b: Tensor) -> Tensor:
        """Return `bounds.plug_in_information` with the running marginals of a and b."""
        marginal_a, marginal_b = (self.get_buffer(f"marginal_{what}") for what in (a, b))
        return bounds.plug_in_information(phi_a, phi_b, marginal_a, marginal_b)
