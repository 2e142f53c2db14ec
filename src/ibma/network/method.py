"""What a method is: a network and its loss terms; `ibma.methods` holds them.

A method is a network and its loss terms. The optimiser, the device, the loop and the clock live in
`ibma.train`; the task loss lives in `ibma.tasks`. Methods never import each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.errors import IbmaError
from ibma.features.store import Batch
from ibma.network import bounds, encoders
from ibma.network.centroids import Assignment, InputVectors, class_systems
from ibma.network.tasks import Task

FUSED = "fused"  # name of the fused representation beside those of the modalities


@dataclass(frozen=True)
class Modality:
    """How one modality enters the network.

    kind: see `datasets.ModalityKind`. shape: shape of one example in the feature store.
    encoder: parameters of `encoders.build`.
    """

    kind: str
    shape: tuple[int, ...]
    encoder: Mapping[str, object]


@dataclass(frozen=True)
class Spec:
    """Everything a method may know about its problem.

    modalities keep their order. width: embedding size D (paper B.2: 512). heads: attention heads of
    the fusion block (paper B.2: 8). epochs: length of training. systems: (G, K), the label shape of
    `ibma.tasks`. assignment: how phi is computed. eta: weight of the IB bound (paper Eq. 2), None
    for methods that do not read it. From the centroid stage: u, the Z-free mean of U per modality
    (nats); input_phi, phi(X) per modality for every row of the store, [n, G, K]; inputs, X per
    modality as vectors; pseudo, the one-hot pseudo-class of every row [n, K] of one-class data.
    previous: label of the utterance before each row in its dialogue, [n], NaN for none; None where
    the data has no dialogues. Tensors are on the network's device. refresh: what the centroids and
    Q of an epoch are made of, "epoch" or "pass" (see methods/ibma.py).
    """

    modalities: Mapping[str, Modality]
    task: Task
    width: int
    heads: int
    epochs: int
    systems: tuple[int, int]
    assignment: Assignment
    eta: float | None = None
    u: Mapping[str, float] = field(default_factory=dict)
    input_phi: Mapping[str, Tensor] = field(default_factory=dict)
    inputs: Mapping[str, InputVectors] = field(default_factory=dict)
    pseudo: Tensor | None = None
    previous: Tensor | None = None
    refresh: str = "epoch"

    def systems_of(self, batch: Batch) -> Tensor:
        """One-hot class systems [B, G, K] of a batch: its labels, or its pseudo-classes."""
        return class_systems(self.task, batch.y, self.pseudo, batch.index)


@dataclass
class Output:
    """z: modality -> [B, D]. fused: [B, D]. logits: [B, C]. extra: what a method's losses need."""

    z: dict[str, Tensor]
    fused: Tensor
    logits: Tensor
    extra: dict[str, Tensor]


Batches = Callable[[], Iterable[Batch]]


class Fusion(nn.Module):
    """Cross-modal attention fusion (paper B.2): one transformer block over modality tokens.

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

    def forward(self, z: Iterable[Tensor]) -> Tensor:
        """z: M tensors [B, D] -> [B, D]."""
        tokens = self.block(torch.stack(list(z), dim=1))
        return cast(Tensor, self.project(tokens.flatten(1)))


class ConcatFusion(nn.Module):
    """ReLU(Linear([z_1; ...; z_M])), the fusion of MIB's code (emib.py, class concat)."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(modalities * width, width)

    def forward(self, z: Iterable[Tensor]) -> Tensor:
        """z: M tensors [B, D] -> [B, D]."""
        return F.relu(self.linear(torch.cat(list(z), dim=1)))


class Gaussian(nn.Module):
    """z -> mean and deviation of a Gaussian bottleneck: one ReLU layer, two linear outputs.

    deviation = softplus(linear - 5), which starts near 0.0067. Source:
    TmacMai/Multimodal-Information-Bottleneck@f6d006b, emib.py (its hidden layer has 1024 units).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
        self.mean = nn.Linear(hidden, width)
        self.deviation = nn.Linear(hidden, width)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D] -> mean [B, D] and deviation [B, D] > 0."""
        hidden = self.hidden(z)
        return self.mean(hidden), F.softplus(self.deviation(hidden) - 5.0)


