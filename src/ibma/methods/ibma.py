"""IBMA: information bottleneck-based multimodal alignment, with IBB or a bound in its place.

Citation: Y. Wang, Z. Dong, D. Sun, A. Silva, T. Wu, Y. Yang. IBMA: Information bottleneck-based
multi-modal alignment: sections 3.1, 3.2, A.1, A.2, Algorithms 1, 3, 4, Table 6.

Official code: Statistical-Deep-Learning/IBMA@c04b18b (CheXpert only, no fusion module).

Code over paper: the paper, except for `bound="released"`, the code's form: Q estimated on the batch
with its gradient, modalities only.

Loss (2): cross-entropy on every modality's head and on the fused head, plus eta times a bound of
every ordered pair of modalities and of the fused representation. Facts a reader must know of IBB:

- U_i does not contain Z (Eq. 3 factorises). It enters as a constant from the centroid stage, so
  what trains is cross-entropy minus eta V: the compression half of IBB has no gradient.
- Q starts at 1/C (Algorithm 1, lines 5 and 7), so V = -ln C in the first epoch: no gradient either.
- After each epoch Q is computed first, with the centroids that were in force during the epoch,
  then the centroids (Algorithm 1, lines 13 to 19).

`training.refresh` says of which Z_i both are made. "epoch": those that the epoch's own steps
computed, as Algorithm 3 reads ("computed at the t-th epoch"); it costs no pass. "pass": one pass in
eval mode after the epoch, a third of an epoch more.

Choices: the initial feature centroids come from one evaluation pass (the paper: "zeros or one
forward pass"). With three modalities the alignment runs over all ordered pairs and Q_j does not
depend on j'; U_j counts once per pair. Multi-label data has two classes per label and IBB is
averaged over labels (undefined in the paper). One-class data has pseudo-classes. `normalise` and
`beta` of phi: see `ibma.centroids.Assignment`. The released form runs on the paper's centroids and
this network's heads. The paper does not say how VIB, APIB and CLUB enter (Table 6); here all share
one frame, sum_j [U(Z_j, X_j) - sum_j' J(Z_j, Z_j')] + sum_m U(Z, X_m) - J(Z, Y), see `Bound`.

Parity: ibma_ib_upper_bound, ibma_IBUpperBoundLoss, ibma_cluster_scores_beta1.0, ibma_estimate_q,
ibma_compute_centroids, ibma_club, club_mean, club_infonce_lower, vib_dai_gate, vib_alemi_kl_bits,
apib_centered_kernels, apib_kernels_raw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.errors import IbmaError
from ibma.features.store import Batch
from ibma.network import bounds, dependence, distributed
from ibma.network.method import FUSED, Batches, Headed, Output, Spec, one_of

CRITIC_WIDTH, CRITIC_TEMPERATURE = 128, 0.1
Passed = tuple[Mapping[str, Tensor], Tensor]  # representations [B, D] by place, systems [B, G, K]


class Bound(nn.Module):
    """The frame of Table 6: what each bound calls U and J fills it in; nothing here is weighted.

    U bounds what a representation keeps of an input from above (`compress`); J bounds from below
    what two modalities share (`relate`, once in each direction) and what the fused representation
    tells about y (`predict`). align: False drops the terms of single modalities (Table 5).

    undecayed: parameters without weight decay. optimiser: of what a bound learns apart from the
    network, if it does.
    """

    optimiser: torch.optim.Optimizer | None = None

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__()
        self.spec, self.align = spec, align
        self.names = tuple(spec.modalities)
        self.places = (*self.names, FUSED)
        self.undecayed: list[nn.Parameter] = []

    def terms(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """`compress/<place>`, `relate/<j>|<j'>` and `predict`."""
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
        """U(Z_place, X_modality)."""
        raise NotImplementedError

    def relate(self, j: str, other: str, out: Output) -> Tensor:
        """J(Z_j, Z_other)."""
        raise NotImplementedError

    def predict(self, out: Output, batch: Batch) -> Tensor:
        """J(Z, Y). By default minus the task loss: the classifier bound without H(Y)."""
        return -self.spec.task.loss(out.logits, batch.y)

    def input(self, modality: str, batch: Batch) -> Tensor:
        """X_modality as vectors, [B, R]."""
        return self.spec.inputs[modality][batch.index]

    def refine(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """See `methods.Fused.refine`."""
        return value

    def refresh(self, epoch: int, passes: Iterable[Passed]) -> None:
        """Before an epoch; `passes` walks the training split once, in eval mode."""

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Between forward and losses of a training step."""


