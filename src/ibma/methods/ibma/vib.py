"""VIB by gates, as Dai et al. (2018) compress networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ibma.methods.ibma import BoundSpec, Step
from ibma.methods.ibma._contrasted import Contrasted
from ibma.network import bounds
from ibma.network.method import standard_normal


class Bound(Contrasted):
    """VIB by multiplicative Gaussian gates on every representation (Dai et al. 2018).

    zhuchen03/VIBNet@2ebc51c, ib_layers.py. The gates do not depend on the input. CHOICE: KL per
    dimension, so that eta in (0, 1) can weigh it (the undivided one is left out); no weight decay
    on gates; the fused gate's KL bounds I(Z, X_m) for every m.
    """

    def __init__(self, spec: BoundSpec, align: bool) -> None:
        super().__init__(spec, align)
        self.mean = nn.ParameterDict(
            {p: nn.Parameter(1.0 + 0.01 * torch.randn(spec.widths[p])) for p in self.places}
        )
        self.log_variance = nn.ParameterDict(
            {p: nn.Parameter(-9.0 + 0.01 * torch.randn(spec.widths[p])) for p in self.places}
        )
        self.undecayed = [*self.mean.values(), *self.log_variance.values()]

    def transform(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Multiply by noisy gates in training, by hard ones in evaluation."""
        mean, log_variance = self.mean[place], self.log_variance[place]
        gate: Tensor = mean * (bounds.gate_log_alpha(mean, log_variance) < 0)
        if self.training:
            gate = mean + (0.5 * log_variance).exp() * standard_normal(value)
        return value * gate

    def compress(self, place: str, modality: str, step: Step) -> Tensor:
        """Return the mean KL of the place's gates."""
        return bounds.gate_kl(self.mean[place], self.log_variance[place]).mean()
