"""Share what the bounds of soft assignments need: feature centroids and phi of representations."""

from __future__ import annotations

import torch
from torch import Tensor

from ibma.features.store import Batch
from ibma.methods.ibma import Frame, representation
from ibma.network import bounds, distributed
from ibma.network.method import FUSED, Output, Outputs, Spec


class Assigned(Frame):
    """Keep feature centroids, renewed before every epoch, and assign representations to them.

    The next centroids are made of running sums over the training split, in buffers: class sums of
    the features [G, K, D], class counts [G, K], and the joint sums [G, K, K] of which Q is made
    (`bounds.conditional_sums`), which hold phi under the centroids still in force.
    """

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        systems, classes = spec.systems
        self.assigned = self.places if align else (FUSED,)
        self.register_buffer("counts", torch.zeros(systems, classes))
        for place in self.assigned:
            self.register_buffer(f"centroids_{place}", torch.zeros(systems, classes, spec.width))
            self.register_buffer(f"sums_{place}", torch.zeros(systems, classes, spec.width))
            self.register_buffer(f"joint_{place}", torch.zeros(systems, classes, classes))

    def phi(self, place: str, feature: Tensor) -> Tensor:
        """Assign features [B, D] to the centroids in force: [B, G, K]."""
        return self.spec.assignment.phi(feature, self.get_buffer(f"centroids_{place}"))

    def phi_of(self, place: str, out: Output) -> Tensor:
        """Return phi of a step's representation, [B, G, K]; it is computed once."""
        key = f"phi/{place}"
        if key not in out.extra:
            out.extra[key] = self.phi(place, representation(place, out))
        return out.extra[key]

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Add the step's representations to the sums, if the next centroids are made of those."""
        if self.spec.refresh == "epoch" and batch.weight:
            self.add_to_sums(out, batch)

    def add_to_sums(self, out: Output, batch: Batch) -> None:
        """Add a batch to the sums, with phi under the centroids in force."""
        phi = {place: self.phi_of(place, out) for place in self.assigned}  # losses need its graph
        systems = self.spec.systems_of(batch)
        with torch.no_grad():
            self.get_buffer("counts").add_(systems.sum(0))
            for place in self.assigned:
                sums, _ = bounds.conditional_sums(phi[place], systems)
                self.get_buffer(f"joint_{place}").add_(sums)
                sums = torch.einsum("ngk,nd->gkd", systems, representation(place, out))
                self.get_buffer(f"sums_{place}").add_(sums)

    def refresh(self, epoch: int, outputs: Outputs) -> None:
        """Replace the centroids by class means of the training split, and empty the sums."""
        if epoch == 0 or self.spec.refresh == "pass":
            for out, batch in outputs():
                self.add_to_sums(out, batch)
        kinds = ("sums", "joint")
        sums = [self.get_buffer(f"{kind}_{place}") for kind in kinds for place in self.assigned]
        counts = self.get_buffer("counts")
        distributed.add_up([counts, *sums])
        self.update_from_sums(epoch)
        for place in self.assigned:
            new = self.spec.assignment.centroids(self.get_buffer(f"sums_{place}"), counts)
            self.get_buffer(f"centroids_{place}").copy_(new)
        for spent in (counts, *sums):
            spent.zero_()

    def update_from_sums(self, epoch: int) -> None:
        """Hook: recompute Q before new centroids replace the old."""
