"""APIB's HSIC Lasso as a bound."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ibma.methods.ibma import BoundSpec, Frame, Step
from ibma.methods.ibma.apib import label_kernel
from ibma.network import dependence
from ibma.network.method import FUSED


class Bound(Frame):
    """APIB nearer to its Lasso: learnable feature weights b that explain the labels' kernel.

    CHOICE, as for `apib`: ||L - sum_k b_k K_k||^2 / (2 B^2) + 5e-5 ||b||_1 for every representation
    with the centred Laplace kernel of each feature; b multiplies the representation.
    """

    SPARSITY = 5e-5

    def __init__(self, spec: BoundSpec, align: bool) -> None:
        super().__init__(spec, align)
        self.weights = nn.ParameterDict(
            {place: nn.Parameter(torch.ones(spec.widths[place])) for place in self.places}
        )
        self.undecayed = list(self.weights.values())

    def transform(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Multiply every feature by its weight."""
        extra[f"feature/{place}"] = value
        weights: Tensor = self.weights[place]
        return value * weights

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return `lasso/<place>`."""
        places = self.places if self.align else (FUSED,)
        return {f"lasso/{p}": self.term(step, (p, p), self._lasso) for p in places if p in step.z}

    def _lasso(self, place: str, _: str, step: Step) -> Tensor:
        labels = dependence.centre(label_kernel(self.spec.task, step.systems))
        features = step.extra[f"feature/{place}"]
        kernels = dependence.centre(dependence.laplace_kernel(features.T.unsqueeze(-1)))
        weights: Tensor = self.weights[place]
        rest = labels - torch.einsum("d,dij->ij", weights, kernels)
        return 0.5 * rest.square().mean() + self.SPARSITY * weights.abs().sum()
