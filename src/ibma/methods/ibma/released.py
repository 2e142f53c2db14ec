"""The bound of the authors' released code."""

from __future__ import annotations

from itertools import permutations

from torch import Tensor

from ibma.methods.ibma import Step
from ibma.methods.ibma._assigned import Assigned
from ibma.network import bounds


class Bound(Assigned):
    """The authors' released bound of the modalities; their code has no fused representation."""

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return `ibb/<j>|<j'>`."""
        self.assign(step)
        pairs = permutations(self.names, 2)
        return {f"ibb/{j}|{o}": self.term(step, (j, o), self._bound) for j, o in pairs}

    def _bound(self, j: str, other: str, step: Step) -> Tensor:
        return bounds.released_bound(self.phi(j, step), self.phi(other, step), step.phi_x[j])
