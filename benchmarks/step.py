"""The training epoch against its limit, and IBB against cross-entropy alone, on a CPU.

The limit is the same network's forward and backward on one resident batch and nothing else: no
optimiser, no other batch, no log. `benchmarks.gpu` takes the same measures at the paper's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from benchmarks.measure import Goal, Row, duration, interleaved, ratio
from benchmarks.problems import Problem, middle_size, one_more_epoch, paper_size, twin_size
from ibma.features.store import Batch
from ibma.network.method import Output
from ibma.training.loop import Fit, run_network
from ibma.training.replay import Replayed, Result

CPU = torch.device("cpu")
LIMIT = Goal("at least", 0.9)
IBB = Goal("at most", 0.02)


def resident(fit: Fit) -> Batch:
    """Return the first full batch of a training set."""
    rows = fit.rows.shuffled(fit.batch_size, 0, 0)[0]
    return next(iter(fit.rows.load([(rows, 1.0)], fit.device)))


def limit(fit: Fit, steps: int) -> Callable[[], None]:
    """Return forward and backward of the losses on one batch, gradients thrown away.

    Where training replays recorded steps, the limit does too.
    """
    batch = resident(fit)

    def once(batch: Batch) -> Result:
        fit.model.zero_grad(set_to_none=True)
        terms, _ = fit.objective(batch, watched=False)
        values = torch.stack(list(terms.values()))
        values.sum().backward()
        return Result([], values.detach(), {})

    once = partial(Replayed(fit.device), once) if fit.replays else once

    def run() -> None:
        fit.model.train()
        for _ in range(steps):
            once(batch)

    return run


def step_of(fit: Fit, batch: Batch) -> Callable[[], object]:
    """Return one training step."""
    fit.model.train()
    step = fit.steps()
    return lambda: step(batch)


def terms_alone(fit: Fit, batch: Batch) -> Callable[[], object]:
    """Return what IBB adds to a step, on given representations: sums for Q, terms, gradient."""
    model = fit.model
    with torch.no_grad():
        out = run_network(model, batch.x)
    z = {name: value.detach().requires_grad_() for name, value in out.z.items()}
    fused = out.fused.detach().requires_grad_()

    def terms(batch: Batch) -> Result:
        held = Output(z, fused, out.logits, {})
        model.inner_step(held, batch)
        values = torch.stack(list(model.bound.terms(model.step(held, batch)).values()))
        values.sum().backward()
        return Result([], values.detach(), {})

    terms = partial(Replayed(fit.device), terms) if fit.replays else terms
    return lambda: terms(batch)


def refresh_in_steps(fit: Fit, steps: int) -> Callable[[], None]:
    """Return all that `refresh: epoch` does in an epoch of steps, phi included."""
    batch = resident(fit)
    with torch.no_grad():
        out = run_network(fit.model, batch.x)

    def inner(batch: Batch) -> Result:
        fit.model.inner_step(Output(out.z, out.fused, out.logits, {}), batch)
        return Result([], out.logits, {})

    inner = partial(Replayed(fit.device), inner) if fit.replays else inner

    @torch.no_grad()
    def run() -> None:
        for _ in range(steps):
            inner(batch)
        fit.model.before_epoch(1, fit.outputs)

    return run


def refresh_by_pass(fit: Fit) -> Callable[[], None]:
    """Return what `refresh: pass` does once an epoch."""

    @torch.no_grad()
    def run() -> None:
        fit.model.eval()
        fit.model.before_epoch(1, fit.outputs)

    return run


def epoch_rows(label: str, problem: Problem, rounds: int) -> Iterator[Row]:
    """Compare an epoch of CE3 with its limit; a last smaller batch is left out of the limit."""
    fit = problem.fit("ce3", problem.features(), CPU)
    steps = problem.n // problem.batch
    times = interleaved({"epoch": lambda: one_more_epoch(fit), "limit": limit(fit, steps)}, rounds)
    yield Row(
        f"training epoch, {label}",
        duration(times["epoch"]),
        f"forward and backward alone {duration(times['limit'])}",
        ratio(times["limit"], times["epoch"]),
        "share",
        LIMIT,
    )


def ibb_rows(label: str, problem: Problem, rounds: int) -> Iterator[Row]:
    """Compare a training step with IBB with one of the same network without a bound."""
    one_batch = replace(problem, n=problem.batch)
    features = one_batch.features()
    fits = {name: one_batch.fit(name, features, CPU) for name in ("ce3", "ibma")}
    batch = resident(fits["ce3"])
    functions = {name: step_of(fit, batch) for name, fit in fits.items()}
    functions["terms"] = terms_alone(fits["ibma"], batch)
    times = interleaved(functions, rounds)
    plain = times["ce3"]
    reference = f"cross-entropy alone {duration(plain)}"
    for what, name, less in (("IBB's terms alone", "terms", 0.0), ("step with IBB", "ibma", 1.0)):
        share = ratio(times[name], plain, less)
        yield Row(f"{what}, {label}", duration(times[name]), reference, share, "share", IBB)


def refresh_rows(label: str, problem: Problem, rounds: int) -> Iterator[Row]:
    """Take the refresh of centroids and Q as share of an epoch, in both of its forms."""
    features = problem.features()
    in_steps = problem.fit("ibma", features, CPU)
    by_pass = problem.fit("ibma", features, CPU, refresh="pass")
    times = interleaved(
        {
            "epoch": lambda: one_more_epoch(in_steps),
            "sums": refresh_in_steps(in_steps, problem.n // problem.batch),
            "pass": refresh_by_pass(by_pass),
        },
        rounds,
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


def rows() -> Iterator[Row]:
    """Take small sizes, and one step on pictures of the paper's size."""
    yield from epoch_rows("twin of CREMA-D", twin_size(), 15)
    yield from epoch_rows("two ResNet-18, 64 x 64", middle_size(), 5)
    yield from ibb_rows("two ResNet-18, 224 x 224, batch 4", replace(paper_size(), batch=4), 7)
    yield from refresh_rows("two ResNet-18, 64 x 64", middle_size(), 5)
