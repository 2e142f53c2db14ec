"""Train your own network with a bound of IBMA: `from ibma import IBBLoss`.

A loss has no network. It reads representations and labels, and keeps the statistics of the training
data that its bound needs in buffers. The bounds are those that the pipeline's IBMA runs
(`ibma.methods.ibma`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Self

import torch
from torch import Tensor, nn

from ibma.errors import IbmaError
from ibma.estimators.tasks import KnownLabels
from ibma.methods.ibma import BoundSpec, Frame, Step, find_bound
from ibma.network import bounds, distributed
from ibma.network.centroids import PHI, Assignment, ClassSums
from ibma.network.method import FUSED
from ibma.network.tasks import Classify

Named = Mapping[str, Tensor]
VISIBLE = 0.01  # a change of phi, a probability, that a warning is worth
_TASKS: Mapping[str, type[Classify | KnownLabels]] = {
    "classify": Classify,
    "multilabel": KnownLabels,
}


class BadArgument(IbmaError, ValueError):
    """A value that a loss or an estimator cannot use, explained in one line."""


class BoundLoss(nn.Module):
    """What the losses share; use a subclass.

    Args:
        modalities: names of the modalities, at least one.
        num_classes: number of classes; with target="multilabel" of labels.
        dim: width of every representation, or a name -> its width, `fused` included.
        target: "classify" for class indices [B]; "multilabel" for 0/1 values [B, C], where any
            other value (NaN, -1) means that the label is not known.
        align: False leaves out the terms between modalities.
        beta: inverse temperature of phi, see `IBBLoss`.
        phi: "printed" or "unit", see `IBBLoss`.
        input_widths: modality -> width of its input vectors, for bounds that read them.
        options: parameters of the bound.
    """

    bound_name: str
    reads: tuple[str, ...] = ()  # of the arguments that may be left out, those that it needs

    def __init__(
        self,
        modalities: Sequence[str],
        num_classes: int,
        dim: int | Mapping[str, int],
        target: str = "classify",
        align: bool = True,
        beta: float = 1.0,
        phi: str = "printed",
        *,
        input_widths: Mapping[str, int] | None = None,
        **options: object,
    ) -> None:
        super().__init__()
        names = _checked_names(modalities)
        _one_of("target", target, _TASKS)
        _one_of("phi", phi, PHI)
        widths = dim if isinstance(dim, Mapping) else dict.fromkeys((*names, FUSED), dim)
        sizes: list[tuple[str, Any]]  # mypy takes no int for an Integral, no float for a Real
        sizes = [("num_classes", num_classes), *widths.items(), *(input_widths or {}).items()]
        scale: Any = beta
        for what, value in sizes:
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise BadArgument(f"{what}: {value!r}: expected a positive whole number")
        if not isinstance(scale, Real) or not 0 < float(scale) < math.inf:
            raise BadArgument(f"beta={beta!r}: expected a positive number")
        if not isinstance(align, bool):
            raise BadArgument(f"align={align!r}: expected True or False")
        spec = BoundSpec(
            names=names,
            widths=widths,
            task=_TASKS[target](tuple(map(str, range(num_classes)))),
            systems=(1, num_classes) if target == "classify" else (num_classes, 2),
            assignment=Assignment(beta, PHI[phi]),
            input_widths=input_widths or {},
        )
        missing = [place for place in (*names, FUSED) if place not in spec.widths]
        if missing:
            raise BadArgument(f"dim has no width for {', '.join(missing)}")
        self.spec = spec
        self.bound: Frame = find_bound(self.bound_name)(spec, align, **options)
        self.epoch = 0

    def forward(
        self,
        z: Named,
        y: Tensor,
        fused: Tensor | None = None,
        mask: Named | None = None,
        *,
        logits: Tensor | None = None,
        inputs: Named | None = None,
        phi_x: Named | None = None,
    ) -> Tensor:
        """Return the bound of a batch, a scalar in nats, in float32 whatever autocast says.

        Args:
            z: modality -> representation, [B, D].
            y: labels, see `target`.
            fused: the fused representation, [B, D]; None leaves out its terms.
            mask: modality -> which samples have it, bool [B]; a missing name means that all do.
                A term is computed of the samples that have both of its modalities, and weighted by
                their share of the batch.
            logits: of the head on the fused representation, [B, C]; CLUB and VIB then count the
                cross-entropy as their bound on I(Z, Y). Without it, your own cross-entropy is that.
            inputs: modality -> input vectors [B, R], which CLUB reads.
            phi_x: modality -> rows of `assign_inputs`, which the plug-in bound reads.
        """
        terms = self.terms(z, y, fused, mask, logits=logits, inputs=inputs, phi_x=phi_x)
        return torch.stack(list(terms.values())).sum()

    def terms(
        self,
        z: Named,
        y: Tensor,
        fused: Tensor | None = None,
        mask: Named | None = None,
        *,
        logits: Tensor | None = None,
        inputs: Named | None = None,
        phi_x: Named | None = None,
    ) -> dict[str, Tensor]:
        """Return the named terms that `forward` adds up.

        In training mode, with gradients on, the batch is added to what the next epoch's centroids
        and Q are computed from. Under `torch.no_grad` or after `eval()` it is not.
        """
        if self.epoch == 0:
            raise BadArgument("call start_epoch() before every epoch, the first one included")
        _check("labels", {"y": y}, ["y"])
        if len(y) == 0:
            raise BadArgument("labels: a batch without a sample: leave it out")
        for what, given in (("inputs", inputs), ("phi_x", phi_x)):
            if what in self.reads:
                _check(what, given, self.spec.names)
                self._check_shapes(what, given or {}, len(y))
        with torch.autocast(y.device.type, enabled=False):
            step = self._step(z, y, fused, mask, logits, inputs, phi_x)
            if self.training and torch.is_grad_enabled():
                self.bound.inner_step(step)
            terms = self.bound.terms(step)
        if not terms:
            raise BadArgument("no term: give fused=, or two modalities with align=True")
        return terms

    @torch.no_grad()
    def start_epoch(self, seen: Iterable[tuple[Any, ...]] | None = None) -> None:
        """Compute Q, then the centroids, from the sums of the last epoch. Call it in every process.

        If a batch of that epoch held NaN or infinity, both stay as they are, and a warning says so.

        Args:
            seen: batches as positional arguments of the loss, (z, y, fused) or (z, y, fused, mask),
                of the whole training data. They take the place of the last epoch's sums. Before
                the first epoch there are no sums: with `seen` the first centroids are class means
                (as in the pipeline), without it they are zero and the bound acts from the third
                epoch on (the paper allows both).
        """
        if seen is not None:
            self.bound.forget()
        before = {name: buffer.clone() for name, buffer in self.bound.named_buffers()}
        self.bound.refresh(self.epoch, map(self._step_of, seen or ()))
        if not all(buffer.isfinite().all() for buffer in self.bound.buffers()):
            for name, buffer in self.bound.named_buffers():
                buffer.copy_(before[name])
            self.bound.forget()
            warnings.warn(
                "a batch held NaN or infinity: centroids and Q stay those of the epoch before",
                stacklevel=2,
            )
        for name, buffer in self.bound.named_buffers():
            if name.startswith("centroids_"):
                self._warn_if_far(name.removeprefix("centroids_"), buffer)
        self.epoch += 1

    def _warn_if_far(self, place: str, centroids: Tensor) -> None:
        """Warn where rounding of squared distances to centroids [G, K, D] can move phi visibly.

        float32 keeps beta ||c||^2 to one part in 2^23, and phi depends on differences of such
        numbers.
        """
        lost = self.spec.assignment.beta * torch.finfo(torch.float32).eps
        off = lost * float(centroids.square().sum(-1).max())
        if off > VISIBLE:
            told = f"{place}: far from zero: float32 rounds its distances, phi may be off by"
            warnings.warn(f"{told} {min(off, 1.0):.2g}: centre it, by a norm layer", stacklevel=3)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move what the bound holds, and leave it in float32: the bound is computed in that."""
        move: Any = super()._apply  # which torch gives no types
        move(lambda held: fn(held).to(held.dtype), recurse)
        return self

    def _step_of(self, batch: Any) -> Step:
        if not isinstance(batch, tuple | list) or not 2 <= len(batch) <= 4:
            told = f"{type(batch).__name__}: expected (z, y), (z, y, fused) or (z, y, fused, mask)"
            raise BadArgument(f"seen: a batch of type {told}")
        return self._step(*batch)

    @torch.no_grad()
    def assign_inputs(self, x: Named, y: Tensor) -> dict[str, Tensor]:
        """Assign the inputs of the training data softly to their class means.

        Sets U of the bound, too. U is a constant (Eq. 3 factorises and Z drops out of it): it moves
        the value of the loss, never a gradient, and is 0 until this is called.

        Args:
            x: modality -> input vectors of all training samples, [n, R].
            y: their labels.

        Returns:
            Modality -> phi(X), [n, G, K].
        """
        systems = self.spec.task.systems(self._labels(y))
        phi = {}
        for name, vectors in x.items():
            sums = ClassSums.zeros(self.spec.systems, vectors.shape[1], vectors.float())
            sums.add(vectors.float(), systems)
            centroids = self.spec.assignment.centroids(sums.sums, sums.counts)
            self._warn_if_far(name, centroids)
            phi[name] = self.spec.assignment.phi(vectors.float(), centroids)
        prior = bounds.priors(systems)
        u = {name: float(bounds.u_term(value, prior).mean()) for name, value in phi.items()}
        self.bound.set_u(u)
        return phi

    def get_extra_state(self) -> Any:
        """Return what `state_dict` keeps beside buffers: the number of epochs started."""
        return torch.tensor(self.epoch)

    def set_extra_state(self, state: Any) -> None:
        """Take what `get_extra_state` returned."""
        self.epoch = int(state)

    def _step(
        self,
        z: Named,
        y: Tensor,
        fused: Tensor | None = None,
        mask: Named | None = None,
        logits: Tensor | None = None,
        inputs: Named | None = None,
        phi_x: Named | None = None,
    ) -> Step:
        """Check a batch and return it as the bound reads it."""
        known = {} if mask is None else mask
        _check("labels", {"y": y}, ["y"])
        _check("representations", z, self.spec.names)
        _check("mask", known, self.spec.names, some=True)
        places = {name: z[name].float() for name in self.spec.names}
        for name, rows in known.items():  # whatever stands in for a missing part, NaN included
            if rows.dtype != torch.bool or rows.shape != (len(y),):
                found = f"{rows.dtype} {tuple(rows.shape)}"
                raise BadArgument(f"mask: {name}: {found}: expected bool {(len(y),)}")
            places[name] = places[name].masked_fill(~rows.unsqueeze(1), 0.0)
        if fused is not None:
            _check("representations", {FUSED: fused}, [FUSED])
            places[FUSED] = fused.float()
        for place, value in places.items():
            shape = (len(y), self.spec.widths.get(place))
            if value.shape != shape:
                raise BadArgument(f"{place}: shape {tuple(value.shape)}, expected {shape}")
        y = self._labels(y)
        return Step(
            z=places,
            systems=self.spec.task.systems(y),
            y=y,
            logits=None if logits is None else logits.float(),
            present=known,
            phi_x=phi_x or {},
            inputs=inputs or {},
        )

    def _check_shapes(self, what: str, given: Named, rows: int) -> None:
        for name, value in given.items():
            known = (self.spec.input_widths[name],) if what == "inputs" else self.spec.systems
            if value.shape != (rows, *known):
                found, expected = tuple(value.shape), (rows, *known)
                raise BadArgument(f"{what}: {name}: shape {found}, expected {expected}")

    def _labels(self, y: Tensor) -> Tensor:
        count, found = len(self.spec.task.classes), f"labels: {y.dtype} {tuple(y.shape)}"
        if self.spec.task.kind == "multilabel":
            if y.is_complex() or y.ndim != 2 or y.shape[1] != count:
                raise BadArgument(f"{found}: expected 0 or 1, [B, {count}]")
            return y.float()
        if y.is_floating_point() or y.is_complex() or y.ndim != 1:
            raise BadArgument(f"{found}: expected class indices [B]")
        if not y.is_cuda and len(y) and (y.min() < 0 or y.max() >= count):  # a GPU would wait
            raise BadArgument(
                f"labels from {int(y.min())} to {int(y.max())}: expected 0 to {count - 1}: leave "
                "out samples without a label"
            )
        return y.long()


