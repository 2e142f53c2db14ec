"""Baselines against their formulas, written a second time: no stored value of others holds these.

A formula is the one in the docstring of the method's file. Layers are the model's own.
"""

from collections import Counter
from itertools import combinations

import pytest
import torch
from problems import Problem
from test_methods import EPOCHS, batch, make, start_epoch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from ibma.methods import bigated, dmib
from ibma.network.method import Modality

DRAWN = 0.7  # in place of every standard normal number


def ready(method: str, modalities: int = 2, **hparams: object):
    """A model in the main phase of its training, and a batch."""
    model, data = make(method, "classify", modalities, **hparams), batch("classify", modalities)
    start_epoch(model, EPOCHS - 1, data)
    model.noise = lambda like: torch.full_like(like, DRAWN)
    return model, data


def gaussian(extra: dict[str, Tensor], place: str) -> Normal:
    """The Gaussian of a bottleneck; E-MIB has one, without a name."""
    at = f"/{place}" if f"mean/{place}" in extra else ""
    if f"std{at}" in extra:
        return Normal(extra[f"mean{at}"], extra[f"std{at}"])
    return Normal(extra[f"mean{at}"], (extra[f"log_variance{at}"] / 2).exp())


@pytest.mark.parametrize(
    ("method", "weight", "summed", "places"),
    [
        ("deep_ib", 1e-3, True, ("view0", "view1")),
        ("mcib", 0.1, False, ("view0", "view1")),
        ("mib_c", 1e-3, False, ("view0", "view1", "fused")),
        ("mib_e", 1e-3, False, ("",)),
        ("mib_l", 1e-3, False, ("view0", "view1")),
        ("mmib", 1e-3, False, ("view0", "view1")),
        ("mmrlib", 1 / 8, False, ("view0", "view1")),
        ("omib", 1e-3, True, ("view0",)),  # the other is weighted by what it adds
    ],
)
def test_a_rate_is_the_weighted_kl_of_a_gaussian_to_the_standard_normal(
    method, weight, summed, places
):
    model, data = ready(method)
    out = model(data.x)
    terms, rates = model.losses(out, data), {}
    for place in places:
        kl = kl_divergence(gaussian(out.extra, place), Normal(0.0, 1.0))
        rates[f"kl/{place}" if place else "kl"] = weight * (kl.sum(1) if summed else kl).mean()
    if method == "mmib":
        rates = {"inside": torch.stack(list(rates.values())).mean()}
    for name, rate in rates.items():
        torch.testing.assert_close(terms[name], rate, msg=name)


@pytest.mark.parametrize("method", ["mcib", "mib_c", "mib_l", "mmib", "mmrlib", "omib"])
def test_the_fusion_reads_samples_of_the_gaussians_that_pay_the_rate(method):
    model, data = ready(method)
    out = model(data.x)

    def sample(place: str) -> Tensor:
        at = gaussian(out.extra, place)
        return at.mean + DRAWN * at.stddev

    samples = {name: sample(name) for name in model.names}
    if method == "mcib":
        samples = {name: model.lift[name](value) for name, value in samples.items()}
    fused = model.fusion(samples.values())
    if method == "mib_c":
        at = Normal(*model.gaussians["fused"](fused))
        fused = at.mean + DRAWN * at.stddev
        assert torch.equal(at.mean, out.extra["mean/fused"])
    torch.testing.assert_close(out.fused, fused)
    head = model.heads["fused"] if method == "mib_c" else model.head
    torch.testing.assert_close(out.logits, head(fused))
    for name in model.names if method in ("mib_c", "mib_l") else ():
        torch.testing.assert_close(out.extra[f"logits/{name}"], model.heads[name](samples[name]))
    for name in model.names if method == "omib" else ():
        joined = torch.cat([out.z[name], fused], dim=1)
        torch.testing.assert_close(out.extra[f"logits/{name}"], model.decoders[name](joined))


def test_mmib_and_mmrlib_learn_a_log_variance():
    for method in ("mmib", "mmrlib"):
        model, data = ready(method)
        out = model(data.x)
        for name in model.names:
            deviation = (model.log_variance[name](out.z[name]).clamp(-8, 8) / 2).exp()
            torch.testing.assert_close(gaussian(out.extra, name).stddev, deviation, msg=method)


def test_c_mib_counts_the_fused_task_loss_twice():
    model, data = ready("mib_c")
    out = model(data.x)
    terms = model.losses(out, data)
    for place, times in (("view0", 1), ("view1", 1), ("fused", 2)):
        loss = F.cross_entropy(out.extra[f"logits/{place}"], data.y)
        torch.testing.assert_close(terms[f"task/{place}"], times * loss)


