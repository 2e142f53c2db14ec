"""Concat: the embeddings side by side, one linear layer (the simplest baseline).

Source: GeWu-Lab/OGM-GE_CVPR2022@343dc1d, models/fusion_modules.py, ConcatFusion (audio before
visual); with three modalities the same over three. The paper cites Perez 2018 here, which is FiLM;
its text says early fusion by concatenation, and that is what this is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ibma.methods import Method, Output, Spec


class Model(Method):
    """logits = W [z_1; ...; z_M] + b: a sum of linear scores, with no term across modalities.

    CHOICE: the method keeps its own fusion instead of the shared attention block (the paper says
    both "same fusion" and "same encoders"). CHOICE: the linear layer starts xavier-normal with zero
    bias as in OGM-GE; the encoders keep their own start. `Output.fused` is the concatenation,
    [B, M * D], for want of a fused representation of width D.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.head = spec.task.head(len(self.names) * spec.width)
        nn.init.xavier_normal_(self.head.weight)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """x: modality -> [B, ...]."""
        z = self.encode(x)
        fused = torch.cat(list(z.values()), dim=1)
        return Output(z, fused, self.head(fused), {})
