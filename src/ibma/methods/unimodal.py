"""Unimodal: IBMA's encoder and head on one modality, the others unseen.

Citation: none, a control of ours.

Official code: none.

Code over paper: nothing to compare. Table 16 judges encoders that were trained together; this
network is trained on one modality, and what a joint method adds to it is what fusion is worth.

Choices: the encoder of the modality and one linear head, the head that IBMA and CE3 put on it, so
that its embedding is the fused representation too. A sample that lacks the modality adds nothing to
the loss, and is predicted from a zero embedding. `modality: each` in `params.yaml` makes a record
set for each modality of a task, called `<entry>_<modality>`.

Parity: equal to the modality's half of CE3 without a fusion (tests/test_methods.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ibma.features.store import Batch
from ibma.network.method import Method, Output, Spec, one_of


class Model(Method):
    """Unimodal: one encoder, one linear head.

    Args:
        modality: its name; None for the first of the task.
    """

    def __init__(self, spec: Spec, *, modality: str | None = None) -> None:
        names = list(spec.modalities)
        chosen = names[0] if modality is None else one_of("modality", modality, names)
        super().__init__(replace(spec, modalities={chosen: spec.modalities[chosen]}))
        self.modality = chosen
        self.head = spec.task.head(spec.width)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network on stored features, modality -> [B, ...]; it reads its own only."""
        z = self.encode(x)
        fused = z[self.modality]
        return Output(z, fused, self.head(fused), {})

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task`, a sample that lacks the modality counting 0."""
        return {"task": self.judge(out.logits, batch, self.modality)}
