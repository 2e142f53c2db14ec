"""Train a network: the one loop of all methods, with its precision, checkpoints and evaluation.

Order of samples and noise are pure functions of (seed, epoch), so that a run killed at any moment
and resumed from its last checkpoint leaves the same record as an undisturbed one. Several processes
(`ibma.network.distributed`) train one network with the same loop.

Networks compute in bfloat16 on a GPU. What leaves them is float32 (`run_network`), and so are all
losses, their sums over an epoch, centroids and Q.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ibma.errors import IbmaError, progress_bar
from ibma.features.store import Batch, Features, Rows, TrainingSet
from ibma.network import distributed, tasks
from ibma.network.encoders import Auto
from ibma.network.method import FUSED, Method, Output
from ibma.training import replay
from ibma.training.cell import Setting
from ibma.training.checkpoint import Checkpoint
from ibma.training.compiled import CompiledLayers

CHECKPOINT_SECONDS = 30.0  # no run loses more than this (or one epoch) to a kill
EVALUATION_BATCH = 256


def configure_torch(threads: int | None, compiled: bool, deterministic: bool = True) -> None:
    """Set what every training and every measurement shares: threads, kernels, precision.

    Of several processes that `torchrun` started, this one joins the others.

    Args:
        threads: on the CPU; None for torch's choice.
        compiled: whether networks run through `torch.compile`.
        deterministic: choose kernels that give the same bytes twice; False is for measuring what
            that costs.
    """
    distributed.begin()
    if threads is not None:
        torch.set_num_threads(threads)
    # float32 is float32, not TF32; torch 2.11 does not pass the first on to the others
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]
    if compiled:  # inductor has a switch of its own, which only this sets
        torch.use_deterministic_algorithms(deterministic)
    choose_kernels(deterministic)


def choose_kernels(deterministic: bool) -> None:
    """Let torch use only kernels that give the same bytes twice, or any.

    An operation without such a kernel raises an error. Where torch would only warn, attention adds
    up the gradients of long inputs in any order, and without a warning.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it
    torch.backends.cudnn.benchmark = not deterministic
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # `use_deterministic_algorithms` would import the compiler, which most runs do without
    torch.set_deterministic_debug_mode("error" if deterministic else "default")


