"""CE3: IBMA's own network with cross-entropy on every head and no bound.

Not in the paper: the control it lacks. Whatever IBMA gains over this row is due to IBB; whatever
this row gains over others is due to the per-modality heads (paper Eq. 2 with eta = 0).
"""

from __future__ import annotations

from torch import Tensor, nn

from ibma.methods import Fused, Output, Spec
from ibma.store import Batch


class Model(Fused):
    """Terms `ce/<modality>` and `ce/fused`, each with weight 1."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(spec.width, spec.task.outputs) for name in self.names}
        )

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """out: representations and fused logits of one batch."""
        loss = self.spec.task.loss
        terms = {f"ce/{name}": loss(self.heads[name](out.z[name]), batch.y) for name in self.names}
        return terms | {"ce/fused": loss(out.logits, batch.y)}