class IBBLoss(BoundLoss):
    """The information bottleneck bound (IBB) of the paper, Theorem 3.1, as a loss.

        ibb = IBBLoss(["image", "text"], num_classes=5, dim=64)
        for epoch in range(20):
            ibb.start_epoch()
            for xa, xb, y in loader:
                z = {"image": f(xa), "text": g(xb)}
                h = fuse(z)
                loss = cross_entropy(head(h), y) + 0.5 * ibb(z, y, fused=h)

    Two hyper-parameters decide whether it acts at all. phi(z)[y] = softmax over the classes y of
    -beta ||z - c_y||^2, with the class means c_y as centroids:

    - phi="printed" takes section 3.1 as it stands: raw vectors. Squared distances grow with the
      width and the norm of the embedding, so that phi is soon nearly one-hot and the bound pulls
      hard. It is the default because it is the paper's formula.
    - phi="unit" normalises vectors and centroids first, as the released code does. Logits then lie
      in [-4 beta, 0]. With many classes and beta=1 phi stays nearly flat, and the bound hardly
      acts: of 7 perfectly separated classes, a term falls from ln 7 = 1.946 to 1.807 and no
      further. With 2 classes it falls from 0.693 to 0.159. At beta=4 it falls to 0.01 with 7
      classes. See docs/loss.md.

    `regime()` says which of these you are in.

    The weight of the loss is eta of the paper, in (0, 1).

    Args:
        modalities, num_classes, dim, target, align: see `BoundLoss`.
        beta: inverse temperature of phi.
        phi: "printed" or "unit".
    """

    bound_name = "ibb"

    def regime(self) -> dict[str, float]:
        """Return, for each place, how flat Q is: its mean entropy over ln K.

        At 1.0 Q is uniform and the terms of that place are constant: no gradient. Near 0.0 every
        class has a column of its own. It is that of the last `start_epoch`.
        """
        classes = self.spec.systems[1]
        found = {}
        for name, q in self.bound.named_buffers():
            if name.startswith("q_"):
                entropy = -(q * q.clamp_min(bounds.FLOOR).log()).sum(1).mean()
                found[name.removeprefix("q_")] = float(entropy) / math.log(max(classes, 2))
        return found


