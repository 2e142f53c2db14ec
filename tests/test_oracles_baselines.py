"""Baselines against stored values: official code's (Concat) or the published formula's (OMIB)."""

import pytest
import torch
from conftest import golden
from torch import nn

from ibma import methods
from ibma.features.store import Batch
from ibma.methods.omib import prediction_kl, relative_weight
from ibma.network import bounds, tasks
from ibma.network.centroids import Assignment
from ibma.network.method import Modality, Output, Spec

TOLERANCE = {"rtol": 0.0, "atol": 1e-8}


def build(method: str, names: list[str], width: int, classes: int, heads: int = 1, **hparams):
    spec = Spec(
        modalities={
            name: Modality("vector", (width,), {"name": "mlp", "hidden": [4]}) for name in names
        },
        task=tasks.build("classify", [str(c) for c in range(classes)]),
        width=width,
        heads=heads,
        epochs=1,
        systems=(1, classes),
        assignment=Assignment(),
    )
    return methods.build(method, spec, **hparams).double()


def test_concat_equals_the_official_fusion():
    values = golden("concat_ogm")
    model = build("concat", ["audio", "visual"], width=5, classes=3)
    model.encoders = nn.ModuleDict({"audio": nn.Identity(), "visual": nn.Identity()})
    model.head.load_state_dict(
        {"weight": values["w.fc_out.weight"], "bias": values["w.fc_out.bias"]}
    )
    out = model({"audio": values["audio"], "visual": values["visual"]})
    torch.testing.assert_close(out.logits, values["logits"], **TOLERANCE)


def test_omib_parts_equal_the_formula():
    values = golden("omib_DERIVED_ce")
    log_p = tasks.build("classify", "abcd").log_probabilities
    divergences = [
        prediction_kl(log_p(logits), log_p(values["logits_main"]))
        for logits in values["logits_trb"]
    ]
    torch.testing.assert_close(torch.stack(divergences), values["kl_pred"], **TOLERANCE)
    for m, key in ((1, "r2"), (2, "r3")):
        r = relative_weight(divergences[m], divergences[0])
        torch.testing.assert_close(r, values[key], **TOLERANCE)
    rates = bounds.gaussian_kl(values["mu"], values["std"]).sum(-1).mean(-1)
    torch.testing.assert_close(rates, values["kl_gauss"], **TOLERANCE)


@pytest.mark.parametrize(("modalities", "key"), [(2, "reg2"), (3, "reg3")])
def test_omib_loss_terms_add_up_to_the_regulariser(modalities, key):
    values = golden("omib_DERIVED_ce")
    names = [f"m{i}" for i in range(modalities)]
    model = build("omib", names, width=3, classes=4, beta=1.0)
    model.before_epoch(0, lambda: [])  # one epoch of training: no warm-up
    extra = {}
    for i, name in enumerate(names):
        extra[f"mean/{name}"] = values["mu"][i]
        extra[f"std/{name}"] = values["std"][i]
        extra[f"logits/{name}"] = values["logits_trb"][i]
    out = Output({}, values["mu"][0], values["logits_main"], extra)
    y = torch.arange(6) % 4
    terms = model.losses(out, Batch({}, y, y))
    regulariser = torch.stack([v for name, v in terms.items() if name.startswith("kl/")]).sum()
    torch.testing.assert_close(regulariser, values[key], **TOLERANCE)


def test_multilabel_divergence_is_a_sum_of_bernoulli_divergences():
    random = torch.Generator().manual_seed(0)
    logits, reference = torch.randn(2, 6, 4, dtype=torch.float64, generator=random)
    p, q = (torch.distributions.Bernoulli(logits=value) for value in (logits, reference))
    expected = torch.distributions.kl_divergence(p, q).sum(1).mean()
    log_p = tasks.build("multilabel", "abcd").log_probabilities
    got = prediction_kl(log_p(logits), log_p(reference))
    torch.testing.assert_close(got, expected, **TOLERANCE)


def test_relative_weight_is_its_rational_form_and_carries_no_gradient():
    first = torch.tensor(0.3, dtype=torch.float64)
    for divergence in (0.01, 0.3, 5.0):
        value = torch.tensor(divergence, dtype=torch.float64, requires_grad=True)
        r = relative_weight(value, first)
        assert abs(float(r) - 2 / (1 + (divergence / 0.3) ** 2)) < 1e-12
        assert not r.requires_grad


def test_relative_weight_survives_divergences_that_round_below_zero():
    zero, below = torch.tensor(0.0), torch.tensor(-1e-7)
    assert float(relative_weight(below, zero)) == 1.0
    assert 0.0 <= float(relative_weight(torch.tensor(3.0), below)) < 1e-6