def test_deep_ib_averages_ten_samples_of_a_view_and_ten_predictions():
    model, data = make("deep_ib").eval(), batch()
    out = model(data.x)
    averaged = []
    for name in model.names:
        mean, rho = model.views[name](out.z[name]).chunk(2, dim=1)
        noise = dict(model.named_buffers())[f"noise_{name}"]
        assert len(noise) == 10
        averaged.append(mean + F.softplus(rho - 5) * noise.sum(0) / 10)
    mean, rho = model.fusion(torch.cat(averaged, dim=1)).chunk(2, dim=1)
    draws = mean + F.softplus(rho - 5) * dict(model.named_buffers())["noise_fused"]
    chances = torch.stack([model.head(draw).softmax(1) for draw in draws]).mean(0)
    torch.testing.assert_close(out.logits.softmax(1), chances)


@pytest.mark.parametrize("variant", ["diagnosis", "prognosis"])
def test_dmib_weighs_views_by_gates_and_confidence(variant):
    """The gate acts before the view in one variant; in the other after side head and confidence."""
    model, data = make("dmib", variant=variant, dynamic=True).eval(), batch()
    out = model(data.x)
    joined = []
    for name in model.names:
        z, gate = out.z[name], model.gates[name](out.z[name]).sigmoid()
        view = z if variant == "prognosis" else model.views[name](gate * z).relu()
        torch.testing.assert_close(out.extra[f"side/{name}"], model.side[name](view))
        weighed = view * model.confidence[name](view)
        joined.append(gate * weighed if variant == "prognosis" else weighed)
    v = torch.cat(joined, dim=1)
    torch.testing.assert_close(out.extra["observation"], model.observation(v))
    torch.testing.assert_close(out.logits, model.head(model.bottleneck(v)))


def test_dmib_prognosis_masks_a_view_in_half_of_its_batches_and_has_its_own_losses():
    model, data = make("dmib", variant="prognosis"), batch()
    torch.manual_seed(0)
    views = [model._masked([torch.ones(1), torch.ones(1)]) for _ in range(800)]
    seen = Counter(tuple(float(view) for view in pair) for pair in views)
    assert seen[1, 1] == pytest.approx(400, abs=60)
    assert seen[0, 1] == pytest.approx(200, abs=50) and seen[1, 0] == 800 - seen[1, 1] - seen[0, 1]
    model.eval()
    assert not any((view == 0).any() for view in model._masked([torch.ones(1), torch.ones(1)]))
    out = model(data.x)
    terms, rows = model.losses(out, data), torch.arange(len(data.y))

    def focal(logits: Tensor) -> Tensor:
        p = logits.softmax(1)[rows, data.y]
        return -((1 - p) * p.log()).mean()

    assert set(terms) == {"task", "observation", "sufficiency", "side/view0", "side/view1"}
    torch.testing.assert_close(terms["task"], focal(out.logits))
    torch.testing.assert_close(terms["observation"], focal(out.extra["observation"]))
    torch.testing.assert_close(terms["side/view0"], focal(out.extra["side/view0"]))
    log_p, log_t = (v.log_softmax(1)[:, None] for v in (out.extra["observation"], out.logits))
    torch.testing.assert_close(terms["sufficiency"], 10 * dmib.sufficiency(log_p, log_t))


def test_mcib_predicts_the_label_from_a_bottleneck_and_the_modality_before_it():
    model, data = ready("mcib", 3)
    out = model(data.x)
    terms = model.losses(out, data)
    for name, other in (("view0", "view2"), ("view1", "view0"), ("view2", "view1")):
        known = torch.cat([out.extra[f"b/{name}"], out.z[other]], dim=1)
        q = model.conditionals[name]
        loss = F.cross_entropy(q.mean(q.hidden(known)), data.y)
        torch.testing.assert_close(terms[f"condition/{name}"], 0.1 * loss)


def test_misa_rebuilds_from_both_parts_and_fuses_four_tokens():
    model, data = make("misa").eval(), batch()
    out = model(data.x)
    private, shared, errors = [], [], []
    for name in model.names:
        projected = model.project[name](out.z[name])
        private.append(model.private[name](projected))
        shared.append(model.shared(projected))
        rebuilt = model.rebuild[name](private[-1] + shared[-1])
        errors.append((rebuilt - projected).square().mean())
    tokens = model.fusion[0](torch.stack([*private, *shared], dim=1))
    torch.testing.assert_close(out.fused, tokens.flatten(1))
    terms = model.losses(out, data)
    torch.testing.assert_close(terms["reconstruction"], torch.stack(errors).mean())


def test_gradients_of_misa_are_clipped_by_value_and_no_others(monkeypatch):
    largest = {}
    for method in ("misa", "concat"):
        fit = Problem().fit(method, torch.device("cpu"))
        losses = fit.model.losses
        monkeypatch.setattr(
            fit.model,
            "losses",
            lambda *a, losses=losses: {k: 1e4 * v for k, v in losses(*a).items()},
        )
        fit.step(next(fit.rows.batches(16, torch.device("cpu"))))
        gradients = [p.grad.abs() for p in fit.model.parameters() if p.grad is not None]
        largest[method] = max(float(each.max()) for each in gradients)
        reached = [int((each == 1).sum()) for each in gradients]
        assert sum(reached) > 100 or method == "concat", "by value, not by norm"
    assert largest["misa"] == 1 and largest["concat"] > 100