class PluginIBLoss(BoundLoss):
    """The plug-in information bottleneck as a loss; unlike IBB, its compression has a gradient.

    It reads phi(X): pass `phi_x=` the batch's rows of what `assign_inputs` returned. Not in the
    paper, see docs/methods.md.

    Args:
        modalities, num_classes, dim, target, align, beta, phi: as `IBBLoss`.
    """

    bound_name = "plugin"
    reads = ("phi_x",)


class CLUBLoss(BoundLoss):
    """CLUB (Cheng et al., 2020) as a bound, with InfoNCE between modalities (paper, Algorithm 2).

    It reads the inputs as vectors: pass `inputs=`. Its critics have parameters, so give your
    optimiser `loss.parameters()`; what CLUB learns of its own, q(z | x), trains inside of the call.
    Several processes cannot train it together.

    Args:
        modalities, num_classes, dim, target, align: as `IBBLoss`.
        input_widths: modality -> width R of its input vectors.
    """

    bound_name = "club"
    reads = ("inputs",)

    def __init__(
        self,
        modalities: Sequence[str],
        num_classes: int,
        dim: int | Mapping[str, int],
        target: str = "classify",
        align: bool = True,
        *,
        input_widths: Mapping[str, int],
    ) -> None:
        if lacking := [name for name in modalities if name not in input_widths]:
            raise BadArgument(f"input_widths has no width for {', '.join(lacking)}")
        super().__init__(modalities, num_classes, dim, target, align, input_widths=input_widths)

    def terms(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the named terms, see `BoundLoss.terms`."""
        if distributed.world() > 1:
            raise BadArgument("CLUBLoss trains an inner network that processes cannot share")
        return super().terms(*args, **kwargs)

    def get_extra_state(self) -> Any:
        """Return the number of epochs started, and the state of q's optimiser."""
        assert self.bound.optimiser is not None
        return {"epoch": self.epoch, "optimiser": self.bound.optimiser.state_dict()}

    def set_extra_state(self, state: Any) -> None:
        """Take what `get_extra_state` returned."""
        assert self.bound.optimiser is not None
        self.epoch = state["epoch"]
        self.bound.optimiser.load_state_dict(state["optimiser"])


class VIBLoss(BoundLoss):
    """The variational information bottleneck as a bound, with InfoNCE between modalities.

    It adds noise to every representation, so the network must use what `transform` returns:

        z = {name: vib.transform(name, value) for name, value in z.items()}
        h = vib.transform("fused", fuse(z))
        loss = ce(head(h), y) + 0.5 * vib(z, y, fused=h)

    Give your optimiser `loss.parameters()`.

    Args:
        modalities, num_classes, dim, target, align: as `IBBLoss`.
        form: "gates" multiplies features by Gaussian gates (Dai et al., 2018), as the pipeline's
            default does; "posterior" draws from a Gaussian posterior (Alemi et al., 2017).
    """

    FORMS = {"gates": "vib", "posterior": "vib_alemi"}

    def __init__(
        self,
        modalities: Sequence[str],
        num_classes: int,
        dim: int | Mapping[str, int],
        target: str = "classify",
        align: bool = True,
        *,
        form: str = "gates",
    ) -> None:
        self.bound_name = self.FORMS[_one_of("form", form, self.FORMS)]
        super().__init__(modalities, num_classes, dim, target, align)
        self._noise: dict[str, Tensor] = {}
        self._transformed: set[str] = set()

    def transform(self, place: str, value: Tensor) -> Tensor:
        """Return what replaces a representation [B, D] of a modality or of `fused`.

        It is noisy in training mode only.
        """
        width = self.spec.widths.get(place)
        if width is None or value.ndim != 2 or value.shape[1] != width:
            raise BadArgument(f"{place}: shape {tuple(value.shape)}, expected (B, {width})")
        self._transformed.add(place)
        with torch.autocast(value.device.type, enabled=False):
            noisy: Tensor = self.bound.transform(place, value.float(), self._noise)
        return noisy.to(value.dtype)

    def _step(self, *args: Any, **kwargs: Any) -> Step:
        step = super()._step(*args, **kwargs)
        missed = [place for place in step.z if place not in self._transformed]
        if missed:
            raise BadArgument(f"pass {', '.join(missed)} through transform() first, in every step")
        step.extra.update({name: value.float() for name, value in self._noise.items()})
        self._noise.clear()
        self._transformed.clear()
        return step


def _checked_names(modalities: Sequence[str]) -> tuple[str, ...]:
    names = tuple(modalities)
    if not isinstance(modalities, list | tuple) or not names or len(set(names)) < len(names):
        raise BadArgument(f"modalities {modalities!r}: expected a list of different names")
    check_names(names)
    return names


def _check(what: str, given: Any, names: Sequence[str], some: bool = False) -> None:
    """Raise an error unless there is a tensor for each name, or for some of them.

    Raises:
        BadArgument: it says what was given.
    """
    if not isinstance(given, Mapping):
        raise BadArgument(f"{what}: {type(given).__name__}: expected a dictionary of tensors")
    if set(given) - set(names) or not (some or set(given) == set(names)):
        each = "some" if some else "one each"
        found, expected = ", ".join(map(str, given)) or "nothing", ", ".join(names)
        raise BadArgument(f"{what} of {found}: expected {each} of {expected}")
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise BadArgument(f"{what}: {name}: {type(value).__name__}: expected a tensor")
        if value.is_complex() or value.layout != torch.strided:  # else the imaginary part is lost
            found = f"{value.dtype}, {value.layout}"
            raise BadArgument(f"{what}: {name}: {found}: expected a dense tensor of real numbers")


def check_names(names: Iterable[Any]) -> None:
    """Raise an error if a network cannot hold a modality of such a name.

    Raises:
        BadArgument: it is no text, or stands for something else.
    """
    for name in names:
        if not isinstance(name, str) or not name or set(name) & {".", "|", "/"}:
            raise BadArgument(f"modality {name!r}: expected a name without . and | and /")
        if name in (FUSED, "logits") or hasattr(nn.ModuleDict, name):
            raise BadArgument(f"modality '{name}': expected another name, networks use this one")


def _one_of(parameter: str, value: str, allowed: Iterable[str]) -> str:
    known = list(allowed)
    if value not in known:
        raise BadArgument(f"{parameter}={value!r}: expected {' or '.join(known)}")
    return value
