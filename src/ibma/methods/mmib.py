"""MMIB: multimodal information bottleneck (Zhang et al., 2022), our reading of the abstract.

Citation: T. Zhang, H. Zhang, S. Xiang, T. Wu. Information bottleneck based representation learning
for multimodal sentiment analysis. CCEAI 2022, doi 10.1145/3522749.3523069.

Official code: none was found, and the text was not available. The abstract (and that of a follow-up
by two of its authors) says to raise the information between the modalities of each pair and to
lower it inside each modality.

Code over paper: nothing to compare.

Choices: everything numeric. Per modality a linear mean and log-variance (clamped to [-8, 8]); the
information between a pair is the Jensen-Shannon estimate of
mfederici/Multi-View-Information-Bottleneck@296fbb9, utils/modules.py, one critic a pair, negatives
by rolling the batch; the information inside is KL to the standard normal per dimension. The first
is averaged over pairs, the second over modalities; weights .1 and 1e-3. The fusion is the shared
one. Evaluation takes the means.

Parity: fmib_jsd_mi (the closest public analogue, not MMIB's code).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.features.store import Batch
from ibma.network import bounds
from ibma.network.method import Fusion, Method, Output, Spec, presence

LIMIT = 8.0  # of |ln variance|


def critic(width: int, hidden: int) -> nn.Sequential:
    """Build the critic T([a; b]), [B, 2 width] -> [B, 1]."""
    return nn.Sequential(
        nn.Linear(2 * width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 1),
    )


def jensen_shannon(score: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """Estimate the information between a and b, [B, d] each, as a scalar that grows with it."""
    positive = score(torch.cat([a, b], dim=1))
    negative = score(torch.cat([a.roll(1, 0), b], dim=1))
    return -F.softplus(-positive).mean() - F.softplus(negative).mean()


class Model(Method):
    """MMIB: Gaussian embeddings that know much of each other and little of their input.

    Args:
        relate: weight a of the information between modalities.
        compress: weight b of the information inside each.
    """

    compares = True
    compares_samples = True
    own_weights = ("relate", "compress")

    def __init__(self, spec: Spec, *, relate: float = 0.1, compress: float = 1e-3) -> None:
        super().__init__(spec)
        self.relate, self.compress = spec.weight_factor * relate, spec.weight_factor * compress
        width = spec.width
        self.mean = nn.ModuleDict({n: nn.Linear(width, width) for n in self.names})
        self.log_variance = nn.ModuleDict({n: nn.Linear(width, width) for n in self.names})
        self.critics = nn.ModuleList([critic(width, 2 * width) for _ in self.pairs])
        self.fusion = Fusion(len(self.names), width, spec.heads)
        self.head = spec.task.head(width)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds mean/, std/ and sample/<modality> [B, D]."""
        z = self.encode(x)
        extra: dict[str, Tensor] = {}
        for name in self.names:
            mean = self.mean[name](z[name])
            std = (0.5 * self.log_variance[name](z[name]).clamp(-LIMIT, LIMIT)).exp()
            sample = mean + std * self.noise(std)
            extra |= {f"mean/{name}": mean, f"std/{name}": std, f"sample/{name}": sample}
        samples = [extra[f"sample/{name}"] for name in self.names]
        fused = self.fusion(samples, presence(x, self.names))
        return Output(z, fused, self.head(fused), extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task`, `between` (minus the weighted information) and `inside`."""
        critics = (partial(jensen_shannon, score) for score in self.critics)
        between = self.over_pairs(batch, critics, out.views("sample"))
        mean, std = out.views("mean"), out.views("std")
        inside = [
            self.where_known(batch, [n], torch.mean, bounds.gaussian_kl(mean[n], std[n]))
            for n in self.names
        ]
        return super().losses(out, batch) | {
            "between": -self.relate * between,
            "inside": self.compress * torch.stack(inside).mean(),
        }