def representation(place: str, out: Output) -> Tensor:
    """Z of a modality or of `FUSED`, [B, D], in full precision."""
    return (out.fused if place == FUSED else out.z[place]).float()


# --- IBB, the plug-in and the released form: bounds of soft assignments --------------------------


class Assigned(Bound):
    """Feature centroids, refreshed before every epoch, and the soft assignments to them.

    The next refresh is made of running sums over the training split, in buffers: class sums of
    the features [G, K, D], class counts [G, K], and the joint sums [G, K, K] that Q is made of
    (`bounds.conditional_sums`), which hold phi under the centroids still in force.
    """

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        systems, classes = spec.systems
        self.assigned = self.places if align else (FUSED,)
        self.register_buffer("counts", torch.zeros(systems, classes))
        for place in self.assigned:
            self.register_buffer(f"centroids_{place}", torch.zeros(systems, classes, spec.width))
            self.register_buffer(f"sums_{place}", torch.zeros(systems, classes, spec.width))
            self.register_buffer(f"joint_{place}", torch.zeros(systems, classes, classes))

    def phi(self, place: str, feature: Tensor) -> Tensor:
        """[B, D] -> [B, G, K]."""
        return self.spec.assignment.phi(feature.float(), self.get_buffer(f"centroids_{place}"))

    def phi_of(self, place: str, out: Output) -> Tensor:
        """Phi of a step's representation, [B, G, K], computed once."""
        key = f"phi/{place}"
        if key not in out.extra:
            out.extra[key] = self.phi(place, representation(place, out))
        return out.extra[key]

    def phi_x(self, modality: str, batch: Batch) -> Tensor:
        """Soft assignments of the inputs, from the centroid stage: [B, G, K]."""
        return self.spec.input_phi[modality][batch.index]

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Add the step's representations to the sums, where the refresh is made of those."""
        if self.spec.refresh == "epoch" and batch.weight:
            phi = {place: self.phi_of(place, out) for place in self.assigned}
            features = {place: representation(place, out) for place in self.assigned}
            self.add(features, phi, self.spec.systems_of(batch))

    @torch.no_grad()
    def add(
        self, features: Mapping[str, Tensor], phi: Mapping[str, Tensor], one_hot: Tensor
    ) -> None:
        """Add a batch to the sums. features: place -> [B, D]; phi and one_hot: [B, G, K]."""
        self.get_buffer("counts").add_(one_hot.sum(0))
        for place in self.assigned:
            sums, _ = bounds.conditional_sums(phi[place], one_hot)
            self.get_buffer(f"joint_{place}").add_(sums)
            sums = torch.einsum("ngk,nd->gkd", one_hot, features[place].float())
            self.get_buffer(f"sums_{place}").add_(sums)

    def refresh(self, epoch: int, passes: Iterable[Passed]) -> None:
        """New centroids, after whatever a subclass makes of the sums in `reread`."""
        if epoch == 0 or self.spec.refresh == "pass":
            for features, one_hot in passes:
                phi = {place: self.phi(place, features[place]) for place in self.assigned}
                self.add(features, phi, one_hot)
        kinds = ("sums", "joint")
        sums = [self.get_buffer(f"{kind}_{place}") for kind in kinds for place in self.assigned]
        counts = self.get_buffer("counts")
        distributed.add_up([counts, *sums])
        self.reread(epoch)
        for place in self.assigned:
            new = self.spec.assignment.centroids(self.get_buffer(f"sums_{place}"), counts)
            self.get_buffer(f"centroids_{place}").copy_(new)
        for spent in (counts, *sums):
            spent.zero_()

    def reread(self, epoch: int) -> None:
        """What else is made of the sums of an epoch, before the centroids change."""


