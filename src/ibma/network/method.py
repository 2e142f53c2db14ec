"""Define what a method is: a network and its loss terms; `ibma.methods` holds one file for each.

A method knows neither optimiser nor device, clock or record: those belong to `ibma.training`. The
task's loss belongs to `ibma.network.tasks`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.errors import IbmaError
from ibma.features.store import PRESENT, Batch, Features
from ibma.network import bounds, encoders
from ibma.network.centroids import Assignment, InputAssignments
from ibma.network.tasks import Task

FUSED = "fused"  # the name of the fused representation; the others are called by their modality


def present(x: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return which samples of a batch have a modality, [B]; None where all do."""
    return x.get(f"{PRESENT}{name}")


def presence(x: Mapping[str, Tensor], names: Sequence[str]) -> Tensor | None:
    """Return which samples have which of M modalities, [B, M]; None where all have all."""
    masks = [present(x, name) for name in names]
    known = next((mask for mask in masks if mask is not None), None)
    if known is None:
        return None
    return torch.stack([torch.ones_like(known) if m is None else m for m in masks], dim=1)


@dataclass(frozen=True)
class Modality:
    """How one modality enters the network.

    Args:
        kind: see `datasets.ModalityKind`.
        shape: shape of one example in the feature store.
        encoder: parameters of `encoders.build`.
    """

    kind: str
    shape: tuple[int, ...]
    encoder: Mapping[str, object]


@dataclass(frozen=True)
class Spec:
    """The problem that a method is built for. What is known of each sample comes with a `Batch`.

    Args:
        modalities: name -> `Modality`; they keep their order.
        width: embedding size D (paper B.2: 512).
        heads: attention heads of the fusion block (paper B.2: 8).
        epochs: length of the training, for methods with phases.
        systems: (G, K), the label shape of `ibma.network.tasks`.
        assignment: how phi is computed.
        eta: weight of the IB bound (paper Eq. 2); None for methods that do not read it.
        weight_factor: factor on a method's own weights, see `Method.own_weights`.
        u: modality -> the mean of U over train, in nats. It is a constant, because Eq. 3 factorises
            and Z drops out of U.
        input_widths: modality -> R, the width of its input vectors (`Batch.inputs`).
        refresh: what the centroids and Q of an epoch are computed from, "epoch" or "pass"; see
            `ibma.methods.ibma`.
    """

    modalities: Mapping[str, Modality]
    task: Task
    width: int
    heads: int
    epochs: int
    systems: tuple[int, int]
    assignment: Assignment
    eta: float | None = None
    weight_factor: float = 1.0
    u: Mapping[str, float] = field(default_factory=dict)
    input_widths: Mapping[str, int] = field(default_factory=dict)
    refresh: str = "epoch"

    @classmethod
    def of(
        cls,
        features: Features,
        inputs: InputAssignments,
        encoder: Callable[[str], Mapping[str, object]],
        **more: Any,
    ) -> Spec:
        """Describe the problem that some features pose.

        Args:
            inputs: what is known of their inputs.
            encoder: modality -> parameters of its encoder.
            more: the other fields.
        """
        systems = next(iter(inputs.phi.values())).shape[1:]
        return cls(
            modalities={
                name: Modality(one.kind, one.shape, encoder(name))
                for name, one in features.modalities.items()
            },
            systems=(systems[0], systems[1]),
            u=inputs.u,
            input_widths={name: vectors.width for name, vectors in inputs.vectors.items()},
            **more,
        )


@dataclass
class Output:
    """What a network computes of a batch.

    Args:
        z: modality -> representation [B, D].
        fused: fused representation, [B, D] unless a method says otherwise.
        logits: [B, C].
        extra: name -> what a method's losses need besides.
    """

    z: dict[str, Tensor]
    fused: Tensor
    logits: Tensor
    extra: dict[str, Tensor]

    def views(self, kind: str) -> dict[str, Tensor]:
        """Return modality -> what `extra` holds as `<kind>/<modality>`."""
        return {name: self.extra[f"{kind}/{name}"] for name in self.z}

    def float(self) -> Output:
        """Return the same in float32, which is what losses get."""
        z, extra = (
            {name: value.float() for name, value in named.items()} for named in (self.z, self.extra)
        )
        return Output(z, self.fused.float(), self.logits.float(), extra)


Outputs = Callable[[], Iterable[tuple[Output, Batch]]]


