"""Every record says in which regime its bound acted, and training does not notice."""

import math
from dataclasses import replace

import pytest
import torch
from problems import METHODS, VECTORS, Problem
from test_methods import batch, make, start_epoch
from test_tracking import RECORDS

from ibma.methods import ibma
from ibma.network.method import FUSED
from ibma.results.regime import alignment_share, band, inactive, peak_share
from ibma.training.cell import Setting
from ibma.training.run import train_run

CPU = torch.device("cpu")
PLACES = {"left", "right", FUSED}


def watched(method: str, kind: str = "classify", **hparams: object) -> dict[str, list[float]]:
    fit = Problem(kind).fit(method, CPU, lr=3e-3, epochs=4, **hparams)
    fit.run("test")
    return fit.regime


def test_training_is_the_same_whether_it_is_watched_or_not(monkeypatch):
    for method in ("ibma", "ibma_plugin", "ibma_released"):
        told = []
        for _ in range(2):
            fit = Problem().fit(method, CPU, epochs=3)
            fit.run("test")
            told.append((fit.history, [p.tolist() for p in fit.model.parameters()]))
            assert bool(fit.regime) == (len(told) == 1)
            monkeypatch.setattr(ibma.Model, "regime", lambda *_: {})
        monkeypatch.undo()
        assert told[0] == told[1], method


def test_bounds_with_phi_say_how_flat_it_is_and_what_their_share_is():
    flatness = {"phi_max", "phi_entropy", "share"}
    expected = {name: flatness | {"v"} for name in ("ibma", "beta_tuned")}
    expected |= {"ibma_plugin": flatness, "ibma_released": flatness}
    for method in METHODS:
        whats = expected.get(method, set())
        regime = watched(method)
        assert set(regime) == {f"{what}/{place}" for what in whats for place in PLACES}, method
        assert all(len(v) == 4 and all(map(math.isfinite, v)) for v in regime.values()), method


@pytest.mark.parametrize("kind", ["classify", "multilabel", "one_class", "sentiment"])
def test_in_the_first_epoch_the_bound_does_nothing(kind):
    """Q is uniform: V is -ln K, whatever phi is, and has no gradient."""
    for name, values in watched("ibma", kind).items():
        what = name.partition("/")[0]
        if what == "v":
            assert values[0] == pytest.approx(1.0, abs=1e-5)
        if what == "share":
            assert values[0] < 1e-5 < max(values)
        if what in ("phi_max", "phi_entropy"):
            assert all(0 < value <= 1.0001 for value in values)


def test_a_high_beta_makes_phi_sharp_and_the_bound_pull(make_cell):
    def record(**hparams):
        return train_run(make_cell(epochs=6, **hparams), 0, Setting(3e-3, 0.0, 0.5), True).record

    flat, sharp = record(phi="unit", beta=0.01), record(phi="unit", beta=16.0)
    assert inactive(flat) and not inactive(sharp)
    assert peak_share(flat) < 0.01 < peak_share(sharp)
    assert sharp.regime["phi_max/fused"][-1] > 0.6 > 0.4 > flat.regime["phi_max/fused"][-1]
    assert sharp.regime["phi_entropy/fused"][-1] < 0.7 < 0.99 < flat.regime["phi_entropy/fused"][-1]
    without = replace(sharp, regime={}, digest="")
    assert peak_share(without) is None and not inactive(without)


def test_a_bound_acts_from_one_hundredth_and_is_strong_from_one():
    shown = [band(share) for share in (0.0, 0.0099, 0.01, 0.99, 1.0, 9.0)]
    assert shown == ["inactive"] * 2 + ["weaker"] * 2 + ["stronger"] * 2
    for peak, expected in ((0.0099, True), (0.01, False)):
        one = replace(RECORDS[0], regime={"share/a": [0.0, peak], "share/fused": [0.0, 0.0]})
        assert inactive(one) == expected


def test_the_share_of_the_alignment_leaves_the_fused_representation_out():
    regime = {"share/a": [0.1, 0.3], "share/b": [0.2, 0.0], "share/fused": [5.0, 5.0]}
    regime |= {"phi_max/a": [9.0, 9.0]}
    one = replace(RECORDS[0], regime=regime)
    assert alignment_share(one) == 0.3 and peak_share(one) == 5.0
    assert alignment_share(replace(one, regime={"share/fused": [5.0]})) is None


def test_a_single_modality_has_a_share_and_nothing_to_be_aligned_with():
    alone = {"left": VECTORS["left"]}
    fit = Problem(views=alone).fit("ibma", CPU, epochs=3)
    fit.run("test")
    assert {"v/fused", "share/fused", "phi_max/left"} <= set(
        fit.regime
    ) and "v/left" not in fit.regime
    assert fit.regime["share/left"] == [0.0] * 3 < fit.regime["share/fused"]


def test_a_modality_that_no_sample_of_the_batch_has_leaves_finite_numbers():
    for there in ([], [3]):
        model, data = make("ibma", modalities=3), batch(modalities=3)
        for epoch in (0, 1):
            start_epoch(model, epoch, data)
            model.inner_step(model(data.x), data)
        known = torch.zeros(len(data.y), dtype=torch.bool)
        known[there] = True
        data = replace(data, x=data.x | {"present/view0": known})
        out = model(data.x)
        model.inner_step(out, data)
        regime = model.regime(out, data)
        assert all(value.isfinite() for value in regime.values())
        assert bool(regime["phi_max/view0"] > 0) == bool(there) == bool(regime["v/view0"] > 0)
