"""IBB, the paper's bound (Theorem 3.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import permutations

import torch
from torch import Tensor

from ibma.methods.ibma import BoundSpec, Step
from ibma.methods.ibma._assigned import Assigned
from ibma.network import bounds
from ibma.network.method import FUSED


class Bound(Assigned):
    """The paper's bound: U constant, V against a Q that is recomputed before every epoch."""

    compares_samples = False

    def __init__(self, spec: BoundSpec, align: bool) -> None:
        super().__init__(spec, align)
        systems, classes = spec.systems
        self.register_buffer("u", torch.tensor([spec.u.get(name, 0.0) for name in self.names]))
        for place in self.assigned:
            uniform = torch.full((systems, classes, classes), 1.0 / classes)
            self.register_buffer(f"q_{place}", uniform)

    def set_u(self, u: Mapping[str, float]) -> None:
        """Replace the constants U of some modalities, in nats."""
        for name, value in u.items():
            self.get_buffer("u")[self.names.index(name)] = value

    def update_from_sums(self, epoch: int) -> None:
        """Recompute Q, from the second epoch on."""
        if epoch > 0:
            for place in self.assigned:
                joint, counts = (self.get_buffer(f"{kind}_{place}") for kind in ("joint", "counts"))
                q = bounds.normalise_conditional(joint, counts)
                self.get_buffer(f"q_{place}").copy_(q)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return `ibb/<j>|<j'>` and `ibb/fused`, in nats."""
        self.assign(step)
        terms = {}
        if self.align:
            for j, other in permutations(self.names, 2):
                terms[f"ibb/{j}|{other}"] = self.term(step, (j, other), self._aligned)
        if FUSED in step.z:
            v = self.v(FUSED, self.phi(FUSED, step), step.systems)
            terms[f"ibb/{FUSED}"] = self.get_buffer("u").sum() - v
        return terms

    def regime(self, step: Step) -> dict[str, Tensor]:
        """Add `v/<place>`: V over its value -ln K at a uniform Q, 1 where the bound does nothing.

        V of a modality is the mean over the others that it is aligned with, 0 for one without any
        sample in common; a single modality is aligned with nothing and has none.
        """
        floor, found = -math.log(max(self.spec.systems[1], 2)), super().regime(step)
        for place in self.assigned:
            others = [other for other in self.names if other != place]
            if place != FUSED and others:
                values = [self.term(step, (place, other), self._v_of_those) for other in others]
                found[f"v/{place}"] = torch.stack(values).mean() / floor
        if FUSED in step.z:
            found[f"v/{FUSED}"] = self.v(FUSED, self.phi(FUSED, step), step.systems) / floor
        return found

    def _v_of_those(self, j: str, other: str, part: Step) -> Tensor:
        """Return V of the samples that have both; `term` multiplies by their share."""
        return self.v(j, self.phi(j, part), self.phi(other, part)) / part.share

    def _aligned(self, j: str, other: str, step: Step) -> Tensor:
        v = self.v(j, self.phi(j, step), self.phi(other, step))
        return self.get_buffer("u")[self.names.index(j)] - v

    def v(self, place: str, phi: Tensor, other: Tensor) -> Tensor:
        """Return the batch mean of V."""
        return bounds.v_term(phi, other, self.get_buffer(f"q_{place}")).mean()
