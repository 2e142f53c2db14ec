"""Concat: one linear layer on the concatenated embeddings.

Source: GeWu-Lab/OGM-GE_CVPR2022@343dc1d, models/fusion_modules.py (ConcatFusion): no hidden layer,
activation, norm or dropout; the first modality comes first. The paper cites Perez et al. 2018, who
describe FiLM; its text says "early fusion method, Concat", which is what stands here. The logits
are a sum of unimodal linear scores: nothing crosses modalities after the encoders.

CHOICE: xavier-normal weights and zero bias for the linear layer (OGM-GE initialises the whole model
so; the encoders here keep their own initialisation).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ibma.methods import Method, Output, Spec


class Model(Method):
    """Task loss only; `fused` is the concatenation [B, M D]."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.head = nn.Linear(len(self.names) * spec.width, spec.task.outputs)
        nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """x: modality -> [B, ...]."""
        z = self.encode(x)
        fused = torch.cat(list(z.values()), dim=1)
        return Output(z, fused, self.head(fused), {})
