"""Deep IB: deep multi-view information bottleneck (Wang et al., 2019).

Citation: Q. Wang, C. Boudreau, Q. Luo, P.-N. Tan, J. Zhou. Deep multi-view information bottleneck.
SDM 2019.

Official code: wangqi1919/Code-Deep-Multiview-Information-Bottleneck@a273ca6, multi_view_IB.py
(TensorFlow 1, Python 2).

Code over paper: ten samples of each view's bottleneck are averaged before the fusion while KL is
charged for a single one; the fused Gaussian has no KL.

Choices: it keeps its own fusion; the shared encoders stand for the code's MLPs. 256 bottleneck
units (there 20) and a fusion of 512 (there 40), to fit 512-d embeddings. One weight for all views,
1e-3. Loss in nats (there in bits, which rescales every term alike). A third view adds its own term.
Evaluation averages the predictions of ten samples as there, with noise that is the same for every
example and call.

Parity: not tested, the code does not run today; the KL is vib_alemi_kl_bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.features.store import Batch
from ibma.network import bounds
from ibma.network.method import FUSED, Method, Output, Spec, standard_normal

SAMPLES = 10


def split(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Split [..., 2k] into mean and deviation softplus(rho - 5), both [..., k]."""
    mean, rho = parameters.chunk(2, dim=-1)
    return mean, F.softplus(rho - 5.0)


class Model(Method):
    """Deep IB: a Gaussian bottleneck per view and one after the fusion.

    Args:
        bottleneck: k, units per view.
        hidden: width of the fusion.
        beta: weight of the KLs.
    """

    own_weights = ("beta",)

    def __init__(
        self, spec: Spec, *, bottleneck: int = 256, hidden: int = 512, beta: float = 1e-3
    ) -> None:
        super().__init__(spec)
        self.beta = spec.weight_factor * beta
        self.views = nn.ModuleDict({n: nn.Linear(spec.width, 2 * bottleneck) for n in self.names})
        self.fusion = nn.Sequential(
            nn.Linear(len(self.names) * bottleneck, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )
        self.head = spec.task.head(hidden // 2)
        generator = torch.Generator().manual_seed(0)
        for name, width in {**dict.fromkeys(self.names, bottleneck), FUSED: hidden // 2}.items():
            noise = torch.randn(SAMPLES, 1, width, generator=generator)
            self.register_buffer(f"noise_{name}", noise, persistent=False)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds mean/ and std/<modality> [B, k]; fused is the mean."""
        z = self.encode(x)
        extra: dict[str, Tensor] = {}
        sampled = []
        for name in self.names:
            mean, std = split(self.views[name](z[name]))
            extra |= {f"mean/{name}": mean, f"std/{name}": std}
            sampled.append(mean + std * self._draw(name, std).mean(0))
        mean, std = split(self.fusion(torch.cat(sampled, dim=1)))
        if self.training:
            logits = self.head(mean + std * standard_normal(std))
        else:
            logits = self.spec.task.average(self.head(mean + std * self._draw(FUSED, std)))
        return Output(z, mean, logits, extra)

    def _draw(self, name: str, like: Tensor) -> Tensor:
        """Draw standard normal numbers [S, B, k]; in evaluation return stored ones [S, 1, k]."""
        if self.training:
            return torch.randn(SAMPLES, *like.shape, device=like.device)
        return self.get_buffer(f"noise_{name}")

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task` and `kl/<modality>` (nats, summed over units)."""
        terms = {}
        for name in self.names:
            kl = bounds.gaussian_kl(out.extra[f"mean/{name}"], out.extra[f"std/{name}"])
            kl = self.where_known(batch, [name], torch.mean, kl.sum(1))
            terms[f"kl/{name}"] = self.beta * kl
        return super().losses(out, batch) | terms
