"""Concat: the embeddings side by side, one linear layer (the simplest baseline).

Citation: E. Perez et al. FiLM: Visual reasoning with a general conditioning layer. AAAI 2018, as
the paper cites it; its text says early fusion by concatenation, and that is what this is (FiLM is
another layer: the embedding of one modality scales and shifts the other's).

Official code: GeWu-Lab/OGM-GE_CVPR2022@343dc1d, models/fusion_modules.py, ConcatFusion (audio
before visual).

Code over paper: nothing to decide.

Choices: three modalities, the same over three. The method keeps its own fusion (the paper says both
"same fusion" and "same encoders"). The linear layer starts xavier-normal with zero bias as in
OGM-GE; the encoders keep their own start.

Parity: concat_ogm.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ibma.network.method import Method, Output, Spec, xavier


class Model(Method):
    """Concat: logits = W [z_1; ...; z_M] + b, a sum of linear scores, one per modality.

    `Output.fused` is what the head reads, [B, M * D].
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.head = spec.task.head(len(self.names) * spec.width)
        xavier([self.head])

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network on stored features, modality -> [B, ...]."""
        z = self.encode(x)
        fused = torch.cat(list(z.values()), dim=1)
        return Output(z, fused, self.head(fused), {})
