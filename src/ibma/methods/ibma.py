"""IBMA: Information Bottleneck-Based Multimodal Alignment (the paper's method and its variants).

Sources: paper sections 3.1, 3.2, A.1, A.2 and Algorithms 1, 3, 4; the released code
Statistical-Deep-Learning/IBMA@c04b18b for `bound="released"` only.

Loss (2): cross-entropy on every modality's head and on the fused head, plus eta times the bound of
every ordered pair of modalities and of the fused representation. Facts a reader must know:

- U_i does not contain Z (Eq. 3 factorises). It enters as a constant from the centroid stage, so
  what trains is cross-entropy minus eta V: the compression half of IBB has no gradient.
- Q starts at 1/C (Algorithm 1, lines 5 and 7), so V = -ln C in the first epoch: no gradient either.
- After each epoch Q is computed first, with the centroids that were in force during the epoch,
  then the centroids (Algorithm 1, lines 13 to 19). Both come from one pass in eval mode.

CHOICES: the initial feature centroids come from one evaluation pass (the paper: "zeros or one
forward pass"). With three modalities the alignment runs over all ordered pairs and Q_j does not
depend on j'; U_j counts once per pair. Multi-label data has two classes per label and IBB is
averaged over labels (alternative: undefined in the paper). `normalise` and `beta` of phi: see
`ibma.centroids.Assignment`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor

from ibma import bounds
from ibma.centroids import ClassSums
from ibma.errors import IbmaError
from ibma.methods import Batches, Headed, Output, Spec
from ibma.store import Batch

FUSED = "fused"
BOUNDS = ("ibb", "released")


class Model(Headed):
    """IBMA. align: False drops the modality-specific bounds (the ablation of Table 5).

    bound: "ibb" (the paper) or "released" (per-batch Q with gradient, modalities only, as the
    authors' code; CHOICE: on the paper's class centroids and with this network's heads, since the
    code has no fusion module).
    """

    def __init__(
        self, spec: Spec, *, align: bool = True, bound: Literal["ibb", "released"] = "ibb"
    ) -> None:
        super().__init__(spec)
        if bound not in BOUNDS:
            raise IbmaError(f"params.yaml: bound '{bound}' of ibma: expected one of {BOUNDS}")
        if spec.eta is None:
            raise IbmaError("ibma needs eta: put its entry under `variants`, not `methods`")
        self.eta = spec.eta
        self.align = align
        self.bound = bound
        self.assignment = spec.assignment
        systems, classes = spec.systems
        for name in (*self.names, FUSED):
            self.register_buffer(f"centroids_{name}", torch.zeros(systems, classes, spec.width))
            uniform = torch.full((systems, classes, classes), 1.0 / classes)
            self.register_buffer(f"q_{name}", uniform)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms `ce/<modality>`, `ce/fused` and, times eta, `ibb/<j>|<j'>`, `ibb/fused`."""
        terms = super().losses(out, batch)
        bound = self.bound_terms(out, self.spec.systems_of(batch), batch.index)
        return terms | {name: self.eta * value for name, value in bound.items()}

    def bound_terms(self, out: Output, systems: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The bounds in nats, not yet weighted. systems: one-hot labels [B, G, K]."""
        terms = {}
        if self.align:
            phi = {name: self._phi(name, out.z[name]) for name in self.names}
            for j, other in permutations(self.names, 2):
                terms[f"ibb/{j}|{other}"] = self._pair_bound(j, phi[j], phi[other], index)
        if self.bound == "ibb":
            u = sum(self.spec.u.values())
            phi_fused = self._phi(FUSED, out.fused)
            v = bounds.v_term(phi_fused, systems, self._buffer("q", FUSED)).mean()
            terms[f"ibb/{FUSED}"] = u - v
        return terms

    def _pair_bound(self, j: str, phi_j: Tensor, phi_other: Tensor, index: Tensor) -> Tensor:
        if self.bound == "released":
            phi_x = self.spec.input_phi[j][index.cpu()].to(phi_j)
            return bounds.released_bound(phi_j, phi_other, phi_x)
        return self.spec.u[j] - bounds.v_term(phi_j, phi_other, self._buffer("q", j)).mean()

    def before_epoch(self, epoch: int, batches: Batches) -> None:
        """Refresh Q (from epoch 2 on, with the old centroids), then the centroids, in one pass."""
        systems, classes = self.spec.systems
        like = self._buffer("q", FUSED)
        joint = {name: torch.zeros_like(like) for name in (*self.names, FUSED)}
        counts = like.new_zeros(systems, classes)
        sums = {name: ClassSums.zeros((systems, classes), self.spec.width, like) for name in joint}
        for batch in batches():
            out = self(batch.x)
            one_hot = self.spec.systems_of(batch)
            counts += one_hot.sum(0)
            for name, feature in self._features(out).items():
                joint[name] += bounds.conditional_sums(self._phi(name, feature), one_hot)[0]
                sums[name].add(feature.float(), one_hot)
        for name in joint:
            if epoch > 0:
                self._buffer("q", name).copy_(bounds.normalise_conditional(joint[name], counts))
            self._buffer("centroids", name).copy_(
                self.assignment.centroids(sums[name].sums, sums[name].counts)
            )

    def _features(self, out: Output) -> Mapping[str, Tensor]:
        return {**out.z, FUSED: out.fused}

    def _phi(self, name: str, feature: Tensor) -> Tensor:
        return self.assignment.phi(feature.float(), self._buffer("centroids", name))

    def _buffer(self, kind: str, name: str) -> Tensor:
        return self.get_buffer(f"{kind}_{name}")
