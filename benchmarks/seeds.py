"""Train ten seeds of a small network as one batched model, in turn, and in processes.

The network is CE3 as profile `twin` trains it on split_digits, real data. Batched: parameters of
all seeds stacked, `torch.func.vmap` over the gradient, one Adam on the stack (it works element by
element, so every seed takes its own steps). Each seed keeps its own start and its own order of
samples, so that what is left between the two is rounding.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.measure import WALL, Row, Spread, interleaved, speed_up
from benchmarks.problems import SETTING, Problem, View, features_of
from ibma.datasets import Sample, split_digits
from ibma.features.store import Batch, Features, StoredModality
from ibma.training.loop import Fit, configure_torch

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


@functools.cache
def digits() -> Features:
    """Return the training split of split_digits."""
    known = (one for one in split_digits.samples(Path()) if isinstance(one, Sample))
    train = [one for one in known if one.split == "train"]
    view = StoredModality("vector", (32,), "float32")
    arrays = {
        name: np.array([one.parts[name] for one in train], dtype=np.float32) for name in TASK.views
    }
    classes = np.array([int(one.label) for one in train])
    return features_of(TASK, dict.fromkeys(TASK.views, view), arrays, classes)


def fresh(seed: int, epochs: int) -> Fit:
    """Prepare the training of one seed."""
    return TASK.fit("ce3", digits(), torch.device("cpu"), seed=seed, epochs=epochs)


def in_turn(seeds: range, epochs: int = EPOCHS) -> list[float]:
    """Return the last epoch's loss of every seed, trained one after the other."""
    losses = []
    for seed in seeds:
        fit = fresh(seed, epochs)
        fit.run("benchmark")
        losses.append(sum(column[-1] for column in fit.history.values()))
    return losses


def batched(seeds: range, epochs: int = EPOCHS) -> list[float]:
    """Return the last epoch's loss of every seed, trained as one stacked model."""
    fits = [fresh(seed, epochs) for seed in seeds]
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
    placed = digits().on(torch.device("cpu"))
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


def rows() -> Iterator[Row]:
    """Time both against training in turn; measure how far the batched losses drift."""
    cores = os.cpu_count() or 1
    everyone = range(SEEDS)
    context = multiprocessing.get_context("spawn")
    as_trained = functools.partial(configure_torch, 1, compiled=False)
    with ProcessPoolExecutor(cores, context, as_trained) as pool:

        def in_processes() -> None:
            list(pool.map(in_turn, [everyone[k::cores] for k in range(cores)]))

        turn = {"in turn": lambda: in_turn(everyone)}
        alone = interleaved({"one batched model": lambda: batched(everyone)} | turn, ROUNDS)
        spread = interleaved({f"{cores} processes": in_processes} | turn, ROUNDS, WALL)
        one_by_one = in_turn(everyone, DRIFT_EPOCHS)
        together = batched(everyone, DRIFT_EPOCHS)
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