class Constructor(NamedTuple):
    """A function that takes hyper-parameters by name.

    Args:
        label: what it builds, beside the method itself.
    """

    label: str
    function: Callable[..., None]
    arguments: Mapping[str, Any]


class Fusion(nn.Module):
    """Fuse modalities by attention (paper B.2): one transformer block over modality tokens.

    The block has `heads` attention heads, a position-wise MLP, residuals and layer norms (post-LN);
    its M output tokens are concatenated and projected to `width`. CHOICE: the MLP is 4 x width with
    ReLU and no dropout; concatenation rather than a mean, so that the projection knows which
    modality is which (the paper gives neither).
    """

    def __init__(self, modalities: int, width: int, heads: int) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(
            width, heads, dim_feedforward=4 * width, dropout=0.0, batch_first=True
        )
        self.project = nn.Linear(modalities * width, width)

    def forward(self, z: Iterable[Tensor], known: Tensor | None = None) -> Tensor:
        """Fuse M representations [B, D] into one [B, D].

        Args:
            known: which samples have which modality, [B, M]; None where all have all. The token
                of a missing modality is neither attended to nor projected.
        """
        tokens = torch.stack(list(z), dim=1)
        if known is None:
            tokens = self.block(tokens)
        else:
            tokens = self.block(tokens, src_key_padding_mask=~known)
            tokens = tokens.masked_fill(~known.unsqueeze(-1), 0.0)
        return cast(Tensor, self.project(tokens.flatten(1)))


