"""Aligned IB: aligning multimodal representations through an information bottleneck (2025).

Citation: A. Almudévar, J. M. Hernández-Lobato, S. Khurana, R. Marxer, A. Ortega. Aligning
multimodal representations through an information bottleneck. ICML 2025, arXiv 2506.04870. It is no
baseline of the paper: this row is ours, because it asks IBMA's question (what is specific to a
modality harms the alignment).

Official code: antonioalmudevar/multimodal_ib@600bc92, src/experiments/disentanglement/
regularization.py and alignment.py; src/experiments/captioning/aligners/deterministic_ib.py.

Code over paper: only the code and the abstract were read. The abstract derives a regulariser that
removes what is specific to a modality; in the code it is one minus the cosine of the two embeddings
of a sample.

Choices: the whole adaptation. The original aligns two encoders by a symmetric InfoNCE (temperature
learnt, from .07) plus beta times that term, and classifies nothing. Here both terms join the task
loss of the shared network: one linear projection a modality (CHOICE, as its captioning model has)
carries them, the fusion reads the embeddings. weight weighs both, beta the second within them (.1,
.01 and 1 in its configurations). Three modalities: means over pairs. Temperature: learnt as there.

Parity: not tested; its term is a cosine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.features.store import Batch
from ibma.network import dependence
from ibma.network.method import Fused, Output, Spec

TEMPERATURE = 0.07  # where it starts


def disagreement(a: Tensor, b: Tensor) -> Tensor:
    """Return one minus the mean cosine of two views of the same samples, [B, D] each: a scalar."""
    return 1.0 - F.cosine_similarity(a, b, dim=1).mean()


class Model(Fused):
    """Aligned IB: the shared network; projections of the modalities agree on every sample.

    Args:
        weight: of both terms beside the task loss (CHOICE: 1).
        beta: of the regulariser beside the contrastive loss.
    """

    compares = True
    compares_samples = True
    own_weights = ("weight",)

    def __init__(self, spec: Spec, *, weight: float = 1.0, beta: float = 0.1) -> None:
        super().__init__(spec)
        self.weight, self.beta = spec.weight_factor * weight, beta
        self.projections = nn.ModuleDict({n: nn.Linear(spec.width, spec.width) for n in self.names})
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds projected/<modality> [B, D]."""
        out = super().forward(x)
        out.extra |= {f"projected/{n}": self.projections[n](out.z[n]) for n in self.names}
        return out

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task`, `contrastive` and `disagreement`."""
        agree = partial(dependence.contrastive, temperature=self.log_temperature.exp())
        views = out.views("projected")
        contrastive, apart = (
            self.over_pairs(batch, [term] * len(self.pairs), views)
            for term in (agree, disagreement)
        )
        return super().losses(out, batch) | {
            "contrastive": self.weight * contrastive,
            "disagreement": self.weight * self.beta * apart,
        }
