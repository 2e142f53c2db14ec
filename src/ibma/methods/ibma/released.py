"""The bound of the authors' released code."""

from __future__ import annotations

from itertools import permutations

from torch import Tensor

from ibma.features.store import Batch
from ibma.methods.ibma._assigned import Assigned
from ibma.network import bounds
from ibma.network.method import Output


class Bound(Assigned):
    """The authors' released bound of the modalities; their code has no fused representation."""

    def terms(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `ibb/<j>|<j'>`."""
        phi = {name: self.phi_of(name, out) for name in self.names}
        return {
            f"ibb/{j}|{other}": bounds.released_bound(phi[j], phi[other], batch.phi_x[j])
            for j, other in permutations(self.names, 2)
        }
