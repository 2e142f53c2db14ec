"""Share what VIB and CLUB need: InfoNCE between modalities."""

from __future__ import annotations

from torch import Tensor, nn

from ibma.methods.ibma import BoundSpec, Frame, Step
from ibma.network import dependence

CRITIC_WIDTH, CRITIC_TEMPERATURE = 128, 0.1


class Contrasted(Frame):
    """Bound J(Z_j, Z_j') by InfoNCE: cosines of 128-d projections at temperature .1 (CHOICE)."""

    def __init__(self, spec: BoundSpec, align: bool) -> None:
        super().__init__(spec, align)
        self.leaves_parameters_unused = not align  # then nothing reads the critics
        self.critics = nn.ModuleDict(
            {name: nn.Linear(spec.widths[name], CRITIC_WIDTH) for name in self.names}
        )

    def relate(self, j: str, other: str, step: Step) -> Tensor:
        """Return InfoNCE in nats."""
        a, b = (self.critics[name](step.z[name]) for name in (j, other))
        return dependence.infonce(dependence.cosine_scores(a, b, CRITIC_TEMPERATURE))
