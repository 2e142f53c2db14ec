"""APIB's HSIC Lasso as a bound."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ibma.features.store import Batch
from ibma.methods.ibma import Frame
from ibma.network import dependence
from ibma.network.method import FUSED, Output, Spec


class Bound(Frame):
    """APIB nearer to its Lasso: learnable feature weights b that explain the labels' kernel.

    CHOICE, as for `apib`: ||L - sum_k b_k K_k||^2 / (2 B^2) + 5e-5 ||b||_1 for every representation
    with the centred Laplace kernel of each feature; b multiplies the representation.
    """

    SPARSITY = 5e-5

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        self.weights = nn.ParameterDict(
            {p: nn.Parameter(torch.ones(spec.width)) for p in self.places}
        )
        self.undecayed = list(self.weights.values())

    def transform(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Multiply every feature by its weight."""
        extra[f"feature/{place}"] = value
        weights: Tensor = self.weights[place]
        return value * weights

    def terms(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `lasso/<place>`."""
        labels = dependence.centre(dependence.label_kernel(self.spec.systems_of(batch)))
        terms = {}
        for place in self.places if self.align else (FUSED,):
            features = out.extra[f"feature/{place}"]
            kernels = dependence.centre(dependence.laplace_kernel(features.T.unsqueeze(-1)))
            weights = self.weights[place]
            rest = labels - torch.einsum("d,dij->ij", weights, kernels)
            terms[f"lasso/{place}"] = (
                0.5 * rest.square().mean() + self.SPARSITY * weights.abs().sum()
            )
        return terms