def test_mmib_raises_the_jensen_shannon_information_of_every_pair():
    model, data = ready("mmib", 3)
    out = model(data.x)
    each = []
    for critic, (a, b) in zip(model.critics, combinations(model.names, 2), strict=True):
        x, y = out.extra[f"sample/{a}"], out.extra[f"sample/{b}"]
        true = critic(torch.cat([x, y], dim=1))[:, 0]
        wrong = torch.stack([critic(torch.cat([x[i - 1], y[i]]))[0] for i in range(len(x))])
        each.append(true.sigmoid().log().mean() + (1 - wrong.sigmoid()).log().mean())
    torch.testing.assert_close(model.losses(out, data)["between"], -0.1 * sum(each) / 3)


@pytest.mark.parametrize(("method", "temperature"), [("clfa", 0.1), ("aligned_ib", 0.07)])
def test_views_of_a_sample_are_told_from_others_in_both_directions(method, temperature):
    model, data = ready(method, 3)
    out = model(data.x)
    terms, each, cosines, truth = model.losses(out, data), [], [], torch.arange(12)
    for a, b in combinations(model.names, 2):
        x, y = (F.normalize(out.extra[f"projected/{name}"]) for name in (a, b))
        scores = x @ y.T / temperature
        both = F.cross_entropy(scores, truth) + F.cross_entropy(scores.T, truth)
        each.append(both / 2)
        cosines.append((x * y).sum(1).mean())
    torch.testing.assert_close(terms["contrastive"], sum(each) / 3)
    if method == "aligned_ib":
        torch.testing.assert_close(terms["disagreement"], 0.1 * (1 - sum(cosines) / 3))


def test_bigated_takes_text_before_expression_before_sound():
    def gate(*kinds: str) -> str:
        named = {f"m{k}": Modality(kind, (1,), {}) for k, kind in enumerate(kinds)}
        return bigated.choose_gate(type("Spec", (), {"modalities": named}))

    assert gate("image", "audio", "expression", "text") == "m3"
    assert gate("image", "audio", "expression") == "m2"
    assert gate("image", "audio") == "m1" and gate("image", "frames") == "m0"


def contrast(features: Tensor, positives: Tensor, factors: Tensor) -> Tensor:
    """A supervised contrastive loss at temperature .1, pair by pair; factors weigh negatives."""
    x, total = F.normalize(features), 0.0
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        below = sum(factors[i, j] * (x[i] @ x[j] / 0.1).exp() for j in others)
        told = sum(positives[i, j] * ((x[i] @ x[j] / 0.1).exp() / below).log() for j in others)
        total = total - told / max(float(sum(positives[i, j] for j in others)), 1.0)
    return total / len(x)


def test_dclf_decides_by_gated_modalities_and_contrasts_three_levels():
    model, data = ready("dclf")
    out = model(data.x)
    terms, y, before, n = model.losses(out, data), data.y, data.previous, len(data.y)
    sides = {name: model.heads[name](out.z[name]) for name in model.names}
    logits = model.head(out.fused)
    for name, side in sides.items():
        logits = logits + model.gates[name](out.z[name]).sigmoid() * side
        torch.testing.assert_close(terms[f"task/{name}"], 0.5 * F.cross_entropy(side, y))
    torch.testing.assert_close(out.logits, logits)
    torch.testing.assert_close(terms["task"], F.cross_entropy(logits, y))

    projected, even = model.projections["fused"](out.fused), torch.ones(2 * n, 2 * n)
    same = (y[:, None] == y).float()
    torch.testing.assert_close(terms["utterance"], 0.1 * contrast(projected, same, even))

    moved = [not before[i].isnan() and bool(before[i] != y[i]) for i in range(n)]
    positives, factors = torch.zeros(n, n), torch.ones(n, n)
    for i in range(n):
        for j in range(n):
            positives[i, j] = float(y[i] == y[j] and moved[i] == moved[j])
            factors[i, j] = 2.0 if y[i] != y[j] and before[i] == before[j] else 1.0
    assert (factors == 2).any() and not torch.equal(positives, same)
    torch.testing.assert_close(terms["context"], 0.1 * contrast(projected, positives, factors))

    rows = [(name, i) for name in model.names for i in range(n)]
    right = [bool(sides[name][i].argmax() == y[i]) for name, i in rows]
    pulled = torch.zeros(2 * n, 2 * n)
    for a, (one, i) in enumerate(rows):
        for b, (other, j) in enumerate(rows):
            helps = right[a] and right[b] and y[i] == y[j]
            pulled[a, b] = float(helps or (not right[a] and not right[b] and one == other))
    assert any(right) and not all(right)
    views = torch.cat([model.projections[name](out.z[name]) for name in model.names])
    torch.testing.assert_close(terms["modality"], 0.1 * contrast(views, pulled, even))
    start_epoch(model, 0, data)
    assert model.losses(model(data.x), data)["modality"] == 0, "untrained heads' labels say nothing"