@contextmanager
def same_bytes() -> Iterator[None]:
    """Use such kernels for a while, in a process that is not ours."""
    fills = torch.utils.deterministic
    before = (
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.benchmark,
        fills.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    choose_kernels(deterministic=True)
    try:
        yield
    finally:
        mode, torch.backends.cudnn.benchmark, filled = before
        torch.set_deterministic_debug_mode(mode)
        fills.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def select_device(name: str) -> torch.device:
    """Return the device to train on; `auto` takes CUDA where there is one.

    Raises:
        IbmaError: CUDA is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise IbmaError("params.yaml: device: cuda asked for, none found: set it to auto or cpu")
    # with its number: tensors say cuda:0, and a device is a key of `Features`
    return torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def autocast(
    device: torch.device, precision: torch.dtype | None = None
) -> AbstractContextManager[None]:
    """Let torch choose the type of each operation.

    Args:
        precision: torch.bfloat16 or torch.float32; None for bfloat16 on CUDA, float32 elsewhere.
    """
    wanted = precision or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    enabled = wanted != torch.float32
    return torch.autocast(device.type, dtype=wanted if enabled else None, enabled=enabled)


def run_network(
    network: Method, x: Mapping[str, Tensor], precision: torch.dtype | None = None
) -> Output:
    """Run a network on stored features; what comes back is float32.

    Args:
        x: modality -> [B, ...].
        precision: see `autocast`.
    """
    with autocast(next(iter(x.values())).device, precision):
        return cast(Output, network(x)).float()


class Objective(nn.Module):
    """A method's loss terms on a batch, as the one module that several processes train.

    Args:
        compiled_for: rows of the batches whose layers run compiled; None for no batch. A last
            smaller batch would be compiled again, for one step an epoch.
    """

    def __init__(
        self, model: Method, compiled_for: int | None, precision: torch.dtype | None
    ) -> None:
        super().__init__()
        self.model, self.precision = model, precision
        self.compiled_for = compiled_for
        self.layers = CompiledLayers(model) if compiled_for else None

    def forward(self, batch: Batch, watched: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return term -> scalar, after the method's inner step, and `Method.regime` if watched."""
        with self.compiling(batch):
            out = run_network(self.model, batch.x, self.precision)
        self.model.inner_step(out, batch)
        terms = self.model.losses(out, batch)
        # the model and what is drawn at random stay as they are
        return terms, self.model.regime(out, batch) if watched else {}

    def compiling(self, batch: Batch) -> AbstractContextManager[None]:
        """Return what runs a batch's layers compiled, if they are to be."""
        if self.layers is None or len(batch.y) != self.compiled_for:
            return nullcontext()
        return self.layers.in_use()


def distribute(objective: Objective, features: Features, device: torch.device) -> nn.Module:
    """Wrap the objective so that all processes train it; in a single process return it as it is.

    Raises:
        IbmaError: several processes cannot do exactly what it needs: batch statistics on the CPU
            (on GPUs they are synchronised), an inner optimiser, samples that are compared, or
            gradients of a modality that no sample of a process may have.
    """
    if distributed.world() == 1:
        return objective
    if features.present:
        raise IbmaError(
            "params.yaml: processes: some samples lack a modality, so that the part of a batch "
            "that a process has may lack it: set processes to 1"
        )
    if objective.model.inner is not None:
        raise IbmaError(
            "params.yaml: processes: this method trains an inner network in every step, which is "
            "not reduced over processes: set processes to 1"
        )
    if objective.model.compares_samples:
        raise IbmaError(
            "params.yaml: processes: this method compares the samples of a batch, of which each "
            "process has a part: set processes to 1"
        )
    if device.type == "cuda":
        # in place: all of them are children
        nn.SyncBatchNorm.convert_sync_batchnorm(objective)  # type: ignore[no-untyped-call]
    elif any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in objective.modules()):
        raise IbmaError(
            "params.yaml: processes: an encoder has batch statistics, which only GPUs synchronise: "
            "set processes to 1"
        )
    return DistributedDataParallel(
        objective,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,  # every process computes the same ones
        # of `auto` the last layers are not read
        find_unused_parameters=objective.model.leaves_parameters_unused
        or any(isinstance(module, Auto) for module in objective.modules()),
    )