class ConcatFusion(nn.Module):
    """Fuse as MIB's code does (emib.py, class concat): ReLU(Linear([z_1; ...; z_M]))."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(modalities * width, width)

    def forward(self, z: Iterable[Tensor], known: Tensor | None = None) -> Tensor:
        """Fuse M representations [B, D] into one [B, D]; see `Fusion.forward`."""
        tokens = torch.stack(list(z), dim=1)
        if known is not None:
            tokens = tokens.masked_fill(~known.unsqueeze(-1), 0.0)
        return F.relu(self.linear(tokens.flatten(1)))


class Gaussian(nn.Module):
    """Compute mean and deviation of a Gaussian bottleneck: one ReLU layer, two linear outputs.

    deviation = softplus(linear - 5), which starts near 0.0067. Source:
    TmacMai/Multimodal-Information-Bottleneck@f6d006b, emib.py (its hidden layer has 1024 units).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
        self.mean = nn.Linear(hidden, width)
        self.deviation = nn.Linear(hidden, width)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation > 0, both [B, D], of representations [B, D]."""
        hidden = self.hidden(z)
        return self.mean(hidden), F.softplus(self.deviation(hidden) - 5.0)


class Method(nn.Module):
    """The base of every method: one encoder per modality, and hooks that the training loop calls.

    Subclasses take their own hyper-parameters as keyword arguments after `spec`.

    A network may run under autocast; losses and hooks get its `Output` in float32.

    CHOICE: a sample that lacks a modality adds nothing to the loss of a head of that modality
    (`judge`), nor to any other term of it (`where_known`), in every method alike.

    Attributes:
        reads_eta: whether the method reads `Spec.eta`; nothing else says so.
        compares: whether it compares modalities, so that a task of one is refused.
        compares_samples: whether a loss term is more than a mean over samples, for example because
            it compares them. Several processes, which have a part of the batch each, then refuse
            to train the network.
        own_weights: hyper-parameters that weigh what a method adds to the task losses, if it adds
            anything and eta is not what tuning varies. `Spec.weight_factor` multiplies all of
            them; tuning tries it where it tries eta for the others.
        leaves_parameters_unused: whether some parameters get no gradient in some steps. Several
            processes then search for them in every step.
        clip_value: gradients are clipped to [-clip_value, clip_value]; None for no clipping.
        sample_in_evaluation: whether `noise` is drawn in evaluation too.
        inner: the optimiser of an inner update, if the method has one; every checkpoint holds it.
        steps_differ: whether steps of one epoch differ by more than their batch and what the device
            draws, for example by a number that the host draws. They are then never replayed from a
            recording (`training.replay`).
    """

    reads_eta = False
    compares = False
    compares_samples = False
    own_weights: tuple[str, ...] = ()
    leaves_parameters_unused = False
    clip_value: float | None = None
    sample_in_evaluation = False
    inner: torch.optim.Optimizer | None = None
    steps_differ = False

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.names = tuple(spec.modalities)
        self.pairs = tuple(combinations(self.names, 2))
        self.encoders = nn.ModuleDict(
            {
                name: encoders.build(m.encoder, kind=m.kind, shape=m.shape, width=spec.width)
                for name, m in spec.modalities.items()
            }
        )

    @classmethod
    def constructors(cls, hparams: Mapping[str, Any]) -> Iterator[Constructor]:
        """Yield what takes a method's hyper-parameters, for `ibma.methods.check`."""
        kinds = {
            made: {one.kind for one in inspect.signature(made).parameters.values()}
            for made in (vars(each)["__init__"] for each in cls.__mro__ if "__init__" in vars(each))
        }
        named, rest = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD
        # a constructor that names no parameter passes them all on to its parent's
        own = next(made for made, of in kinds.items() if named in of or rest not in of)
        yield Constructor("", own, hparams)

    def encode(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode every modality, [B, ...] -> [B, D]; zeros where a sample lacks it."""
        return {name: self._encode(name, x[name], present(x, name)) for name in self.names}

    def _encode(self, name: str, x: Tensor, known: Tensor | None) -> Tensor:
        encoder = self.encoders[name]
        if known is None:
            return cast(Tensor, encoder(x))
        z = torch.zeros(len(x), self.spec.width, device=x.device)
        rows = x[known]  # the others must not enter the statistics of any layer
        if len(rows) == 0:
            return z
        encoder.train(self.training and len(rows) > 1)  # one row has no batch statistics
        some = encoder(rows)
        encoder.train(self.training)
        return z.to(some.dtype).index_put((known,), some)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network on stored features, modality -> [B, ...]."""
        raise NotImplementedError

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return named, already weighted loss terms; the loop sums and logs them."""
        return {"task": self.spec.task.loss(out.logits, batch.y)}

    def judge(self, logits: Tensor, batch: Batch, *names: str) -> Tensor:
        """Return the task loss of a head, to which a sample without its modalities adds nothing.

        Args:
            logits: [B, C].
            names: the modalities that the head reads, none for all that a sample has.
        """
        losses = self.spec.task.loss_per_sample(logits, batch.y)
        return self.where_known(batch, names, torch.mean, losses)

    def where_known(
        self, batch: Batch, names: Sequence[str], term: Callable[..., Tensor], *views: Tensor
    ) -> Tensor:
        """Compute a term of the samples that have some modalities, weighted by their share.

        Args:
            names: the modalities.
            term: takes rows of the views and returns a scalar.
            views: of all samples of the batch, [B, ...].
        """
        known = presence(batch.x, names)
        if known is None:
            return term(*views)
        rows = known.all(1).nonzero().squeeze(1)
        if len(rows) == 0:
            return 0.0 * torch.stack([view.sum() for view in views]).sum()
        return term(*(view[rows] for view in views)) * (len(rows) / len(known))

    def over_pairs(
        self, batch: Batch, terms: Iterable[Callable[..., Tensor]], views: Mapping[str, Tensor]
    ) -> Tensor:
        """Average terms over all pairs of modalities, each of the samples that have both.

        Args:
            terms: one for each of `pairs`; it takes rows of the two views and returns a scalar.
            views: modality -> of all samples of the batch, [B, ...].
        """
        each = [
            self.where_known(batch, pair, term, *(views[name] for name in pair))
            for pair, term in zip(self.pairs, terms, strict=True)
        ]
        return torch.stack(each).mean()

    def regime(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Hook: say how a bound acts on a batch, as named scalars without a gradient.

        The loop asks it on the first batch of every epoch, before the backward pass.
        """
        return {}

    def phase(self, epoch: int) -> object:
        """Return what tells apart epochs whose steps read other values of the host.

        Recorded steps are replayed while it stays the same (`training.replay`). It is the epoch
        where a method prepares epochs, unless the method knows better.
        """
        return epoch if type(self).before_epoch is not Method.before_epoch else None

    def before_epoch(self, epoch: int, outputs: Outputs) -> None:
        """Hook: prepare an epoch, in evaluation mode and without gradients.

        It is called before each epoch (0-based) and once after the last.

        Args:
            outputs: each call runs the network on this process's share of train once. What is
                summed over it goes through `distributed.add_up`.
        """

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Hook: make an inner update, in every training step between `forward` and `losses`."""

    def parameter_groups(self) -> list[dict[str, object]]:
        """Return what the optimiser trains, as groups of torch; a group may set its own options."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def noise(self, like: Tensor) -> Tensor:
        """Draw standard normal numbers of the same shape while training; return 0 in evaluation."""
        drawn = self.training or self.sample_in_evaluation
        return standard_normal(like) if drawn else torch.zeros_like(like)


class Fused(Method):
    """The shared network of the comparison: encoders, attention fusion, one linear head."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.fusion = Fusion(len(self.names), spec.width, spec.heads)
        self.head = spec.task.head(spec.width)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network on stored features, modality -> [B, ...]."""
        extra: dict[str, Tensor] = {}
        z = {name: self.transform(name, value, extra) for name, value in self.encode(x).items()}
        known = presence(x, self.names)
        fused = self.transform(FUSED, self.fusion(z.values(), known), extra)
        return Output(z, fused, self.head(fused), extra)

    def transform(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Hook: replace an embedding before fusion, heads and losses use it.

        Args:
            place: a modality or `FUSED`.
            value: the embedding, [B, D].
            extra: `Output.extra`, where tensors for the losses may be left.

        Returns:
            What takes its place, [B, D].
        """
        return value


class Headed(Fused):
    """IBMA's network: the shared network with one more linear head per modality."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.heads = nn.ModuleDict({name: spec.task.head(spec.width) for name in self.names})

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds the modality logits `logits/<modality>` [B, C]."""
        out = super().forward(x)
        out.extra |= {f"logits/{name}": self.heads[name](out.z[name]) for name in self.names}
        return out

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return the task loss of every head (CE of paper Eq. 2): `ce/<modality>`, `ce/fused`."""
        terms = {
            f"ce/{name}": self.judge(out.extra[f"logits/{name}"], batch, name)
            for name in self.names
        }
        return terms | {"ce/fused": self.judge(out.logits, batch)}


class MIBForm(Method):
    """The base of E-, L- and C-MIB; each places its bottlenecks itself.

    Source: TmacMai/Multimodal-Information-Bottleneck@f6d006b. CHOICE: on one-class data the
    distance of each head takes the place of its task loss.

    Args:
        beta: weight of the KLs.
        fusion: "shared", or "concat" as in that code.
        eval_sample: sample in evaluation too, as that code does.
    """

    own_weights = ("beta",)
    HIDDEN = 1024
    MAIN_WEIGHT = 2  # the fused task loss counts twice, as in that code

    def __init__(
        self,
        spec: Spec,
        *,
        beta: float = 1e-3,
        fusion: str = "shared",
        eval_sample: bool = False,
    ) -> None:
        super().__init__(spec)
        self.beta = spec.weight_factor * beta
        self.sample_in_evaluation = eval_sample
        self.concat = one_of("fusion", fusion, ("shared", "concat")) == "concat"

    def new_bottleneck(self) -> Gaussian:
        """Build a Gaussian block of the code's size."""
        return Gaussian(self.spec.width, self.HIDDEN)

    def new_fusion(self) -> nn.Module:
        """Build the fusion that was asked for."""
        if self.concat:
            return ConcatFusion(len(self.names), self.spec.width)
        return Fusion(len(self.names), self.spec.width, self.spec.heads)

    def rate(self, mean: Tensor, std: Tensor, batch: Batch, *names: str) -> Tensor:
        """Return beta times the KL to a standard normal, averaged over batch and dimensions.

        Args:
            names: the modality of the bottleneck, none after the fusion.
        """
        rates = bounds.gaussian_kl(mean, std)
        return self.beta * self.where_known(batch, names, torch.mean, rates)


def standard_normal(like: Tensor) -> Tensor:
    """Draw standard normal numbers of the same shape, the same ones whatever the precision."""
    return torch.randn_like(like, dtype=torch.float32)


def one_of(parameter: str, value: str, allowed: Sequence[str]) -> str:
    """Return a parameter's value if it is among those allowed.

    Raises:
        IbmaError: it is not.
    """
    if value not in allowed:
        raise IbmaError(f"params.yaml: {parameter} '{value}': expected {' or '.join(allowed)}")
    return value


def xavier(layers: Iterable[nn.Module]) -> None:
    """Start linear layers xavier-normal with zero bias (OGM-GE_CVPR2022@343dc1d, utils.py)."""
    for layer in layers:
        assert isinstance(layer, nn.Linear)
        nn.init.xavier_normal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
