"""IBB, the paper's bound (Theorem 3.1)."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from ibma.features.store import Batch
from ibma.methods.ibma._assigned import Assigned
from ibma.network import bounds
from ibma.network.method import FUSED, Output, Spec


class Bound(Assigned):
    """The paper's bound: U constant, V against a Q that is recomputed before every epoch."""

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        systems, classes = spec.systems
        for place in self.assigned:
            uniform = torch.full((systems, classes, classes), 1.0 / classes)
            self.register_buffer(f"q_{place}", uniform)

    def update_from_sums(self, epoch: int) -> None:
        """Recompute Q, from the second epoch on."""
        if epoch > 0:
            for place in self.assigned:
                joint, counts = self.get_buffer(f"joint_{place}"), self.get_buffer("counts")
                q = bounds.normalise_conditional(joint, counts)
                self.get_buffer(f"q_{place}").copy_(q)

    def terms(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `ibb/<j>|<j'>` and `ibb/fused`, in nats."""
        terms, u = {}, self.spec.u
        if self.align:
            for j, other in permutations(self.names, 2):
                v = self.v(j, self.phi_of(j, out), self.phi_of(other, out))
                terms[f"ibb/{j}|{other}"] = u[j] - v
        v = self.v(FUSED, self.phi_of(FUSED, out), self.spec.systems_of(batch))
        return terms | {f"ibb/{FUSED}": sum(u.values()) - v}

    def v(self, place: str, phi: Tensor, other: Tensor) -> Tensor:
        """Return the batch mean of V."""
        return bounds.v_term(phi, other, self.get_buffer(f"q_{place}")).mean()
