"""BiGated: one modality opens gates on the others (Kiela et al., 2018).

Citation: D. Kiela, E. Grave, A. Joulin, T. Mikolov. Efficient large-scale multi-modal
classification. AAAI 2018.

Official code: none. GeWu-Lab/OGM-GE_CVPR2022@343dc1d, models/fusion_modules.py, GatedFusion, is
what the CREMA-D literature runs under this name.

Code over paper: the paper's bilinear gate (`reading="bilinear"`) takes an outer product of two
small projections; the code multiplies element by element, and that is the default here.

Choices: the gate is audio on CREMA-D as in OGM-GE, else text, else expression (the paper tunes it).
Three modalities: the gate's sigmoid multiplies every other projection, the products stand side by
side. Bilinear: 32 units a side. `reading="two_way"` gates in both directions and has no source.
Linear layers start xavier-normal with zero bias as in OGM-GE. The gate is the fusion, so there is
no shared-fusion form other than Concat's.

Parity: bigated_ogm_audiogate.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import torch
from torch import Tensor, nn

from ibma.network.method import Method, Output, Spec, one_of, xavier

GATE_KINDS = ("text", "expression", "audio")  # who gates, in order of preference
BILINEAR_WIDTH = 32


class Model(Method):
    """logits = W [sigmoid(g) * v_m for every other modality m], g and v linear in z.

    The gate's content reaches the logits through its sigmoid only. reading: "gated" (above),
    "bilinear" (outer product instead of *), "two_way" (every ordered pair gates). gate: name of the
    gating modality, None for the default. `Output.fused` is what the head reads.
    """

    def __init__(self, spec: Spec, *, reading: str = "gated", gate: str | None = None) -> None:
        super().__init__(spec)
        self.reading = one_of("reading", reading, ("gated", "bilinear", "two_way"))
        self.gate = one_of("gate", gate or default_gate(spec), self.names)
        width = BILINEAR_WIDTH if reading == "bilinear" else spec.width
        self.projections = nn.ModuleDict({n: nn.Linear(spec.width, width) for n in self.names})
        others = len(self.names) - 1
        products = others * len(self.names) if reading == "two_way" else others
        self.head = spec.task.head(products * (width * width if reading == "bilinear" else width))
        xavier([*self.projections.values(), self.head])

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """x: modality -> [B, ...]."""
        z = self.encode(x)
        projected = {name: self.projections[name](z[name]) for name in self.names}
        fused = torch.cat(
            [self._product(projected[g].sigmoid(), projected[m]) for g, m in self._pairs()], dim=1
        )
        return Output(z, fused, self.head(fused), {})

    def _pairs(self) -> list[tuple[str, str]]:
        """(gate, gated) in order."""
        if self.reading == "two_way":
            return list(permutations(self.names, 2))
        return [(self.gate, name) for name in self.names if name != self.gate]

    def _product(self, gate: Tensor, value: Tensor) -> Tensor:
        if self.reading == "bilinear":
            return (gate.unsqueeze(2) * value.unsqueeze(1)).flatten(1)
        return gate * value


def default_gate(spec: Spec) -> str:
    """The first modality of the most preferred kind, else the first one."""
    for kind in GATE_KINDS:
        for name, modality in spec.modalities.items():
            if modality.kind == kind:
                return name
    return next(iter(spec.modalities))
