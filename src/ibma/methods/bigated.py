"""BiGated: one modality opens gates on the others (Kiela et al., 2018).

Citation: D. Kiela, E. Grave, A. Joulin, T. Mikolov. Efficient large-scale multi-modal
classification. AAAI 2018.

Official code: none. GeWu-Lab/OGM-GE_CVPR2022@343dc1d, models/fusion_modules.py, GatedFusion, is
what the CREMA-D literature runs under this name.

Code over paper: the paper's bilinear gate takes an outer product of two small projections; the code
multiplies element by element, as here.

Choices: the gate is audio on CREMA-D as in OGM-GE, else text, else expression (the paper tunes it).
Three modalities: the gate's sigmoid multiplies every other projection, and the products are
concatenated. Linear layers start xavier-normal with zero bias as in OGM-GE. The gate is the fusion.

Parity: bigated_ogm_audiogate.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ibma.network.method import Method, Output, Spec, xavier

GATE_KINDS = ("text", "expression", "audio")  # which kind gates, in order of preference


class Model(Method):
    """BiGated: logits = W [sigmoid(g) * v_m for every other modality m], g and v linear in z.

    The gate's content reaches the logits through its sigmoid only. `Output.fused` is what the head
    reads, [B, (M - 1) * D].
    """

    compares = True

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.gate = choose_gate(spec)
        self.projections = nn.ModuleDict({n: nn.Linear(spec.width, spec.width) for n in self.names})
        self.head = spec.task.head((len(self.names) - 1) * spec.width)
        xavier([*self.projections.values(), self.head])

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network on stored features, modality -> [B, ...]."""
        z = self.encode(x)
        projected = {name: self.projections[name](z[name]) for name in self.names}
        gated = (projected[name] for name in self.names if name != self.gate)
        fused = torch.cat([projected[self.gate].sigmoid() * value for value in gated], dim=1)
        return Output(z, fused, self.head(fused), {})


def choose_gate(spec: Spec) -> str:
    """Return the first modality of the most preferred kind, else the first one."""
    for kind in GATE_KINDS:
        for name, modality in spec.modalities.items():
            if modality.kind == kind:
                return name
    return next(iter(spec.modalities))
