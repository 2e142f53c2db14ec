"""Share what the bounds of soft assignments need: feature centroids and phi of representations."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ibma.methods.ibma import BoundSpec, Frame, Step
from ibma.network import bounds, distributed
from ibma.network.method import FUSED


class Assigned(Frame):
    """Keep feature centroids, renewed before every epoch, and assign representations to them.

    The next centroids are made of running sums over the training split, in buffers of each place:
    class counts [G, K], class sums of the features [G, K, D], and the joint sums [G, K, K] of which
    Q is made (`bounds.conditional_sums`), which hold phi under the centroids still in force.
    """

    SUMS = ("counts", "sums", "joint")

    def __init__(self, spec: BoundSpec, align: bool) -> None:
        super().__init__(spec, align)
        systems, classes = spec.systems
        self.assigned = self.places if align else (FUSED,)
        for place in self.assigned:
            width = spec.widths[place]
            self.register_buffer(f"centroids_{place}", torch.zeros(systems, classes, width))
            self.register_buffer(f"counts_{place}", torch.zeros(systems, classes))
            self.register_buffer(f"sums_{place}", torch.zeros(systems, classes, width))
            self.register_buffer(f"joint_{place}", torch.zeros(systems, classes, classes))

    def assigned_of(self, step: Step) -> list[str]:
        """Return the assigned places that a step has: a caller of the loss may fuse nothing."""
        return [place for place in self.assigned if place in step.z]

    def assign(self, step: Step) -> Step:
        """Compute phi [B, G, K] of a step's places, once: `Step.extra` keeps it."""
        for place in self.assigned_of(step):
            if f"phi/{place}" not in step.extra:
                centroids = self.get_buffer(f"centroids_{place}")
                step.extra[f"phi/{place}"] = self.spec.assignment.phi(step.z[place], centroids)
        return step

    def inner_step(self, step: Step) -> None:
        """Add the step's representations to the sums, if the next centroids are made of those."""
        self.assign(step)
        if self.spec.refresh == "epoch" and step.weight:
            self.add_to_sums(step)

    @torch.no_grad()
    def add_to_sums(self, step: Step) -> None:
        """Add a batch that `assign` has seen to the sums of each place, where samples have it."""
        for place in self.assigned_of(step):
            part = step.having(place)
            joint, counts = bounds.conditional_sums(part.extra[f"phi/{place}"], part.systems)
            self.get_buffer(f"joint_{place}").add_(joint)
            self.get_buffer(f"counts_{place}").add_(counts)
            sums = torch.einsum("ngk,nd->gkd", part.systems, part.z[place])
            self.get_buffer(f"sums_{place}").add_(sums)

    def refresh(self, epoch: int, passes: Iterable[Step]) -> None:
        """Replace the centroids by class means of the training split, and empty the sums."""
        for step in passes:
            self.add_to_sums(self.assign(step))
        distributed.add_up(self._sums())
        self.update_from_sums(epoch)
        for place in self.assigned:
            counts = self.get_buffer(f"counts_{place}")
            new = self.spec.assignment.centroids(self.get_buffer(f"sums_{place}"), counts)
            self.get_buffer(f"centroids_{place}").copy_(new)
        self.forget()

    def regime(self, step: Step) -> dict[str, Tensor]:
        """Return `phi_max/<place>`, phi's mean maximum, and `phi_entropy/<place>` over ln K.

        Both are 0 where no sample has the modality.
        """
        nats = math.log(max(self.spec.systems[1], 2))
        found = {}
        for place in self.assigned_of(step):
            phi = self.phi(place, step.having(place))
            count = max(phi.shape[0] * phi.shape[1], 1)
            found[f"phi_max/{place}"] = phi.amax(-1).sum() / count
            entropy = -(phi * phi.clamp_min(bounds.FLOOR).log()).sum()
            found[f"phi_entropy/{place}"] = entropy / count / nats
        return found

    def forget(self) -> None:
        """Empty the sums."""
        for spent in self._sums():
            spent.zero_()

    def _sums(self) -> list[Tensor]:
        return [self.get_buffer(f"{kind}_{place}") for kind in self.SUMS for place in self.assigned]

    def update_from_sums(self, epoch: int) -> None:
        """Hook: recompute Q before new centroids replace the old."""

    def phi(self, place: str, step: Step) -> Tensor:
        """Return phi of a place of a step that `assign` has seen, [B, G, K]."""
        return step.extra[f"phi/{place}"]
