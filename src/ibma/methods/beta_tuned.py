"""IBMA with a tuned beta: cross-validation chooses the regime of phi, like a learning rate.

Citation: IBMA: Information Bottleneck-Based Multimodal Alignment (the paper), section 3.

Official code: none for this; the released code has beta = 1.

Code over paper: nothing, see `ibma`.

Choices: this variant is ours. The paper's formula has no beta, and the released code fixes it at 1,
where the alignment of unit vectors hardly acts on more than a few classes (docs/findings.md, 22).
Here tuning tries factors on `beta` where it tries eta for IBMA, as many of them, and eta is the
middle one of its grid.

Parity: none; at a factor of 1 it is `ibma` with the same phi and beta.
"""

from __future__ import annotations

from typing import Literal

from ibma.methods import ibma
from ibma.network.method import Spec


class Model(ibma.Model):
    """IBMA whose beta is what tuning multiplies.

    Args:
        phi: regime of the representations' phi.
        beta: its inverse temperature at a factor of 1. CHOICE: 10, so that a tenth of it is the
            released code's 1.
    """

    own_weights = ("beta",)

    def __init__(
        self, spec: Spec, *, phi: Literal["printed", "unit"] = "unit", beta: float = 10.0
    ) -> None:
        super().__init__(spec, phi=phi, beta=spec.weight_factor * beta)
