"""One loop for everything: seed, epoch, checkpoint, resume, time.

Order of samples and noise are pure functions of (seed, epoch), so that a run killed at any moment
and resumed from its last checkpoint leaves the same record as an undisturbed one. Several processes
(`ibma.network.distributed`) train one network with the same loop.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ibma.errors import IbmaError
from ibma.features.store import Batch, Rows, TrainingSet
from ibma.network import distributed, tasks
from ibma.network.method import Method, Output
from ibma.training.cell import Setting

CHECKPOINT_SECONDS = 30.0  # no run loses more than this (or one epoch) to a kill
EVALUATION_BATCH = 256


def configure_torch(threads: int | None, compiled: bool) -> None:
    """Set what every training and every measurement shares: threads and deterministic kernels.

    Of several processes that `torchrun` started, this one joins the others.
    """
    distributed.begin()
    if threads is not None:
        torch.set_num_threads(threads)
    if compiled:
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:  # the same, without importing the compiler to tell it
        torch.set_deterministic_debug_mode("warn")


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


def autocast(on: torch.device) -> AbstractContextManager[None]:
    """bfloat16 on CUDA, full precision on the CPU."""
    return torch.autocast(on.type, dtype=torch.bfloat16, enabled=on.type == "cuda")


class Objective(nn.Module):
    """A method's loss terms on a batch, as the one module that several processes train."""

    def __init__(self, model: Method, device: torch.device, compiled: bool) -> None:
        super().__init__()
        self.model, self.device = model, device
        forward = torch.compile(model) if compiled else model
        self.forward_model = cast(Callable[[Mapping[str, Tensor]], Output], forward)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Term -> scalar."""
        with autocast(self.device):
            out = self.forward_model(batch.x)
        self.model.inner_step(out, batch)
        return self.model.losses(out, batch)


def distribute(objective: Objective, device: torch.device) -> nn.Module:
    """The objective as all processes train it; itself in a single one.

    Raises IbmaError for what several processes cannot do exactly: batch statistics on the CPU (on
    GPUs they are synchronised), and an inner optimiser.
    """
    if distributed.world() == 1:
        return objective
    if objective.model.inner is not None:
        raise IbmaError(
            "params.yaml: processes: this method trains an inner network in every step, which is "
            "not reduced over processes: set processes to 1"
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
        find_unused_parameters=True,  # some methods have phases
    )


class Fit:
    """Training of one network, epoch by epoch, with an optional checkpoint file.

    compiled: run the network through `torch.compile`. quiet: show no progress bar.
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
        quiet: bool = False,
    ) -> None:
        self.model, self.rows, self.seed, self.epochs = model, rows, seed, epochs
        self.batch_size, self.device = batch_size, device
        self.checkpoint, self.key, self.quiet = checkpoint, key, quiet
        self.objective = distribute(Objective(model, device, compiled), device)
        self.optimiser = torch.optim.Adam(
            model.parameter_groups(),
            lr=setting.lr,
            weight_decay=setting.weight_decay,
            fused=True,
        )
        self.history: dict[str, list[float]] = {}
        self.seconds: list[float] = []
        self.epoch = 0

    def run(self, label: str) -> None:
        """Train to the last epoch, from the checkpoint if it belongs to this key."""
        self._resume()
        saved = time.monotonic()
        with tqdm(total=self.epochs, initial=self.epoch, desc=label, disable=self.quiet) as bar:
            while self.epoch < self.epochs:
                start = time.perf_counter()
                terms = self._one_epoch()
                self.seconds.append(time.perf_counter() - start)
                self._log(terms, label)
                self.epoch += 1
                bar.update()
                bar.set_postfix(loss=f"{sum(terms.values()):.3f}", refresh=False)
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()

    def _one_epoch(self) -> dict[str, float]:
        torch.manual_seed(self.seed * 1_000_003 + self.epoch + 1 + distributed.rank() * 999_983)
        self.model.eval()
        with torch.no_grad():
            if self.epoch == 0:
                centre_spheres(self.model, self.evaluation_batches())
            self.model.before_epoch(self.epoch, self.evaluation_batches)
        self.model.train()
        totals: dict[str, Tensor] = {}
        batches = self.rows.shuffled(self.batch_size, self.seed, self.epoch)
        shares = map(distributed.share, batches)
        for rows, batch in zip(batches, self.rows.load(shares, self.device), strict=True):
            for name, value in self._step(batch).items():
                counted = value * (batch.weight * len(rows) / distributed.world())
                totals[name] = totals[name] + counted if name in totals else counted
        # one read per epoch: the device is not waited for inside it
        values = torch.stack(list(totals.values()))
        distributed.add_up([values])
        seen = sum(map(len, batches))
        return dict(zip(totals, (value / seen for value in values.tolist()), strict=True))

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        self.optimiser.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = self.objective(batch)
        loss = torch.stack(list(terms.values())).sum() * batch.weight
        loss.backward()  # type: ignore[no-untyped-call]
        if self.model.clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.model.parameters(), self.model.clip_value)
        self.optimiser.step()
        return {name: value.detach() for name, value in terms.items()}

    def evaluation_batches(self) -> Iterator[Batch]:
        """This process's training rows in store order, for passes that do not train."""
        return mine(self.rows).batches(EVALUATION_BATCH, self.device)

    def _log(self, terms: Mapping[str, float], label: str) -> None:
        for name, value in terms.items():
            if not math.isfinite(value):
                raise IbmaError(
                    f"{label}: loss term '{name}' is {value} in epoch {self.epoch + 1}: lower "
                    "tuning.grid.lr or the term's weight; finished seeds are kept"
                )
            self.history.setdefault(name, []).append(value)

    def _resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        except Exception:  # a damaged checkpoint costs time, never the run
            return
        if state["key"] != self.key:
            return
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.model.inner is not None:
            self.model.inner.load_state_dict(state["inner"])
        self.history, self.seconds, self.epoch = state["history"], state["seconds"], state["epoch"]

    def _save(self) -> None:
        if self.checkpoint is None or distributed.rank():
            return
        state = {
            "key": self.key,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "inner": self.model.inner.state_dict() if self.model.inner is not None else None,
            "history": self.history,
            "seconds": self.seconds,
            "epoch": self.epoch,
        }
        save_atomically(state, self.checkpoint)


