"""The training epoch against the limit, and IBB against cross-entropy alone.

The limit is the same network's forward and backward on one resident batch and nothing else: no
optimiser, no other batch, no log.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.measure import Goal, Row, duration, interleaved, ratio
from benchmarks.problems import Problem, middle_size, one_more_epoch, paper_size, twin_size
from ibma.features.store import Batch
from ibma.network.method import Method, Output
from ibma.training import loop
from ibma.training.loop import Fit

PAPER_SECONDS = 120.0  # per epoch of CREMA-D on an A100 (Table 9)
GOAL_SECONDS = 4.0  # per epoch of CREMA-D on an H100


def forward_backward(model: Method, batch: Batch) -> None:
    """Forward and backward of the losses, gradients thrown away."""
    model.zero_grad(set_to_none=True)
    out = loop.run_network(model, batch.x)
    torch.stack(list(model.losses(out, batch).values())).sum().backward()


def resident(fit: Fit) -> Batch:
    """The first full batch of a training set."""
    rows = fit.rows.shuffled(fit.batch_size, 0, 0)[:1]
    return next(iter(fit.rows.load(rows, fit.device)))


def limit(fit: Fit) -> Callable[[], None]:
    """An epoch's worth of forward and backward on one batch, a last smaller one left out."""
    batch = resident(fit)
    steps = len(fit.rows) // fit.batch_size

    def run() -> None:
        fit.model.train()
        for _ in range(steps):
            forward_backward(fit.model, batch)

    return run


def epoch_rows(
    label: str, problem: Problem, device: torch.device, rounds: int, compiled: bool = False
) -> Iterator[Row]:
    """Epoch of CE3 against its limit; at the paper's size on a GPU also the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        fit = problem.fit("ce3", problem.store(Path(folder)), device, compiled=compiled)
        times = interleaved({"epoch": lambda: one_more_epoch(fit), "limit": limit(fit)}, rounds)
    epoch = times["epoch"]
    yield Row(
        f"training epoch, {label}",
        duration(epoch),
        f"forward and backward alone {duration(times['limit'])}",
        ratio(times["limit"], epoch),
        "share",
        Goal("at least", 0.9),
    )
    if problem == paper_size():
        yield Row(
            f"seconds per epoch, {label}",
            duration(epoch),
            f"paper, A100, {PAPER_SECONDS:.0f} s",
            ratio([PAPER_SECONDS] * len(epoch), epoch),
            goal=Goal("at least", PAPER_SECONDS / GOAL_SECONDS),
        )


def terms_alone(model: Method, batch: Batch) -> Callable[[], None]:
    """What IBB adds to a step, on given representations: sums for Q, terms, their gradient."""
    with torch.no_grad():
        out = loop.run_network(model, batch.x)
    z = {name: value.detach().requires_grad_() for name, value in out.z.items()}
    fused = out.fused.detach().requires_grad_()

    def run() -> None:
        held = Output(z, fused, out.logits, {})
        model.inner_step(held, batch)
        torch.stack(list(model.bound.terms(model.step(held, batch)).values())).sum().backward()

    return run


def step_of(model: Method, batch: Batch) -> Callable[[], None]:
    """One training step as `Fit` takes it."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        model.train()
        optimiser.zero_grad(set_to_none=True)
        out = loop.run_network(model, batch.x)
        model.inner_step(out, batch)
        torch.stack(list(model.losses(out, batch).values())).sum().backward()
        optimiser.step()

    return run


def ibb_rows(label: str, problem: Problem, device: torch.device, rounds: int) -> Iterator[Row]:
    """A step with IBB against the same network's with cross-entropy alone."""
    one_batch = replace(problem, n=problem.batch)
    with tempfile.TemporaryDirectory() as folder:
        features = one_batch.store(Path(folder))
        fits = {name: one_batch.fit(name, features, device) for name in ("ce3", "ibma")}
        batch = resident(fits["ce3"])
        functions = {name: step_of(fit.model, batch) for name, fit in fits.items()}
        functions["terms"] = terms_alone(fits["ibma"].model, batch)
        times = interleaved(functions, rounds)
    plain = times["ce3"]
    reference = f"cross-entropy alone {duration(plain)}"
    yield Row(
        f"IBB's terms by themselves, {label}",
        duration(times["terms"]),
        reference,
        ratio(times["terms"], plain),
        "share",
        Goal("at most", 0.02),
    )
    yield Row(
        f"whole step with IBB, {label}",
        duration(times["ibma"]),
        reference,
        ratio(times["ibma"], plain, less=1.0),
        "share",
        Goal("at most", 0.02),
    )


def refresh_rows(label: str, problem: Problem, device: torch.device, rounds: int) -> Iterator[Row]:
    """The refresh of centroids and Q as share of an epoch, in both of its forms."""
    with tempfile.TemporaryDirectory() as folder:
        features = problem.store(Path(folder))
        in_steps = problem.fit("ibma", features, device, refresh="epoch")
        by_pass = problem.fit("ibma", features, device, refresh="pass")
        batch, steps = resident(in_steps), problem.n // problem.batch
        with torch.no_grad():
            out = loop.run_network(in_steps.model, batch.x)

        @torch.no_grad()
        def sums() -> None:
            """Everything that the refresh does in an epoch of steps, phi included."""
            for _ in range(steps):
                in_steps.model.inner_step(Output(out.z, out.fused, out.logits, {}), batch)
            in_steps.model.before_epoch(1, in_steps.outputs)

        @torch.no_grad()
        def a_pass() -> None:
            by_pass.model.eval()
            by_pass.model.before_epoch(1, by_pass.outputs)

        times = interleaved(
            {"epoch": lambda: one_more_epoch(in_steps), "sums": sums, "pass": a_pass}, rounds
        )
    for name, how, goal in (
        ("sums", "epoch (default)", Goal("at most", 0.05)),
        ("pass", "pass", None),
    ):
        yield Row(
            f"centroids and Q, refresh: {how}, {label}",
            duration(times[name]),
            f"epoch {duration(times['epoch'])}",
            ratio(times[name], times["epoch"]),
            "share",
            goal,
        )


def rows(device: torch.device) -> Iterator[Row]:
    """On the CPU small sizes; on a GPU CREMA-D's."""
    if device.type == "cuda":
        for compiled, how in ((False, ""), (True, ", compiled (the limit is not)")):
            yield from epoch_rows(f"CREMA-D size{how}", paper_size(), device, 5, compiled)
        yield from ibb_rows("CREMA-D size", paper_size(), device, 50)
        yield from refresh_rows("CREMA-D size", paper_size(), device, 5)
        return
    yield from epoch_rows("twin of CREMA-D", twin_size(), device, 15)
    yield from epoch_rows("two ResNet-18, 64 x 64", middle_size(), device, 5)
    yield from ibb_rows(
        "two ResNet-18, 224 x 224, batch 4", replace(paper_size(), batch=4), device, 7
    )
    yield from refresh_rows("two ResNet-18, 64 x 64", middle_size(), device, 5)
