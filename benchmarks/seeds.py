"""Ten seeds of a small network as one batched model, in turn, and in processes.

The network is CE3 as profile `twin` trains it on split_digits, real data. Batched: parameters of
all seeds stacked, `torch.func.vmap` over the gradient, one Adam on the stack (it works element by
element, so every seed takes its own steps). Each seed keeps its own start and its own order of
samples, so that what is left between the two is rounding.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.measure import WALL, Row, Spread, interleaved, speed_up
from benchmarks.problems import SETTING, Problem, View
from ibma.datasets import Sample, split_digits
from ibma.features.store import Batch, Features
from ibma.training.loop import Fit

SEEDS = 10
EPOCHS = 1  # that are timed
DRIFT_EPOCHS = 3  # after which losses are compared
ROUNDS = 3
TASK = Problem(
    {
        name: View("vector", (32,), "float32", {"name": "mlp", "hidden": [64]})
        for name in ("left", "right")
    },
    n=1347,
    batch=16,
    classes=10,
    width=32,
    heads=4,
)


def digits(folder: Path) -> Features:
    """The training split of split_digits in the store's form."""
    TASK.store(folder)
    known = (one for one in split_digits.samples(folder) if isinstance(one, Sample))
    train = [one for one in known if one.split == "train"]
    for name in TASK.views:
        np.save(folder / f"{name}.npy", np.array([s.parts[name] for s in train], dtype=np.float32))
    lines = (f"{one.id},train,{one.group},{one.label},," for one in train)
    index = "\n".join(["id,split,group,label,dialogue,lacks", *lines])
    (folder / "index.csv").write_text(index + "\n", encoding="utf-8")
    return Features.read(folder)


def fresh(features: Features, seed: int, epochs: int) -> Fit:
    """The training of one seed."""
    return TASK.fit("ce3", features, torch.device("cpu"), seed=seed, epochs=epochs)


def in_turn(features: Features, seeds: range, epochs: int = EPOCHS) -> list[float]:
    """Last epoch's loss of every seed, trained one after the other."""
    losses = []
    for seed in seeds:
        fit = fresh(features, seed, epochs)
        fit.run("benchmark")
        losses.append(sum(column[-1] for column in fit.history.values()))
    return losses


def batched(features: Features, seeds: range, epochs: int = EPOCHS) -> list[float]:
    """Last epoch's loss of every seed, trained as one stacked model."""
    fits = [fresh(features, seed, epochs) for seed in seeds]
    models = [fit.model.train() for fit in fits]
    for model in models:  # batch statistics stay; a running mean over batches cannot be stacked
        torch.func.replace_all_batch_norm_modules_(model)
    stacked, buffers = stack_module_state(models)
    base = models[0]
    parameters = {name: value.detach().requires_grad_() for name, value in stacked.items()}
    optimiser = torch.optim.Adam(
        parameters.values(), lr=SETTING.lr, weight_decay=SETTING.weight_decay, fused=True
    )

    def loss(
        one: dict[str, Tensor], held: dict[str, Tensor], x: dict[str, Tensor], y: Tensor
    ) -> Tensor:
        out = functional_call(base, (one, held), (x,))
        return torch.stack(list(base.losses(out, Batch(x, y, y)).values())).sum()

    step = vmap(grad_and_value(loss), randomness="error")
    placed = features.on(torch.device("cpu"))
    for epoch in range(epochs):
        orders = [fit.rows.shuffled(TASK.batch, fit.seed, epoch) for fit in fits]
        total, seen = torch.zeros(len(fits)), 0
        for rows_of in zip(*orders, strict=True):
            index = torch.from_numpy(np.stack(rows_of))
            x = {name: value[index] for name, value in placed.x.items()}
            with sdpa_kernel(SDPBackend.MATH):  # the fused one knows no batch of models
                gradients, values = step(parameters, buffers, x, placed.y[index])
            for name, parameter in parameters.items():
                parameter.grad = gradients[name]
            optimiser.step()
            total += values.detach() * index.shape[1]
            seen += index.shape[1]
    return [float(value) for value in total / seen]


def one_thread() -> None:
    """What every training process of the pipeline has."""
    torch.set_num_threads(1)


def share(folder: str, seeds: range) -> list[float]:
    """What one process trains."""
    return in_turn(Features.read(Path(folder)), seeds)


def rows(device: torch.device) -> Iterator[Row]:
    """Time of both against training in turn, and how far the losses of the batched model drift."""
    cores = os.cpu_count() or 1
    everyone = range(SEEDS)
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(
            cores, multiprocessing.get_context("spawn"), initializer=one_thread
        ) as pool,
    ):
        features = digits(Path(folder))

        def in_processes() -> None:
            list(pool.map(share, [folder] * cores, [everyone[k::cores] for k in range(cores)]))

        turn = {"in turn": lambda: in_turn(features, everyone)}
        alone = interleaved(
            {"one batched model": lambda: batched(features, everyone)} | turn, ROUNDS
        )
        spread = interleaved({f"{cores} processes": in_processes} | turn, ROUNDS, WALL)
        one_by_one = in_turn(features, everyone, DRIFT_EPOCHS)
        together = batched(features, everyone, DRIFT_EPOCHS)
    for times in (alone, spread):
        ours = next(iter(times))
        yield speed_up(f"{SEEDS} seeds of CE3 on split_digits, {ours}", times)
    drift = [abs(a - b) / abs(b) for a, b in zip(together, one_by_one, strict=True)]
    yield Row(
        f"drift of the loss after {DRIFT_EPOCHS} epochs, one batched model",
        f"{np.mean(together):.6f}",
        f"in turn {np.mean(one_by_one):.6f}",
        Spread.of(drift),
        "scientific",
    )