@torch.no_grad()
def centre_spheres(model: Method, batches: Iterable[Batch]) -> None:
    """Fix the centre of every one-class head at its mean output over train, in eval mode."""
    spheres = [module for module in model.modules() if isinstance(module, tasks.Sphere)]
    if not spheres:
        return
    sums = {sphere: torch.zeros_like(sphere.get_buffer("centre")) for sphere in spheres}
    counts = {sphere: torch.zeros((), device=total.device) for sphere, total in sums.items()}

    def add(sphere: nn.Module, _: object, out: Tensor) -> None:
        rows = out.float().flatten(0, -2)
        sums[cast(tasks.Sphere, sphere)] += rows.sum(0)
        counts[cast(tasks.Sphere, sphere)] += len(rows)

    hooks = [sphere.register_forward_hook(add) for sphere in spheres]
    for batch in batches:
        model(batch.x)
    for hook in hooks:
        hook.remove()
    distributed.add_up([*sums.values(), *counts.values()])
    for sphere in spheres:
        sphere.centre_on(sums[sphere] / counts[sphere])


def save_atomically(state: object, path: Path) -> None:
    """torch.save that leaves the old file in place when the disk is full (IbmaError)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise IbmaError(
            f"{path}: cannot be written ({error}): free disk space and run again, "
            "what was finished is kept"
        ) from None


def mine(rows: Rows) -> Rows:
    """Return this process's share of some rows."""
    return rows.taking(distributed.mine(rows.index))


@torch.no_grad()
def predict(model: Method, rows: Rows, on: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits [n, C] and representations (modalities and `fused`) [n, D], on the CPU, eval mode."""
    model.eval()
    logits, features = [], []
    for batch in mine(rows).batches(EVALUATION_BATCH, on):
        with autocast(on):
            out = model(batch.x)
        logits.append(out.logits.float().cpu())
        named = {**out.z, "fused": out.fused}
        features.append({name: value.float().cpu() for name, value in named.items()})
    stacked = {name: torch.cat([part[name] for part in features]) for name in features[0]}
    gathered = {name: distributed.gather(value) for name, value in stacked.items()}
    return distributed.gather(torch.cat(logits)), gathered