class Fit:
    """Train one network, epoch by epoch.

    Args:
        rows: what to learn from; its batches carry what the method reads (`Cell.training`).
        seed, epochs, batch_size: with the network's own start they decide the result.
        checkpoint: file that the training can go on from; None for none.
        key: the run's; a checkpoint under another key is not read.
        compiled: run the network's layers through `torch.compile`.
        precision: of the network's arithmetic, see `autocast`.
        quiet: show no progress bar.
    """

    def __init__(
        self,
        model: Method,
        rows: TrainingSet,
        setting: Setting,
        *,
        seed: int,
        epochs: int,
        batch_size: int,
        device: torch.device,
        checkpoint: Path | None = None,
        key: str = "",
        compiled: bool = False,
        precision: torch.dtype | None = None,
        quiet: bool = False,
    ) -> None:
        self.model, self.rows, self.seed, self.epochs = model, rows, seed, epochs
        self.batch_size, self.device = batch_size, device
        self.precision, self.quiet = precision, quiet
        self.checkpoint = Checkpoint(checkpoint, key) if checkpoint else None
        size = batch_size // distributed.world()
        objective = Objective(model, size if compiled else None, precision)
        self.objective = distribute(objective, rows.features, device)
        self.optimiser = torch.optim.Adam(
            model.parameter_groups(),
            lr=setting.lr,
            weight_decay=setting.weight_decay,
            fused=True,
        )
        self.replays = replay.possible(model, rows.features, device)
        self.replayed: replay.Replayed | None = None
        self.phase: object = None
        for optimiser in (self.optimiser, model.inner):
            for group in optimiser.param_groups if optimiser else []:
                group["capturable"] = device.type == "cuda"  # its count of steps is the GPU's
        self.history: dict[str, list[float]] = {}
        self.regime: dict[str, list[float]] = {}
        self.seconds: list[float] = []
        self.epoch = 0

    def run(self, label: str) -> None:
        """Train to the last epoch, from the checkpoint if there is one.

        Raises:
            IbmaError: a loss is not finite, a checkpoint cannot be written, or an operation gives
                other bytes each time on this device.
        """
        if self.quiet:
            for _ in self.walk(label):
                pass
            return
        epochs = self.walk(label)
        with progress_bar(total=self.epochs, desc=label) as bar:
            for terms in epochs:
                bar.update(self.epoch - bar.n)
                bar.set_postfix(loss=f"{sum(terms.values()):.3f}", refresh=False)

    def walk(self, label: str) -> Iterator[dict[str, float]]:
        """Train epoch by epoch; yield the mean of every loss term after each."""
        self._resume()
        saved = time.monotonic()
        try:
            while self.epoch < self.epochs:
                start = time.perf_counter()
                terms, regime = self._one_epoch()
                self.seconds.append(time.perf_counter() - start)
                self._log(terms, label)
                for name, value in regime.items():
                    self.regime.setdefault(name, []).append(value)
                self.epoch += 1
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()
                yield terms
        except RuntimeError as error:
            if "deterministic implementation" not in str(error):
                raise
            raise IbmaError(
                f"{label}: {str(error).split(', ')[0]}: let its encoder learn its last layer only "
                "(train: last), or train on the CPU"
            ) from None
        finally:
            if self.checkpoint is not None:
                self.checkpoint.close()

    def _one_epoch(self) -> tuple[dict[str, float], dict[str, float]]:
        """Train an epoch; return the mean of every loss term, and the regime at its start.

        CHOICE: the regime is that of the epoch's first batch.
        """
        torch.manual_seed(self.seed * 1_000_003 + self.epoch + 1 + distributed.rank() * 999_983)
        if self.epoch == 0:
            self.model.eval()
            centre_spheres(self.model, self.outputs())
        self.refresh()
        self.model.train()
        # on the CPU records keep the order, and with it the bytes, that they have always had
        by_length = self.device.type == "cuda"
        batches = self.rows.shuffled(self.batch_size, self.seed, self.epoch, by_length)
        shares = map(distributed.share, batches)
        names: Iterable[str] = ()
        totals, regime = torch.zeros((), device=self.device), dict[str, Tensor]()
        step, loaded = self.steps(), self.rows.load(shares, self.device)
        for number, (rows, batch) in enumerate(zip(batches, loaded, strict=True)):
            names, values, told = step(batch, number == 0)
            totals = totals + values * (batch.weight * len(rows) / distributed.world())
            # copied: what a step returns is valid until the next one
            regime |= {name: value.clone() for name, value in told.items()}
        at_start = torch.stack([*regime.values(), totals.new_zeros(())]) / distributed.world()
        distributed.add_up([totals, at_start])
        # one read per epoch: the device is not waited for inside it
        numbers = torch.cat([totals, at_start]).tolist()
        seen = sum(map(len, batches))
        sums, start = numbers[: len(totals)], numbers[len(totals) : -1]
        terms = {name: value / seen for name, value in zip(names, sums, strict=True)}
        return terms, dict(zip(regime, start, strict=True))

    def steps(self) -> replay.Step:
        """Return what makes the steps of the next epoch."""
        if not self.replays:
            return self.step
        phase = self.model.phase(self.epoch)
        if self.replayed is None or phase != self.phase:
            self.replayed, self.phase = replay.Replayed(self.device), phase
        return partial(self.replayed, self.step)

    def step(self, batch: Batch, watched: bool = False) -> replay.Result:
        """Make one step of the optimiser; if it is watched, return `Method.regime` too."""
        self.optimiser.zero_grad(set_to_none=True)
        terms, regime = self.objective(batch, watched)
        values = torch.stack(list(terms.values()))
        (values.sum() * batch.weight).backward()  # type: ignore[no-untyped-call]
        if self.model.clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.model.parameters(), self.model.clip_value)
        self.optimiser.step()
        return replay.Result(list(terms), values.detach(), regime)

    @torch.no_grad()
    def refresh(self) -> None:
        """Let the method renew what it keeps of train: before each epoch and after the last."""
        self.model.eval()
        self.model.before_epoch(self.epoch, self.outputs)

    def outputs(self) -> Iterator[tuple[Output, Batch]]:
        """Yield what the network makes of this process's training rows, in store order."""
        for batch in own_share(self.rows).batches(EVALUATION_BATCH, self.device):
            yield run_network(self.model, batch.x, self.precision), batch

    def _log(self, terms: Mapping[str, float], label: str) -> None:
        for name, value in terms.items():
            if not math.isfinite(value):
                raise IbmaError(
                    f"{label}: loss term '{name}' is {value} in epoch {self.epoch + 1}: lower "
                    "tune.grid.lr or the term's weight; finished seeds are kept"
                )
            self.history.setdefault(name, []).append(value)

    def _resume(self) -> None:
        state = self.checkpoint.read() if self.checkpoint is not None else None
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.model.inner is not None:
                self.model.inner.load_state_dict(state["inner"])
            self.history, self.seconds = state["history"], state["seconds"]
            self.regime = state["regime"]
            self.epoch = state["epoch"]

    def _save(self) -> None:
        if self.checkpoint is not None and distributed.rank() == 0:
            self.checkpoint.write(self._state())
            self.checkpoint.tell(self._progress())

    def _progress(self) -> dict[str, Any]:
        return {"history": self.history, "regime": self.regime, "seconds": self.seconds}

    def _state(self) -> dict[str, Any]:
        return {
            **self._progress(),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "inner": self.model.inner.state_dict() if self.model.inner is not None else None,
            "epoch": self.epoch,
        }


