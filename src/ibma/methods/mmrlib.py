"""MMRLIB: multimodal representation learning with information bottleneck (Cui et al., 2024).

Citation: S. Cui, J. Cao, X. Cong, J. Sheng, Q. Li, T. Liu, J. Shi. Enhancing multimodal entity and
relation extraction with variational information bottleneck. TASLP 2024, arXiv 2304.02328. Its own
name is MMIB.

Official code: cuishiyao96/MMIB@89be362, models/model.py, models/layers.py.

Code over paper: what is called a log deviation is used as a log variance; KL is a mean over
dimensions; the alignment score is a vector of sigmoids, not a scalar.

Choices: one token per modality, so its attention over one key is a linear map and its two-step
cross fusion carries nothing: the block stays, the fusion is the shared one. Log variance clamped
to [-8, 8]. Its task loss is a sum over a batch of 8 beside terms that are means, all weights 1.
Ours stays a mean, so that learning rate and weight decay act as elsewhere, and the terms weigh an
eighth: the same proportions at any batch size. Three modalities: KLs summed, alignment averaged
over pairs with a discriminator each. Evaluation takes the means (its relation trainer samples at
test).

Parity: mmrlib_reparam_kl, mmrlib_align_concat.
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
SUMMED = 8  # samples over which the code's task loss is a sum: its batch


def alignment(score: nn.Module, a: Tensor, b: Tensor, negatives: int = 1) -> Tensor:
    """Compute the discriminator's loss of true pairs against rolled ones: a scalar.

    Args:
        score: maps a and b, both [B, D], to logits.
        negatives: how many rolls of b, by 1, 2, ...
    """
    true = score(a, b)
    loss = F.binary_cross_entropy_with_logits(true, torch.ones_like(true))
    for shift in range(1, negatives + 1):
        false = score(a, b.roll(shift, 0))
        loss = loss + F.binary_cross_entropy_with_logits(false, torch.zeros_like(false))
    return loss


class ConcatScore(nn.Module):
    """Score pairs by Linear([a; b]): [B, D], [B, D] -> logits [B, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return logits of the pairs."""
        scores: Tensor = self.linear(torch.cat([a, b], dim=1))
        return scores


class Block(nn.Module):
    """Apply the code's attention block to one token: P = LN(x + W_o W_v x), LN(P + Linear P)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        self.linear = nn.Linear(width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, D]."""
        attended = self.norms[0](x + self.out(self.value(x)))
        normed: Tensor = self.norms[1](attended + self.linear(attended))
        return normed


class Model(Method):
    """MMRLIB: Gaussian embeddings, aligned by a discriminator of true pairs.

    Args:
        align_weight, kl_weight: loss weights, 1 as in the code. They count beside its sum over a
            batch of 8, so that a term here weighs an eighth of them.
    """

    compares = True
    compares_samples = True
    own_weights = ("align_weight", "kl_weight")

    def __init__(self, spec: Spec, *, align_weight: float = 1.0, kl_weight: float = 1.0) -> None:
        super().__init__(spec)
        shares = (spec.weight_factor * each / SUMMED for each in (align_weight, kl_weight))
        self.align_weight, self.kl_weight = shares
        width = spec.width
        self.mean = nn.ModuleDict({n: Block(width) for n in self.names})
        self.log_variance = nn.ModuleDict({n: Block(width) for n in self.names})
        self.scores = nn.ModuleList([ConcatScore(width) for _ in self.pairs])
        self.fusion = Fusion(len(self.names), width, spec.heads)
        self.head = spec.task.head(width)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds mean/, log_variance/ and sample/<modality> [B, D]."""
        z = self.encode(x)
        extra: dict[str, Tensor] = {}
        for name in self.names:
            mean = self.mean[name](z[name])
            log_variance = self.log_variance[name](z[name]).clamp(-LIMIT, LIMIT)
            extra |= {
                f"mean/{name}": mean,
                f"log_variance/{name}": log_variance,
                f"sample/{name}": mean + (0.5 * log_variance).exp() * self.noise(mean),
            }
        samples = [extra[f"sample/{name}"] for name in self.names]
        fused = self.fusion(samples, presence(x, self.names))
        return Output(z, fused, self.head(fused), extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task`, `align` and `kl/<modality>`."""
        scores = (partial(alignment, score) for score in self.scores)
        aligned = self.over_pairs(batch, scores, out.views("sample"))
        terms = {"align": self.align_weight * aligned}
        for name in self.names:
            std = (0.5 * out.extra[f"log_variance/{name}"]).exp()
            rates = bounds.gaussian_kl(out.extra[f"mean/{name}"], std)
            kl = self.where_known(batch, [name], torch.mean, rates)
            terms[f"kl/{name}"] = self.kl_weight * kl
        return super().losses(out, batch) | terms