class Method(nn.Module):
    """A method: encoders, a fusion and one head; subclasses change what their paper changes.

    Subclasses take their own parameters as keyword arguments after `spec`; an unknown one is a
    TypeError that `build` turns into one line.

    clip_value: gradients are clipped to [-clip_value, clip_value], None for no clipping.
    sample_in_evaluation: whether `noise` is drawn in evaluation too. inner: the optimiser of an
    inner update, if the method has one; it is saved with every checkpoint.
    """

    clip_value: float | None = None
    sample_in_evaluation = False
    inner: torch.optim.Optimizer | None = None

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.names = tuple(spec.modalities)
        self.encoders = nn.ModuleDict(
            {
                name: encoders.build(m.encoder, kind=m.kind, shape=m.shape, width=spec.width)
                for name, m in spec.modalities.items()
            }
        )

    def encode(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """x: modality -> [B, ...] -> modality -> [B, D]."""
        return {name: self.encoders[name](x[name]) for name in self.names}

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """x: modality -> [B, ...]."""
        raise NotImplementedError

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Named, already weighted loss terms; the loop sums and logs them."""
        return {"task": self.spec.task.loss(out.logits, batch.y)}

    def before_epoch(self, epoch: int, batches: Batches) -> None:
        """Called before each epoch (0-based) and after the last, in eval mode under no_grad.

        `batches` walks this process's share of train; what is summed over it goes through
        `parallel.add_up`.
        """

    def inner_step(self, out: Output, batch: Batch) -> None:
        """Called in every training step between `forward` and `losses`, for an inner update."""

    def parameter_groups(self) -> list[dict[str, object]]:
        """What the optimiser trains, as groups of torch; a group may set its own weight decay."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal while training, 0 in evaluation; same shape as `like`."""
        drawn = self.training or self.sample_in_evaluation
        return torch.randn_like(like) if drawn else torch.zeros_like(like)


class Fused(Method):
    """The shared network of the comparison: encoders, attention fusion, one linear head."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.fusion = Fusion(len(self.names), spec.width, spec.heads)
        self.head = spec.task.head(spec.width)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """x: modality -> [B, ...]."""
        extra: dict[str, Tensor] = {}
        z = {name: self.refine(name, value, extra) for name, value in self.encode(x).items()}
        fused = self.refine(FUSED, self.fusion(z.values()), extra)
        return Output(z, fused, self.head(fused), extra)

    def refine(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """What a method makes of a representation [B, D] before anything reads it.

        place: a modality or `FUSED`. Tensors for the loss may be left in `extra`.
        """
        return value


class Headed(Fused):
    """IBMA's network: the shared network with one more linear head per modality."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.heads = nn.ModuleDict({name: spec.task.head(spec.width) for name in self.names})

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """x: modality -> [B, ...]; `extra` has the modality logits `logits/<modality>` [B, C]."""
        out = super().forward(x)
        out.extra |= {f"logits/{name}": self.heads[name](out.z[name]) for name in self.names}
        return out

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Task loss of every head (CE of paper Eq. 2): `ce/<modality>` and `ce/fused`."""
        loss = self.spec.task.loss
        terms = {f"ce/{n}": loss(out.extra[f"logits/{n}"], batch.y) for n in self.names}
        return terms | {"ce/fused": loss(out.logits, batch.y)}


class MIBForm(Method):
    """What E-, L- and C-MIB share; each places its bottlenecks itself.

    TmacMai/Multimodal-Information-Bottleneck@f6d006b. beta: weight of the KLs. fusion: "shared", or
    "concat" as that code. double_main: the fused task loss counts twice, as there. eval_sample:
    sample in evaluation too, as there.
    """

    HIDDEN = 1024

    def __init__(
        self,
        spec: Spec,
        *,
        beta: float = 1e-3,
        fusion: str = "shared",
        double_main: bool = True,
        eval_sample: bool = False,
    ) -> None:
        super().__init__(spec)
        self.beta, self.main_weight = beta, 1 + double_main
        self.sample_in_evaluation = eval_sample
        self.concat = one_of("fusion", fusion, ("shared", "concat")) == "concat"

    def new_bottleneck(self) -> Gaussian:
        """A Gaussian block of the code's size."""
        return Gaussian(self.spec.width, self.HIDDEN)

    def new_fusion(self) -> nn.Module:
        """The fusion that was asked for."""
        if self.concat:
            return ConcatFusion(len(self.names), self.spec.width)
        return Fusion(len(self.names), self.spec.width, self.spec.heads)

    def rate(self, mean: Tensor, std: Tensor) -> Tensor:
        """Beta times KL to the standard normal, a mean over batch and dimensions -> scalar."""
        return self.beta * bounds.gaussian_kl(mean.float(), std.float()).mean()


def one_of(parameter: str, value: str, allowed: Sequence[str]) -> str:
    """Return the value. Raises IbmaError when it is not among those allowed."""
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
