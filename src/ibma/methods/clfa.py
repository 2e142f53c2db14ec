"""CLFA: contrastive learning with feature alignment (Zhang et al., 2024).

Citation: M. Zhang, K. Chang, Y. Wu. Multi-modal semantic understanding with contrastive cross-modal
feature alignment. LREC-COLING 2024, arXiv 2403.06355.

Official code: ChangKe123/CLFA@ac96b8d, models.py (VitBERT).

Code over paper: the training script adds sentiment graphs to the attention, which the abstract
disclaims; they are left out.

Choices: the whole adaptation. The original pulls text and image features to frozen CLIP vectors of
the same sample. Sound and gene expression have no CLIP and its weights may be absent, so
projections of the modalities (512 -> 1536 -> 512 as there) are pulled to each other by the same
symmetric InfoNCE at temperature .1, negatives from the batch. One pair: alpha times its loss;
three: alpha times their mean, so that the scale does not grow. The projections enter the shared
fusion (there a cross-attention encoder over tokens).

Parity: clfa_contrastive.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from ibma.features.store import Batch
from ibma.network import dependence
from ibma.network.method import Fusion, Method, Output, Spec, presence

WIDENING = 3  # hidden width of a projection over the embedding width


class Model(Method):
    """CLFA: projections of the modalities, pulled to each other, enter the shared fusion.

    Args:
        alpha: weight of the contrastive loss.
        temperature: of its cosines.
    """

    compares = True
    compares_samples = True
    own_weights = ("alpha",)

    def __init__(self, spec: Spec, *, alpha: float = 1.0, temperature: float = 0.1) -> None:
        super().__init__(spec)
        self.alpha, self.temperature = spec.weight_factor * alpha, temperature
        width = spec.width
        self.projections = nn.ModuleDict(
            {
                n: nn.Sequential(
                    nn.Linear(width, WIDENING * width),
                    nn.ReLU(),
                    nn.Linear(WIDENING * width, width),
                )
                for n in self.names
            }
        )
        self.fusion = Fusion(len(self.names), width, spec.heads)
        self.head = spec.task.head(width)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds projected/<modality> [B, D]."""
        z = self.encode(x)
        extra = {f"projected/{name}": self.projections[name](z[name]) for name in self.names}
        fused = self.fusion(extra.values(), presence(x, self.names))
        return Output(z, fused, self.head(fused), extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task` and `contrastive`."""
        agree = partial(dependence.contrastive, temperature=self.temperature)
        contrastive = self.over_pairs(batch, [agree] * len(self.pairs), out.views("projected"))
        return super().losses(out, batch) | {"contrastive": self.alpha * contrastive}