class IBB(Assigned):
    """The paper's bound: U constant, V against a Q that is refreshed before every epoch."""

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        systems, classes = spec.systems
        for place in self.assigned:
            uniform = torch.full((systems, classes, classes), 1.0 / classes)
            self.register_buffer(f"q_{place}", uniform)

    def reread(self, epoch: int) -> None:
        """Q, from the second epoch on."""
        if epoch > 0:
            for place in self.assigned:
                joint, counts = self.get_buffer(f"joint_{place}"), self.get_buffer("counts")
                q = bounds.normalise_conditional(joint, counts)
                self.get_buffer(f"q_{place}").copy_(q)

    def terms(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """`ibb/<j>|<j'>` and `ibb/fused`, in nats."""
        terms, u = {}, self.spec.u
        if self.align:
            for j, other in permutations(self.names, 2):
                v = self.v(j, self.phi_of(j, out), self.phi_of(other, out))
                terms[f"ibb/{j}|{other}"] = u[j] - v
        v = self.v(FUSED, self.phi_of(FUSED, out), self.spec.systems_of(batch))
        return terms | {f"ibb/{FUSED}": sum(u.values()) - v}

    def v(self, place: str, phi: Tensor, other: Tensor) -> Tensor:
        """Batch mean of V."""
        return bounds.v_term(phi, other, self.get_buffer(f"q_{place}")).mean()


class Released(Assigned):
    """The authors' released bound of the modalities; their code has no fused representation."""

    def terms(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """`ibb/<j>|<j'>`."""
        phi = {name: self.phi_of(name, out) for name in self.names}
        return {
            f"ibb/{j}|{other}": bounds.released_bound(phi[j], phi[other], self.phi_x(j, batch))
            for j, other in permutations(self.names, 2)
        }


class Plugin(Assigned):
    """The plug-in IB itself on the batch, against running marginals: it does compress.

    Not in the paper. CHOICE: marginals keep 9 parts in 10 of the past; with the batch's own the
    value would be biased more, the smaller the batch.
    """

    MEMORY = 0.9

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        systems, classes = spec.systems
        for what in (*self.assigned, *(f"x_{name}" for name in self.names), "y"):
            uniform = torch.full((systems, classes), 1.0 / classes)
            self.register_buffer(f"marginal_{what}", uniform)

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Move every marginal towards the batch's."""
        super().inner_step(out, batch)
        phi = {place: self.phi_of(place, out).detach() for place in self.assigned}
        phi |= {f"x_{name}": self.phi_x(name, batch) for name in self.names}
        for what, value in (phi | {"y": self.spec.systems_of(batch)}).items():
            self.get_buffer(f"marginal_{what}").lerp_(value.mean(0), 1.0 - self.MEMORY)

    def compress(self, place: str, modality: str, out: Output, batch: Batch) -> Tensor:
        """I(Z, X) of the averaged joint table."""
        phi = self.phi_of(place, out)
        return self.information(place, phi, f"x_{modality}", self.phi_x(modality, batch))

    def relate(self, j: str, other: str, out: Output) -> Tensor:
        """I(Z_j, Z_other) of the averaged joint table."""
        return self.information(j, self.phi_of(j, out), other, self.phi_of(other, out))

    def predict(self, out: Output, batch: Batch) -> Tensor:
        """I(Z, Y) of the averaged joint table."""
        phi = self.phi_of(FUSED, out)
        return self.information(FUSED, phi, "y", self.spec.systems_of(batch))

    def information(self, a: str, phi_a: Tensor, b: str, phi_b: Tensor) -> Tensor:
        """`bounds.plug_in_information` with the running marginals of a and b."""
        marginal_a, marginal_b = (self.get_buffer(f"marginal_{what}") for what in (a, b))
        return bounds.plug_in_information(phi_a, phi_b, marginal_a, marginal_b)


# --- VIB, CLUB and APIB: what the paper compares IBB with ----------------------------------------


class Contrasted(Bound):
    """J(Z_j, Z_j') by InfoNCE: cosines of 128-d projections at temperature .1 (CHOICE)."""

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        self.critics = nn.ModuleDict({n: nn.Linear(spec.width, CRITIC_WIDTH) for n in self.names})

    def relate(self, j: str, other: str, out: Output) -> Tensor:
        """InfoNCE in nats."""
        a, b = (self.critics[name](out.z[name].float()) for name in (j, other))
        return dependence.infonce(dependence.cosine_scores(a, b, CRITIC_TEMPERATURE))


class DaiVIB(Contrasted):
    """VIB by multiplicative Gaussian gates on every representation (Dai et al. 2018).

    zhuchen03/VIBNet@2ebc51c, ib_layers.py. The gates do not depend on the input. CHOICE: KL per
    dimension, so that eta in (0, 1) can weigh it; no weight decay on gates; the fused gate's KL
    bounds I(Z, X_m) for every m.
    """

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        self.mean = nn.ParameterDict(
            {p: nn.Parameter(1.0 + 0.01 * torch.randn(spec.width)) for p in self.places}
        )
        self.log_variance = nn.ParameterDict(
            {p: nn.Parameter(-9.0 + 0.01 * torch.randn(spec.width)) for p in self.places}
        )
        self.undecayed = [*self.mean.values(), *self.log_variance.values()]

    def refine(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Noisy gates in training, hard ones in evaluation."""
        mean, log_variance = self.mean[place], self.log_variance[place]
        gate: Tensor = mean * (bounds.gate_log_alpha(mean, log_variance) < 0)
        if self.training:
            gate = mean + (0.5 * log_variance).exp() * torch.randn_like(value)
        return value * gate

    def compress(self, place: str, modality: str, out: Output, batch: Batch) -> Tensor:
        """Mean KL of the place's gates."""
        return bounds.gate_kl(self.mean[place], self.log_variance[place]).mean()


class AlemiVIB(Contrasted):
    """VIB by a Gaussian posterior on every representation (Alemi et al. 2017).

    alexalemi/vib_demo@e719469, MNISTVIB.ipynb: deviation softplus(linear - 5). CHOICE: KL per
    dimension; means in evaluation.
    """

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        width = spec.width
        self.posterior = nn.ModuleDict({p: nn.Linear(width, 2 * width) for p in self.places})

    def refine(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """A sample in training, the mean in evaluation."""
        mean, rho = self.posterior[place](value).chunk(2, dim=1)
        std = F.softplus(rho - 5.0)
        extra |= {f"mean/{place}": mean, f"std/{place}": std}
        sample: Tensor = mean + std * torch.randn_like(std) if self.training else mean
        return sample

    def compress(self, place: str, modality: str, out: Output, batch: Batch) -> Tensor:
        """Mean KL of the place's posterior."""
        mean, std = out.extra[f"mean/{place}"].float(), out.extra[f"std/{place}"].float()
        return bounds.gaussian_kl(mean, std).mean()


class Estimator(nn.Module):
    """CLUB's q(z | x): mean and, through tanh, log variance, a ReLU network each."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, R] -> two of [B, D]."""
        return self.mean(x), self.log_variance(x).tanh()


class CLUB(Contrasted):
    """CLUB's sampled upper bound with a learnt q per (representation, input) pair (Algorithm 2).

    Linear95/CLUB@57b4ad7, mi_estimators.py. q learns in its own optimiser before every step, on Z
    as data; the bound's gradient reaches Z alone. CHOICE: Adam 1e-3, one inner step, hidden width
    D; Z layer-normalised, since q's variance lies in (1/e, e); per dimension. pairwise: the
    published O(n^2) form, for timing; the value is the same.
    """

    optimiser: torch.optim.Adam

    def __init__(
        self, spec: Spec, align: bool, *, pairwise: bool = False, inner_steps: int = 1
    ) -> None:
        super().__init__(spec, align)
        self.estimate = bounds.club_pairwise if pairwise else bounds.club
        self.inner_steps = inner_steps
        pairs = [(FUSED, name) for name in self.names]
        if align:
            pairs += [(name, name) for name in self.names]
        self.q = nn.ModuleDict(
            {f"{p}|{m}": Estimator(spec.inputs[m].width, spec.width) for p, m in pairs}
        )
        self.optimiser = torch.optim.Adam(self.q.parameters(), lr=1e-3)

    def target(self, place: str, out: Output) -> Tensor:
        """Z as q sees it."""
        return F.layer_norm(representation(place, out), (self.spec.width,))

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Fit every q to this batch."""
        x = {name: self.input(name, batch) for name in self.names}
        z = {place: self.target(place, out).detach() for place in self.places}
        for _ in range(self.inner_steps):
            losses = []
            for pair, q in self.q.items():
                place, modality = pair.split("|")
                losses.append(bounds.club_learning_loss(z[place], *q(x[modality])))
            self.optimiser.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()

    def compress(self, place: str, modality: str, out: Output, batch: Batch) -> Tensor:
        """The vCLUB estimate per dimension."""
        with torch.no_grad():
            mean, log_variance = self.q[f"{place}|{modality}"](self.input(modality, batch))
        return self.estimate(self.target(place, out), mean, log_variance) / self.spec.width


class HSIC(Bound):
    """APIB as a training loss: normalised HSIC on the batch in place of every information.

    songxmu/APIB@6ed8d9d, pruners/HSIClasso.py, is a channel pruner without a training loss, so the
    form is CHOICE: its Laplace kernel and width, a linear kernel on labels, values in [0, 1].
    """

    def compress(self, place: str, modality: str, out: Output, batch: Batch) -> Tensor:
        """HSIC of Z and X."""
        return self.hsic(representation(place, out), self.input(modality, batch))

    def relate(self, j: str, other: str, out: Output) -> Tensor:
        """HSIC of Z_j and Z_other."""
        return self.hsic(out.z[j].float(), out.z[other].float())

    def predict(self, out: Output, batch: Batch) -> Tensor:
        """HSIC of Z and the labels."""
        kernel = dependence.laplace_kernel(out.fused.float())
        return dependence.hsic(kernel, label_kernel(self.spec, batch))

    def hsic(self, a: Tensor, b: Tensor) -> Tensor:
        """Normalised HSIC of two batches [B, .] under Laplace kernels."""
        return dependence.hsic(dependence.laplace_kernel(a), dependence.laplace_kernel(b))


class HSICLasso(Bound):
    """APIB nearer to its Lasso: learnable feature weights b that explain the labels' kernel.

    CHOICE, as for `HSIC`: ||L - sum_k b_k K_k||^2 / (2 B^2) + 5e-5 ||b||_1 for every representation
    with the centred Laplace kernel of each feature; b multiplies the representation.
    """

    SPARSITY = 5e-5

    def __init__(self, spec: Spec, align: bool) -> None:
        super().__init__(spec, align)
        self.weights = nn.ParameterDict(
            {p: nn.Parameter(torch.ones(spec.width)) for p in self.places}
        )
        self.undecayed = list(self.weights.values())

    def refine(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """The weighted features."""
        extra[f"feature/{place}"] = value
        weights: Tensor = self.weights[place]
        return value * weights

    def terms(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """`lasso/<place>`."""
        labels = dependence.centre(label_kernel(self.spec, batch))
        terms = {}
        for place in self.places if self.align else (FUSED,):
            features = out.extra[f"feature/{place}"].float()
            kernels = dependence.centre(dependence.laplace_kernel(features.T.unsqueeze(-1)))
            weights = self.weights[place]
            rest = labels - torch.einsum("d,dij->ij", weights, kernels)
            terms[f"lasso/{place}"] = (
                0.5 * rest.square().mean() + self.SPARSITY * weights.abs().sum()
            )
        return terms


def label_kernel(spec: Spec, batch: Batch) -> Tensor:
    """Linear kernel of the one-hot class systems, [B, B]."""
    one_hot = spec.systems_of(batch).flatten(1)
    return one_hot @ one_hot.T


BOUNDS: dict[str, Callable[..., Bound]] = {
    "ibb": IBB,
    "released": Released,
    "plugin": Plugin,
    "vib": DaiVIB,
    "vib_alemi": AlemiVIB,
    "apib": HSIC,
    "apib_lasso": HSICLasso,
    "club": CLUB,
}


class Model(Headed):
    """IBMA. align: False drops the modality-specific bounds (the ablation of Table 5).

    bound: a key of `BOUNDS`; further keyword arguments are that bound's.
    """

    def __init__(
        self, spec: Spec, *, align: bool = True, bound: str = "ibb", **options: object
    ) -> None:
        super().__init__(spec)
        if spec.eta is None:
            raise IbmaError("ibma needs eta: put its entry under `variants`, not `methods`")
        self.eta = spec.eta
        self.bound = BOUNDS[one_of("bound", bound, tuple(BOUNDS))](spec, align, **options)
        self.inner = self.bound.optimiser

    def refine(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """As the bound says."""
        return self.bound.refine(place, value, extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms `ce/<modality>`, `ce/fused` and eta times those of the bound."""
        terms = self.bound.terms(out, batch)
        return super().losses(out, batch) | {name: self.eta * v for name, v in terms.items()}

    def before_epoch(self, epoch: int, batches: Batches) -> None:
        """Let the bound refresh what it keeps of the training split."""
        self.bound.refresh(epoch, self._passes(batches))

    def _passes(self, batches: Batches) -> Iterator[Passed]:
        for batch in batches():
            out = self(batch.x)
            yield {**out.z, FUSED: out.fused}, self.spec.systems_of(batch)

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Let the bound learn what it learns apart from the network."""
        self.bound.inner_step(out, batch)

    def parameter_groups(self) -> list[dict[str, object]]:
        """Without those of the inner optimiser; some of the bound's without weight decay."""
        groups_apart = self.inner.param_groups if self.inner is not None else []
        learnt_apart = [p for group in groups_apart for p in group["params"]]
        apart = {id(p) for p in (*self.bound.undecayed, *learnt_apart)}
        own = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        groups: list[dict[str, object]] = [{"params": own}]
        if self.bound.undecayed:
            groups.append({"params": self.bound.undecayed, "weight_decay": 0.0})
        return groups
