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

Choices: the initial feature centroids come from one evaluation pass. Of the fused ones the paper
leaves that or zeros open (Algorithm 1, line 8), of the others it says nothing. With three
modalities the alignment runs over all ordered pairs and Q_j does not depend on j'; in IBB and the
released form U_j counts once per pair, in the frame of the others once. Multi-label data has two
classes per label and IBB is averaged over labels (undefined in the paper). One-class data has
pseudo-classes. `phi` and `beta` of an entry are the regime of its representations
(`ibma.network.centroids.Assignment`); the inputs and the reported IB losses keep that of
`training`, so that one ruler measures every method. The released form runs on the paper's centroids
and this network's heads. The paper does not say how VIB, APIB and CLUB enter (Table 6); here all
share one frame, sum_j [U(Z_j, X_j) - sum_j' J(Z_j, Z_j')] + sum_m U(Z, X_m) - J(Z, Y), see `Frame`.

Parity: ibma_ib_upper_bound, ibma_IBUpperBoundLoss, ibma_cluster_scores_beta1.0, ibma_estimate_q,
ibma_compute_centroids, ibma_club, club_mean, club_infonce_lower, vib_dai_gate, vib_alemi_kl_bits,
apib_centered_kernels, apib_kernels_raw.

A bound is one file of this folder that defines a class `Bound`; params.yaml names it as `bound:`.
Files whose names start with an underscore hold what several bounds share.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ibma.errors import IbmaError
from ibma.features.store import Batch, RowsOf
from ibma.network import distributed
from ibma.network.centroids import PHI, Assignment, class_systems
from ibma.network.method import (
    FUSED,
    Constructor,
    Headed,
    Output,
    Outputs,
    Spec,
    one_of,
    present,
)
from ibma.network.tasks import Task


@dataclass(frozen=True)
class BoundSpec:
    """What a bound knows of the problem; it knows no network and no data.

    Args:
        names: the modalities, in order.
        widths: place (a modality or `FUSED`) -> width D of its representation.
        task: gives class systems and, for bounds that ask for it, a task loss.
        systems: (G, K), the label shape of `ibma.network.tasks`.
        assignment: how phi is computed.
        u: modality -> the mean of U over train, in nats; 0 where it is not given.
        input_widths: modality -> width R of its input vectors, for bounds that read them.
        refresh: as `Spec.refresh`.
    """

    names: tuple[str, ...]
    widths: Mapping[str, int]
    task: Task
    systems: tuple[int, int]
    assignment: Assignment
    u: Mapping[str, float] = field(default_factory=dict)
    input_widths: Mapping[str, int] = field(default_factory=dict)
    refresh: str = "epoch"

    @classmethod
    def of(cls, spec: Spec) -> BoundSpec:
        """Return what a bound of IBMA's network knows."""
        return cls(
            names=tuple(spec.modalities),
            widths=dict.fromkeys((*spec.modalities, FUSED), spec.width),
            task=spec.task,
            systems=spec.systems,
            assignment=spec.assignment,
            u=spec.u,
            input_widths=spec.input_widths,
            refresh=spec.refresh,
        )


@dataclass(frozen=True)
class Step:
    """What a bound reads of a batch; every tensor has one row per sample.

    Args:
        z: place -> representation [B, D] in float32; without `FUSED` if nothing is fused.
        systems: one-hot class systems, [B, G, K].
        y: labels as the task's loss takes them.
        logits: of the fused head, [B, C]; None where there is none.
        present: modality -> whether each sample has it, [B]; a missing key means all do.
        phi_x, inputs: as in `Batch`.
        extra: what `Frame.transform` left, and phi once it is computed: `phi/<place>`.
        weight: 0 for rows that only fill a batch, see `network.distributed.share`.
        share: which part of the batch these rows are.
    """

    z: Mapping[str, Tensor]
    systems: Tensor
    y: Tensor
    logits: Tensor | None = None
    present: Mapping[str, Tensor] = field(default_factory=dict)
    phi_x: Mapping[str, Tensor] = field(default_factory=dict)
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Tensor] = field(default_factory=dict)
    weight: float = 1.0
    share: float = 1.0

    @classmethod
    def of(cls, out: Output, batch: Batch, task: Task) -> Step:
        """Return what a bound reads of a network's output and its batch."""
        masks = {name: present(batch.x, name) for name in out.z}
        return cls(
            z={**out.z, FUSED: out.fused},
            systems=class_systems(task, batch.y, batch.pseudo),
            y=batch.y,
            logits=out.logits,
            present={name: mask for name, mask in masks.items() if mask is not None},
            phi_x=batch.phi_x,
            inputs=batch.inputs,
            extra=out.extra,
            weight=batch.weight,
        )

    def __len__(self) -> int:
        return len(self.y)

    def having(self, *places: str) -> Step:
        """Return the rows of the samples that have all of some modalities."""
        masks = [self.present[place] for place in places if place in self.present]
        if not masks:
            return self
        kept = torch.stack(masks).all(0)
        rows = kept.nonzero().squeeze(1)

        def take(named: Mapping[str, Tensor]) -> Any:
            return RowsOf(named, rows)

        return replace(
            self,
            z=take(self.z),
            systems=self.systems[rows],
            y=self.y[rows],
            logits=None if self.logits is None else self.logits[rows],
            present={},
            phi_x=take(self.phi_x),
            inputs=take(self.inputs),
            extra=take(self.extra),
            share=len(rows) / len(self),
        )


