"""IBMA: information bottleneck-based multimodal alignment, with IBB or a bound in its place.

Citation: Y. Wang, Z. Dong, D. Sun, A. Silva, T. Wu, Y. Yang. IBMA: Information bottleneck-based
multi-modal alignment: sections 3.1, 3.2, A.1, A.2, Algorithms 1, 3, 4, Table 6.

Official code: Statistical-Deep-Learning/IBMA@c04b18b (CheXpert only, no fusion module).

Code over paper: the paper, except for `bound="released"`, the code's form: Q estimated on the batch
with its gradient, modalities only.

Loss (2): cross-entropy on every modality's head and on the fused head, plus eta times a bound of
every ordered pair of modalities and of the fused representation. Three facts about IBB:

- U_i does not contain Z (Eq. 3 factorises). It enters as a constant from the centroid stage, so
  what trains is cross-entropy minus eta V: the compression half of IBB has no gradient.
- Q starts at 1/C (Algorithm 1, lines 5 and 7), so V = -ln C in the first epoch: no gradient either.
- After each epoch Q is computed first, with the centroids that were in force during the epoch,
  then the centroids (Algorithm 1, lines 13 to 19).

`training.refresh` says which Z_i both are computed from. "epoch": those of the epoch's own steps,
as Algorithm 3 reads ("computed at the t-th epoch"); it costs no pass. "pass": one pass in
evaluation mode after the epoch, which makes an epoch a third longer.

Choices: the initial feature centroids come from one evaluation pass (the paper: "zeros or one
forward pass"). With three modalities the alignment runs over all ordered pairs and Q_j does not
depend on j'; U_j counts once per pair. Multi-label data has two classes per label and IBB is
averaged over labels (undefined in the paper). One-class data has pseudo-classes. `normalise` and
`beta` of phi: see `ibma.network.centroids.Assignment`. The released form runs on the paper's
centroids and this network's heads. The paper does not say how VIB, APIB and CLUB enter (Table 6);
here all share one frame, sum_j [U(Z_j, X_j) - sum_j' J(Z_j, Z_j')] + sum_m U(Z, X_m) - J(Z, Y), see
`Frame`.

Parity: ibma_ib_upper_bound, ibma_IBUpperBoundLoss, ibma_cluster_scores_beta1.0, ibma_estimate_q,
ibma_compute_centroids, ibma_club, club_mean, club_infonce_lower, vib_dai_gate, vib_alemi_kl_bits,
apib_centered_kernels, apib_kernels_raw.

A bound is one file of this folder that defines a class `Bound`; params.yaml names it as `bound:`.
Files whose names start with an underscore hold what several bounds share.
"""

from __future__ import annotations

import importlib
import pkgutil
from itertools import permutations
from typing import cast

import torch
from torch import Tensor, nn

from ibma.errors import IbmaError
from ibma.features.store import Batch
from ibma.network.method import FUSED, Headed, Output, Outputs, Spec, one_of
from ibma.params import check_arguments


class Frame(nn.Module):
    """The frame that every bound of Table 6 fills in; its terms are not weighted yet.

    U bounds from above what a representation keeps of an input (`compress`). J bounds from below
    what two modalities share (`relate`, once in each direction) and what the fused representation
    says about y (`predict`).

    Args:
        align: False drops the terms of single modalities (Table 5).

    Attributes:
        leaves_parameters_unused: see `Method`.
        undecayed: parameters without weight decay.
        optimiser: of what a bound learns apart from the network, if it does.
    """

    leaves_parameters_unused = False
    optimiser: torch.optim.Optimizer | None = None

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__()
        self.spec, self.align = spec, align
        self.names = tuple(spec.modalities)
        self.places = (*self.names, FUSED)
        self.undecayed: list[nn.Parameter] = []

    def terms(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `compress/<place>`, `relate/<j>|<j'>` and `predict`."""
        terms = {}
        if self.align:
            for name in self.names:
                terms[f"compress/{name}"] = self.compress(name, name, out, batch)
            for j, other in permutations(self.names, 2):
                terms[f"relate/{j}|{other}"] = -self.relate(j, other, out)
        kept = [self.compress(FUSED, name, out, batch) for name in self.names]
        terms[f"compress/{FUSED}"] = torch.stack(kept).sum()
        return terms | {"predict": -self.predict(out, batch)}

    def compress(self, place: str, modality: str, out: Output, batch: Batch) -> Tensor:
        """Return U(Z_place, X_modality), a scalar."""
        raise NotImplementedError

    def relate(self, j: str, other: str, out: Output) -> Tensor:
        """Return J(Z_j, Z_other), a scalar."""
        raise NotImplementedError

    def predict(self, out: Output, batch: Batch) -> Tensor:
        """Return J(Z, Y), by default minus the task loss: the classifier bound without H(Y)."""
        return -self.spec.task.loss(out.logits, batch.y)

    def transform(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Hook: replace an embedding, see `network.method.Fused.transform`."""
        return value

    def refresh(self, epoch: int, outputs: Outputs) -> None:
        """Hook: renew what the bound keeps of the training split, see `Method.before_epoch`."""

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Hook: learn or sum up, between `forward` and `losses` of a training step."""


def representation(place: str, out: Output) -> Tensor:
    """Return Z of a modality or of `FUSED`, [B, D]."""
    return out.fused if place == FUSED else out.z[place]


def bound_names() -> list[str]:
    """List every bound: one per file of this folder that does not start with an underscore."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def find_bound(name: str) -> type[Frame]:
    """Return the class of a bound.

    Raises:
        IbmaError: there is no such file.
    """
    one_of("bound", name, bound_names())
    return cast(type[Frame], importlib.import_module(f"{__name__}.{name}").Bound)


class Model(Headed):
    """IBMA's network, trained by cross-entropy and a bound.

    Args:
        align: False drops the bounds of single modalities (the ablation of Table 5).
        bound: name of a file of this folder.
        options: parameters of that bound.
    """

    reads_eta = True

    def __init__(
        self, spec: Spec, *, align: bool = True, bound: str = "ibb", **options: object
    ) -> None:
        super().__init__(spec)
        if spec.eta is None:
            raise IbmaError("method 'ibma' needs an eta in (0, 1): its setting has none")
        self.eta = spec.eta
        kind = find_bound(bound)
        check_arguments(kind.__init__, options, f"bound {bound}")
        self.bound = kind(spec, align, **options)
        self.inner = self.bound.optimiser
        self.leaves_parameters_unused = self.bound.leaves_parameters_unused

    def transform(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Replace an embedding by what the bound makes of it."""
        return self.bound.transform(place, value, extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `ce/<modality>`, `ce/fused` and eta times the terms of the bound."""
        terms = self.bound.terms(out, batch)
        return super().losses(out, batch) | {name: self.eta * v for name, v in terms.items()}

    def before_epoch(self, epoch: int, outputs: Outputs) -> None:
        """Let the bound renew what it keeps of the training split."""
        self.bound.refresh(epoch, outputs)

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Let the bound learn what it learns apart from the network."""
        self.bound.inner_step(out, batch)

    def parameter_groups(self) -> list[dict[str, object]]:
        """Leave out what the inner optimiser trains; decay no weights that the bound exempts."""
        groups_apart = self.inner.param_groups if self.inner is not None else []
        learnt_apart = [p for group in groups_apart for p in group["params"]]
        apart = {id(p) for p in (*self.bound.undecayed, *learnt_apart)}
        own = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        groups: list[dict[str, object]] = [{"params": own}]
        if self.bound.undecayed:
            groups.append({"params": self.bound.undecayed, "weight_decay": 0.0})
        return groups
