"""Which trainings may replay recorded steps; that they do so without a difference: test_gpu.py."""

import gc
import itertools
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import torch
from problems import MEDIA, VECTORS, Problem

from ibma.methods import build
from ibma.network import distributed
from ibma.training.replay import Replayed, Result, possible

GPU = torch.device("cuda")


def test_steps_are_replayed_where_nothing_is_counted_or_drawn_on_the_host(monkeypatch):
    media, vectors = Problem(views=MEDIA), Problem(views=VECTORS)
    network = media.network("ibma", 2)
    assert possible(network, media.features, GPU)
    assert not possible(network, media.features, torch.device("cpu"))
    assert not possible(vectors.network("ibma", 2), vectors.features, GPU)  # standardises vectors
    views = {name: MEDIA[name] for name in ("audio", "image")}
    two = Problem(views=views)
    masked = build("dmib", two.spec(2), variant="prognosis")
    assert not possible(masked, two.features, GPU)
    assert possible(two.network("dmib", 2), two.features, GPU)

    lacking = np.arange(len(media.features.ids)) > 3
    assert not possible(network, replace(media.features, present={"text": lacking}), GPU)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    assert not possible(network, media.features, GPU)


def test_steps_are_recorded_anew_where_they_change():
    """In the epochs in which a method says so, and in all where it prepares epochs and does not."""
    problem, epochs = Problem(), range(4)
    phases = {}
    for name in ("concat", "ibma", "dclf", "omib"):
        method = problem.network(name, len(epochs))
        seen = []
        for epoch in epochs:
            method.before_epoch(epoch, lambda: ())
            state = {k: v for k, v in vars(method).items() if isinstance(v, bool)}
            seen.append((method.phase(epoch), state))
        phases[name] = [phase for phase, _ in seen]
        for (phase, state), (next_phase, next_state) in itertools.pairwise(seen):
            assert (phase == next_phase) == (state == next_state), name
    assert len(set(phases["concat"])) == len(set(phases["ibma"])) == 1
    assert len(set(phases["dclf"])) == len(set(phases["omib"])) == 2

    class Prepares(type(problem.network("concat", 2))):
        def before_epoch(self, epoch, outputs):
            self.weight = 1 / (epoch + 1)

    unsaid = Prepares(problem.spec(2))
    assert len({unsaid.phase(epoch) for epoch in epochs}) == 4


def test_nothing_is_collected_while_a_step_is_recorded(monkeypatch):
    """Freeing the memory of a graph that nobody uses any more would break the recording."""
    during = []
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", MagicMock)
    monkeypatch.setattr(torch.cuda, "Stream", MagicMock)
    for name in ("graph", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: nullcontext())
    batch = next(iter(Problem().rows(torch.device("cpu")).batches(8, torch.device("cpu"))))

    def step(batch, watched):
        during.append((watched, gc.isenabled()))
        return Result([], batch.y, {})

    replayed = Replayed(torch.device("cpu"))
    for _ in range(4):
        for watched in (True, False):
            replayed(step, batch, watched)
    plain, recorded = [(True, True), (False, True)], [(True, False), (False, False)]
    assert during == plain + recorded and gc.isenabled(), "each has a recording of its own"


def test_a_batch_is_copied_whole():
    """What a recorded step reads of a batch: every tensor, and tables by its index."""
    rows = Problem("one_class").rows(torch.device("cpu"))
    first, second = list(rows.batches(8, torch.device("cpu")))[:2]
    for place, value in zip(first.tensors(), second.tensors(), strict=True):
        place.copy_(value)
    for name in ("left", "right"):
        assert torch.equal(first.x[name], second.x[name])
        assert torch.equal(first.phi_x[name], second.phi_x[name])
        assert torch.equal(first.inputs[name], second.inputs[name])
    assert torch.equal(first.pseudo, second.pseudo) and torch.equal(first.y, second.y)
    assert torch.allclose(first.previous, second.previous, equal_nan=True)
