"""The bound of the authors' released code."""

from __future__ import annotations

from itertools import permutations

from torch import Tensor

from ibma.errors import IbmaError
from ibma.methods.ibma import BoundSpec, Step
from ibma.methods.ibma._assigned import Assigned
from ibma.network import bounds


class Bound(Assigned):
    """The authors' released bound of the modalities; their code has no fused representation."""

    def __init__(self, spec: BoundSpec, align: bool) -> None:
        if not align:
            raise IbmaError(
                "params.yaml: bound 'released' bounds single modalities only, nothing is left "
                "of it with align: false: remove one of the two"
            )
        if len(spec.names) < 2:
            raise IbmaError("bound 'released': expected two modalities or more, there is one")
        super().__init__(spec, align)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return `ibb/<j>|<j'>`."""
        self.assign(step)
        pairs = permutations(self.names, 2)
        return {f"ibb/{j}|{o}": self.term(step, (j, o), self._bound) for j, o in pairs}

    def _bound(self, j: str, other: str, step: Step) -> Tensor:
        return bounds.released_bound(self.phi(j, step), self.phi(other, step), step.phi_x[j])