class Frame(nn.Module):
    """The frame of every bound of Table 6; its terms are not weighted yet.

    A bound fills in the parts, or replaces `terms`. U bounds from above what a representation keeps
    of an input (`compress`). J bounds from below what two modalities share (`relate`, once in each
    direction) and what the fused representation says about y (`predict`). A term is computed of the
    samples that have all of its modalities and weighted by their share of the batch.

    Args:
        align: False drops the terms of single modalities (Table 5).

    Attributes:
        compares_samples, leaves_parameters_unused: see `Method`.
        undecayed: parameters without weight decay.
        optimiser: of what a bound learns apart from the network, if it does.
    """

    compares_samples = True
    leaves_parameters_unused = False
    optimiser: torch.optim.Optimizer | None = None

    def __init__(self, spec: BoundSpec, align: bool) -> None:
        super().__init__()
        self.spec, self.align = spec, align
        self.names = spec.names
        self.places = (*self.names, FUSED)
        self.undecayed: list[nn.Parameter] = []

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return `compress/<place>`, `relate/<j>|<j'>` and `predict`."""
        terms = {}
        if self.align:
            for name in self.names:
                terms[f"compress/{name}"] = self._compress(step, name, name)
            for j, other in permutations(self.names, 2):
                terms[f"relate/{j}|{other}"] = self.term(step, (j, other), self._relate)
        if FUSED in step.z:
            kept = [self._compress(step, FUSED, name) for name in self.names]
            terms[f"compress/{FUSED}"] = torch.stack(kept).sum()
        predicted = self.predict(step)
        return terms if predicted is None else terms | {"predict": -predicted}

    def term(
        self, step: Step, places: tuple[str, str], value: Callable[[str, str, Step], Tensor]
    ) -> Tensor:
        """Compute a term of two places on the samples that have both, times their share."""
        part = step.having(*places)
        return part.share * value(*places, part) if len(part) else part.systems.new_zeros(())

    def _compress(self, step: Step, place: str, modality: str) -> Tensor:
        return self.term(step, (place, modality), self.compress)

    def _relate(self, j: str, other: str, step: Step) -> Tensor:
        return -self.relate(j, other, step)

    def compress(self, place: str, modality: str, step: Step) -> Tensor:
        """Return U(Z_place, X_modality), a scalar."""
        raise NotImplementedError

    def relate(self, j: str, other: str, step: Step) -> Tensor:
        """Return J(Z_j, Z_other), a scalar."""
        raise NotImplementedError

    def predict(self, step: Step) -> Tensor | None:
        """Return J(Z, Y), a scalar; None where the step lacks what it is made of.

        By default it is minus the task loss: the classifier bound without H(Y).
        """
        return None if step.logits is None else -self.spec.task.loss(step.logits, step.y)

    def transform(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Hook: replace an embedding, see `network.method.Fused.transform`."""
        return value

    def refresh(self, epoch: int, passes: Iterable[Step]) -> None:
        """Hook: renew what the bound keeps of the training split, in place, before an epoch.

        Args:
            passes: this process's share of train, in evaluation mode; empty where the sums of the
                last epoch serve.
        """

    def forget(self) -> None:
        """Hook: empty what the next `refresh` would read."""

    def set_u(self, u: Mapping[str, float]) -> None:
        """Hook: replace the constants U of some modalities, in nats."""

    def inner_step(self, step: Step) -> None:
        """Hook: learn or sum up, between `forward` and `losses` of a training step."""

    def regime(self, step: Step) -> dict[str, Tensor]:
        """Hook: say how the bound sees a step, as `<what>/<place>`, each a scalar."""
        return {}


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
        phi: regime of the representations' phi, "printed" or "unit"; None for that of the problem.
        beta: of that phi; None for that of the problem.
        options: parameters of that bound.
    """

    OWN = ("align", "bound", "phi", "beta")  # the other hyper-parameters are the bound's
    reads_eta = True

    def __init__(
        self,
        spec: Spec,
        *,
        align: bool = True,
        bound: str = "ibb",
        phi: Literal["printed", "unit"] | None = None,
        beta: float | None = None,
        **options: object,
    ) -> None:
        super().__init__(spec)
        if spec.eta is None:
            raise IbmaError("method 'ibma' needs an eta in (0, 1): its setting has none")
        if beta is not None and beta <= 0:
            raise IbmaError(f"params.yaml: beta of a method 'ibma' is {beta}: expected above 0")
        self.eta = spec.eta
        given = spec.assignment
        regime = Assignment(
            given.beta if beta is None else beta, given.normalise if phi is None else PHI[phi]
        )
        spec = replace(spec, assignment=regime)
        self.bound = find_bound(bound)(BoundSpec.of(spec), align, **options)
        self.inner = self.bound.optimiser
        self.compares_samples = self.bound.compares_samples
        self.leaves_parameters_unused = self.bound.leaves_parameters_unused

    @classmethod
    def constructors(cls, hparams: Mapping[str, Any]) -> Iterator[Constructor]:
        """Yield this constructor, then the bound's with its options."""
        own = {name: value for name, value in hparams.items() if name in cls.OWN}
        yield Constructor("", cls.__init__, own)
        bound = str(hparams.get("bound", "ibb"))
        options = {name: value for name, value in hparams.items() if name not in own}
        yield Constructor(f"bound {bound}", find_bound(bound).__init__, options)

    def transform(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Replace an embedding by what the bound makes of it."""
        return self.bound.transform(place, value, extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `ce/<modality>`, `ce/fused` and eta times the terms of the bound."""
        terms = self.bound.terms(self.step(out, batch))
        return super().losses(out, batch) | {name: self.eta * v for name, v in terms.items()}

    def regime(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return what a bound with phi says of it (`Frame.regime`), and `share/<place>`.

        A share is the norm of the gradient of eta times the bound over that of the cross-entropies.
        CHOICE: both with respect to the representations, through the terms that read them (not
        through the fusion), which costs no second pass back through the network.
        """
        step = self.step(out, batch)
        with torch.no_grad():
            found = self.bound.regime(step)
        if not found:
            return {}
        z = {place: value.detach().requires_grad_() for place, value in step.z.items()}
        logits = {f"logits/{name}": self.heads[name](z[name]) for name in self.names}
        again = Output({n: z[n] for n in self.names}, z[FUSED], self.head(z[FUSED]), logits)
        plain = _squares(super().losses(again, batch), z)
        bound = _squares(self.bound.terms(replace(step, z=z, extra={})), z)
        distributed.add_up([plain, bound])
        shares = self.eta * (plain.clamp_min(1e-24) / bound).rsqrt()  # 0 where the bound is
        return found | {f"share/{place}": shares[k] for k, place in enumerate(z)}

    def phase(self, epoch: int) -> None:
        """Return nothing: bounds renew what they keep in place."""

    def before_epoch(self, epoch: int, outputs: Outputs) -> None:
        """Let the bound renew what it keeps of the training split."""
        again = epoch == 0 or self.spec.refresh == "pass"
        self.bound.refresh(epoch, (self.step(*one) for one in outputs()) if again else ())

    def step(self, out: Output, batch: Batch) -> Step:
        """Return what the bound reads of a batch."""
        return Step.of(out, batch, self.spec.task)

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Let the bound learn what it learns apart from the network."""
        self.bound.inner_step(self.step(out, batch))

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


def _squares(terms: Mapping[str, Tensor], z: Mapping[str, Tensor]) -> Tensor:
    """Return the squared norm of the gradient of all terms for each representation, [places]."""
    total = torch.stack(list(terms.values())).sum()
    gradients = torch.autograd.grad(total, list(z.values()), materialize_grads=True)
    return torch.stack([each.square().sum() for each in gradients])