@torch.no_grad()
def centre_spheres(model: Method, outputs: Iterable[tuple[Output, Batch]]) -> None:
    """Fix the centre of every one-class head at its mean output over train.

    Args:
        model: in evaluation mode.
        outputs: runs the network on this process's share of train, once.
    """
    spheres = [module for module in model.modules() if isinstance(module, tasks.Sphere)]
    if not spheres:
        return
    sums = {sphere: torch.zeros_like(sphere.get_buffer("centre")) for sphere in spheres}
    counts = {sphere: torch.zeros((), device=total.device) for sphere, total in sums.items()}

    def add(sphere: nn.Module, _: object, out: Tensor) -> None:
        rows = out.flatten(0, -2)
        sums[cast(tasks.Sphere, sphere)] += rows.sum(0)
        counts[cast(tasks.Sphere, sphere)] += len(rows)

    hooks = [sphere.register_forward_hook(add) for sphere in spheres]
    for _ in outputs:
        pass
    for hook in hooks:
        hook.remove()
    distributed.add_up([*sums.values(), *counts.values()])
    for sphere in spheres:
        sphere.centre_on(sums[sphere] / counts[sphere])


def own_share(rows: Rows) -> Rows:
    """Return this process's share of some rows."""
    return rows.taking(distributed.mine(rows.index))


@torch.no_grad()
def represent(
    model: Method, rows: Rows, device: torch.device, precision: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Return logits [n, C] and representations [n, D] of some rows, in evaluation mode.

    Args:
        precision: see `autocast`.

    Returns:
        `logits`, and a modality or `fused` -> its representation, on the CPU.
    """
    model.eval()
    parts: list[dict[str, Tensor]] = []
    for batch in rows.batches(EVALUATION_BATCH, device):
        out = run_network(model, batch.x, precision)
        named = {"logits": out.logits, **out.z, FUSED: out.fused}
        parts.append({name: value.cpu() for name, value in named.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def predict(
    model: Method, rows: Rows, device: torch.device, precision: torch.dtype | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits and representations as `represent` does, from the rows of all processes.

    Raises:
        IbmaError: a logit is not finite.
    """
    own = represent(model, own_share(rows), device, precision)
    whole = {name: distributed.gather(value) for name, value in own.items()}
    logits = whole.pop("logits")
    if not logits.isfinite().all():
        raise IbmaError("predictions are no numbers: lower tune.grid.lr")
    return logits, whole
