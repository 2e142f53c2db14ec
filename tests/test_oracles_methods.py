"""Methods and bounds against what their authors' code returned on fixed inputs.

Weights are mapped into our modules; tolerance 1e-8 in float64.
"""

from itertools import combinations

import numpy as np
import pytest
import torch
from conftest import ROOT, golden
from test_oracles_baselines import build
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.features.store import Batch
from ibma.methods import dclf, dmib, mcib, misa, mmib, mmrlib
from ibma.methods.ibma import BoundSpec, find_bound
from ibma.network import bounds, dependence, tasks
from ibma.network.method import Method, Output


def same(got: Tensor | float, expected: Tensor) -> None:
    got = torch.as_tensor(got, dtype=torch.float64)
    torch.testing.assert_close(got, expected.reshape(got.shape), rtol=0, atol=1e-8)


def fill(module: nn.Module, values: dict[str, Tensor], prefix: str, names: dict[str, str]) -> None:
    """Load official parameters `prefix + theirs` as ours, for every pair ours: theirs."""
    state = {}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            key = f"{prefix}{theirs}{'__' if '__' in prefix else '.'}{kind}"
            if key in values:
                state[f"{ours}.{kind}"] = values[key]
    module.load_state_dict(state, strict=False)
    assert state, prefix


def leaf(value: Tensor) -> Tensor:
    return value.clone().requires_grad_()


# --- BiGated -------------------------------------------------------------------------------------


def test_bigated_equals_the_official_gate_of_audio_on_pictures():
    values = golden("bigated_ogm_audiogate")
    model = build("bigated", ["audio", "visual"], width=5, classes=3)
    model.encoders = nn.ModuleDict({"audio": nn.Identity(), "visual": nn.Identity()})
    assert model.gate == "audio"
    for name, layer in (("audio", "fc_x"), ("visual", "fc_y")):
        model.projections[name] = nn.Linear(5, 4).double()
        fill(model.projections, values, "w.", {name: layer})
    model.head = nn.Linear(4, 3).double()
    fill(model, values, "w.", {"head": "fc_out"})
    same(model({"audio": values["audio"], "visual": values["visual"]}).logits, values["logits"])


# --- MISA ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "second", "loss"),
    [
        ("misa_cmd_k2", "x1", "x2", lambda a, b: dependence.cmd(a, b, moments=2)),
        ("misa_diff", "x1", "x2", misa.overlap),
        ("misa_recon_mse", "pred", "real", F.mse_loss),  # whose target keeps its gradient
    ],
)
def test_misa_losses_and_gradients(name, first, second, loss):
    values = golden(name)
    a, b = leaf(values[first]), leaf(values[second])
    got = loss(a, b)
    got.backward()
    same(got.detach(), values["expected"])
    same(a.grad, values[f"grad_{first}"])
    same(b.grad, values[f"grad_{second}"])


def test_misa_aggregates_of_three_modalities():
    values = golden("misa_solver_aggregates")
    shared, private, rebuilt, original = (
        torch.stack([values[f"{kind}_{m}"] for m in "tva"], dim=1)
        for kind in ("shared", "private", "recon", "orig")
    )
    same(misa.similarity(shared), values["cmd"])
    same(misa.difference(private, shared), values["diff"])
    same(F.mse_loss(rebuilt, original), values["recon"])


def test_equal_moments_have_no_gradient_instead_of_nan():
    a = leaf(torch.ones(2, 3))
    dependence.cmd(a, torch.ones(2, 3)).backward()
    assert not a.grad.any()


# --- MIB -----------------------------------------------------------------------------------------


class Absolute:
    """MIB's regression loss in place of a task's."""

    kind, outputs = "classify", 1

    def head(self, width: int) -> nn.Linear:
        return nn.Linear(width, 1)

    def loss_per_sample(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.l1_loss(logits, y, reduction="none").mean(1)


def mib(method: str, monkeypatch: pytest.MonkeyPatch) -> Method:
    monkeypatch.setattr(tasks, "build", lambda kind, classes: Absolute())
    names = ["l", "a", "v"]
    model = build(method, names, 4, 1, fusion="concat", eval_sample=True)
    model.encoders = nn.ModuleDict({name: nn.Identity() for name in names})
    return model


def draws(monkeypatch: pytest.MonkeyPatch, values: dict[str, Tensor], prefix: str) -> None:
    """Hand out the official code's noise in call order."""
    stored = iter(v for k, v in sorted(values.items()) if k.startswith(prefix) and k[-1].isdigit())
    monkeypatch.setattr(torch, "randn_like", lambda like, dtype: next(stored))


def run_mib(model: Method, values: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch):
    x = {name: values[f"x{name}"] for name in "lav"}
    train = {k: v for k, v in values.items() if "eval" not in k}
    draws(monkeypatch, train, "eps_")
    out = model.train()(x)
    terms = model.losses(out, Batch(x, values["y"], torch.arange(5)))
    same(out.logits.detach(), values["out"])
    same(torch.stack(list(terms.values())).sum().detach(), values["loss_total"])
    draws(monkeypatch, values, "eps_eval_")
    same(model.eval()(x).logits.detach(), values["out_eval"])


def test_mib_e_equals_the_official_forward_loss_and_evaluation(monkeypatch):
    values = golden("mib_emib_fusion_forward")
    model = mib("mib_e", monkeypatch)
    layers = {"hidden.0": "encoder__0", "mean": "fc_mu", "deviation": "fc_std"}
    fill(model.gaussian, values, "w__", layers)
    fill(model, values, "w__", {"head": "decoder", "fusion.linear": "fusion1__linear_1"})
    run_mib(model, values, monkeypatch)


def test_mib_l_equals_the_official_forward_loss_and_evaluation(monkeypatch):
    values = golden("mib_lmib_fusion_forward")
    model = mib("mib_l", monkeypatch)
    for m in "lav":
        layers = {"hidden.0": f"encoder_{m}__0", "mean": f"fc_mu_{m}", "deviation": f"fc_std_{m}"}
        fill(model.gaussians[m], values, "w__", layers)
        fill(model.heads, values, "w__", {m: f"decoder_{m}"})
    fill(model, values, "w__", {"head": "decoder", "fusion.linear": "fusion1__linear_1"})
    run_mib(model, values, monkeypatch)


@pytest.mark.parametrize("name", ["mib_emib_vib_loss", "mib_lmib_vib_loss"])
def test_mib_vib_loss(name):
    values = golden(name)
    kl = values["beta"] * bounds.gaussian_kl(values["mu"], values["std"]).mean()
    same(kl, values["kl_times_beta"])
    same(F.l1_loss(values["y_pred"], values["y"]) + kl, values["loss"])


# --- MCIB ----------------------------------------------------------------------------------------


def test_mcib_parts_equal_the_official_forward():
    """Modality 0, 1, 2 = video, audio, text; each is primary with the next one as auxiliary."""
    values = golden("mcib_cib_forward")
    order, x = "vat", {m: values[f"x{m}"] for m in "vat"}
    total, compressed = torch.zeros((), dtype=torch.float64), []
    for i, m in enumerate(order):
        other = order[(i + 1) % 3]
        width = x[m].shape[1]
        compressor = mcib.Compressor(width, 8, 2, 0.4).double().eval()
        layers = {"layers.0": f"encoder_{m}__0", "layers.3": f"encoder_{m}__3"}
        fill(compressor, values, "w__", layers)
        mean, log_variance = compressor(x[m])
        b = mean + (0.5 * log_variance).exp() * values[f"eps_{i}"]
        compressed.append(b)
        kl = bounds.gaussian_kl(mean, (0.5 * log_variance).exp()).mean()
        same(kl.detach(), values[f"kl_{m}"])
        q = mcib.Conditional(2 + x[other].shape[1], 8, nn.Linear(8, 1), 1).double()
        head = f"cond_prob_model_{m}__fc"
        layers = {"hidden.0": f"{head}1", "mean": f"{head}_mu", "log_variance": f"{head}_logvar"}
        fill(q, values, "w__", layers)
        prediction = q(torch.cat([b, x[other]], dim=1))
        condition = mcib.gaussian_condition(*prediction, values["y"], values[f"eps_{3 + i}"])
        same(condition.detach(), values[f"cond_{m}"])
        total = total + {"v": 32, "a": 8, "t": 8}[m] * (kl + condition)
    same(torch.cat(compressed, dim=1).detach(), values["b_cat"])
    torch.testing.assert_close(total.detach(), values["total_loss"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("names", [["audio", "visual", "text"], ["text", "audio", "visual"]])
def test_mcib_pairs_are_those_of_the_official_code(names):
    model = build("mcib", names, 4, 3)
    assert model.auxiliary == {"visual": "audio", "audio": "text", "text": "visual"}


def test_mcib_kl():
    values = golden("mcib_kl")
    std = (0.5 * values["logvar"]).exp()
    same(bounds.gaussian_kl(values["mu"], std).mean(), values["kl"])


# --- CLFA, DCLF ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_clfa_contrastive_loss(temperature):
    values = golden("clfa_contrastive")
    got = dependence.contrastive(values["pooled"], values["clip"], temperature)
    same(got, values[f"loss_T{temperature}"])


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_dclf_uses_the_reference_supervised_contrastive_loss(temperature):
    values = golden("supcon_one_view")
    y = values["labels"]
    weights = (y[:, None] == y).double()
    got = dclf.supcon(values["features"][:, 0], weights, temperature)
    same(got, values[f"loss_T{temperature}"])


def test_jaccard_by_hand():
    y = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
    expected = [[1, 0.5, 0, 0], [0.5, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert dclf.jaccard(y).tolist() == expected


# --- MMIB, MMRLIB --------------------------------------------------------------------------------


def test_mmib_estimates_information_as_the_public_analogue():
    values = golden("fmib_jsd_mi")
    score = mmib.critic(3, 8).double()
    fill(score, values, "w.", {str(i): str(i) for i in (0, 2, 4)})
    same(mmib.jensen_shannon(score, values["z1"], values["z2"]).detach(), values["jsd"])


def test_mmrlib_sample_and_kl():
    values = golden("mmrlib_reparam_kl")
    std = (0.5 * values["logvar"]).exp()
    same(values["mean"] + std * values["eps"], values["z_train"])
    same(values["mean"], values["z_eval"])
    same(bounds.gaussian_kl(values["mean"], std).mean(), values["kl"])


def test_mmrlib_alignment():
    values = golden("mmrlib_align_concat")
    score = mmrlib.ConcatScore(12).double()
    fill(
        nn.ModuleDict({"linear": score.linear}),
        {"w.linear.weight": values["w.weight"], "w.linear.bias": values["w.bias"]},
        "w.",
        {"linear": "linear"},
    )
    negatives = int(values["neg_num"])
    got = mmrlib.alignment(score, values["z_txt"], values["z_img"], negatives)
    same(got.detach(), values["expected"])
    same(F.cross_entropy(values["logits"], values["y"], reduction="sum"), values["task_ce_sum"])


# --- DMIB ----------------------------------------------------------------------------------------


def log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(1).unsqueeze(1)


def test_dmib_sufficiency_in_its_three_forms():
    values = golden("dmib_diag_total")
    p, t = log_softmax(values["logits_ob"]), log_softmax(values["logits_re"])
    same(dmib.sufficiency(p, t), values["ib_term_official"])
    same(dmib.sufficiency(p, t, "kl_te"), values["kl_re_ob"])
    same(dmib.sufficiency(p, t, "kl_pe"), values["kl_ob_re"])


def test_dmib_sufficiency_of_one_label_counts_both_of_its_values():
    p, t = (torch.tensor([[[0.3, 0.7]]]).log(), torch.tensor([[[0.6, 0.4]]]).log())
    by_hand = 0.6 * (np.log(0.6) - 0.3) + 0.4 * (np.log(0.4) - 0.7)
    assert float(dmib.sufficiency(p, t, labels=True)) == pytest.approx(by_hand)
    assert float(dmib.sufficiency(p, t)) == pytest.approx(by_hand / 2), "of one of two classes"


def test_dmib_total_loss_and_gradients():
    values = golden("dmib_diag_total")
    names = ["m0", "m1", "m2"]
    model = build("dmib", names, 5, 4)
    observation, representation = leaf(values["logits_ob"]), leaf(values["logits_re"])
    extra = {f"side/{name}": values[f"side{i}"] for i, name in enumerate(names)}
    out = Output({}, observation, representation, extra | {"observation": observation})
    terms = model.losses(out, Batch({}, values["y"], torch.arange(6)))
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    torch.testing.assert_close(total.detach(), values["loss_mean"], rtol=1e-10, atol=0)
    # the oracle's gradients may be of the summed or of the mean loss: the ratio says which
    scale = (values["grad_re"] / representation.grad).mean()
    assert float(scale.round()) in (1.0, 6.0)
    torch.testing.assert_close(scale.round() * representation.grad, values["grad_re"])
    torch.testing.assert_close(scale.round() * observation.grad, values["grad_ob"])
    same(values["returned_logits"], values["logits_re"])


def test_dmib_prognosis_sufficiency_and_gradient():
    values = golden("dmib_prog_vsd_T1")
    representation = leaf(values["logits_re"])
    got = dmib.sufficiency(log_softmax(values["logits_ob"]), log_softmax(representation))
    got.backward()
    same(got.detach(), values["expected"])
    same(representation.grad, values["grad_re"])


def test_dmib_focal_loss():
    values = golden("dmib_prog_focal")
    losses = F.cross_entropy(values["logits"], values["y"], reduction="none")
    same(dmib.focal(losses), values["expected"])


def test_dmib_confidence_loss():
    values = golden("dmib_prog_confidence")
    rows = torch.arange(7)
    total = sum(
        dmib.confidence_loss(values[f"conf{m}"][:, 0], -values[f"p{m}"][rows, values["y"]].log())
        for m in (1, 2)
    )
    same(total, values["expected"])


def test_dmib_bottleneck_with_observation():
    values = golden("dmib_prog_bottleneck")
    bottleneck = dmib.Bottleneck(10, 4).double()
    layers = {"layers.0": "bottleneck.0", "layers.2": "bottleneck.2"}
    fill(bottleneck, values, "w.", layers)
    heads = nn.ModuleDict({n: nn.Linear(10, 3).double() for n in ("head", "observation")})
    fill(heads, values, "w.", {"head": "classifier", "observation": "classifier_observation"})
    v = values["v"]
    same(heads["observation"](v).detach(), values["logits_ob"])
    same(heads["head"](bottleneck(v)).detach(), values["logits_re"])


# --- VIB, CLUB, APIB -----------------------------------------------------------------------------


def bound_of(name: str, width: int):
    model = build("ce3", ["a", "b"], width, 3)
    return find_bound(name)(BoundSpec.of(model.spec), align=True).double()


def test_dai_gate_in_training_and_evaluation(monkeypatch):
    values = golden("vib_dai_gate")
    bound = bound_of("vib", 6)
    mean, log_variance = leaf(values["post_z_mu"]), leaf(values["post_z_logD"])
    bound.mean["a"], bound.log_variance["a"] = nn.Parameter(mean), nn.Parameter(log_variance)
    kl = bounds.gate_kl(mean, log_variance).sum()
    kl.backward()
    same(kl.detach(), values["kl"])
    same(mean.grad, values["grad_mu"])
    same(log_variance.grad, values["grad_logD"])
    same(bounds.gate_log_alpha(mean, log_variance).detach(), values["logalpha"])
    monkeypatch.setattr(torch, "randn_like", lambda like, dtype: values["eps"])
    same(bound.train().transform("a", values["x"], {}).detach(), values["train_out"])
    same(bound.eval().transform("a", values["x"], {}).detach(), values["eval_out"])


def test_alemi_rate_in_bits():
    values = golden("vib_alemi_kl_bits")
    bound = bound_of("vib_alemi", 4)
    bound.posterior["a"] = nn.Identity()
    extra: dict[str, Tensor] = {}
    bound.transform("a", torch.cat([values["mu"], values["rho"]], dim=1), extra)
    same(extra["std/a"], values["std"])
    nats = bounds.gaussian_kl(extra["mean/a"], extra["std/a"]).sum(1).mean()
    same(nats, values["expected_nats"])
    same(nats / np.log(2), values["expected_bits"])


def test_infonce_lower_bound():
    """The official critic ends in a softplus and scores row i of y against every x."""
    values = golden("club_infonce_lower")
    critic = nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 1), nn.Softplus()).double()
    fill(critic, values, "w.", {"0": "F_func.0", "2": "F_func.2"})
    x, y = values["x"], values["y"]
    pairs = torch.cat([x.repeat(8, 1), y.repeat_interleave(8, 0)], dim=1)
    same(dependence.infonce(critic(pairs).view(8, 8)).detach(), values["estimate"])


def test_club_with_unit_variance():
    """CLUBMean is the moment form with log variance 0; its learning loss is twice ours."""
    values = golden("club_mean")
    net = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 4)).double()
    fill(net, values, "w.", {"0": "p_mu.0", "2": "p_mu.2"})
    mean = net(values["x"]).detach()
    flat = torch.zeros_like(mean)
    same(bounds.club(values["y"], mean, flat), values["estimate"])
    same(2 * bounds.club_learning_loss(values["y"], mean, flat), values["learning_loss"])


def test_apib_kernels():
    values = golden("apib_kernels_raw")
    same(dependence.centre(values["gaussian"]), values["gaussian_centered"])
    same(dependence.laplace_kernel(values["Y"]), values["laplace"])
    same(values["Y"] @ values["Y"].T, values["linear"])


def test_apib_centred_kernels_and_traces():
    values = golden("apib_centered_kernels")
    per_channel = values["X"].permute(1, 0, 2)
    centred = dependence.centre(dependence.laplace_kernel(per_channel))
    target = dependence.centre(dependence.laplace_kernel(values["Y"]))
    same(centred, values["K_centered"])
    same(target, values["L_centered"])
    same((centred * target).sum((1, 2)), values["hsic_trace"])
    same(values["L_centered"].square().sum(), values["L_norm2"])
    for i, j in combinations(range(3), 2):
        same((centred[i] * centred[j]).sum(), values["KK"][i, j])


def test_hsic_of_copies_is_one_and_of_a_constant_is_zero_with_finite_gradient():
    x = leaf(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
    kernel = dependence.laplace_kernel(x)
    assert float(dependence.hsic(kernel, kernel).detach()) == pytest.approx(1.0)
    dependence.hsic(kernel, torch.ones(6, 6)).backward()
    assert x.grad.isfinite().all()


def test_plug_in_information_with_own_marginals_is_the_plain_one():
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(20, 2, 3, generator=random).double().softmax(-1) for _ in range(2))
    first, second = leaf(a), leaf(a)
    got = bounds.plug_in_information(first, b, a.mean(0), b.mean(0))
    plain = bounds.mutual_information(second, b)
    got.backward()
    plain.backward()
    same(got.detach(), plain.detach())
    # gradients agree up to a constant per row, which a softmax does not see
    gap = first.grad - second.grad
    same(gap - gap.mean(-1, keepdim=True), torch.zeros_like(gap))


def test_every_stored_value_is_read_by_a_test():
    """`Parity:` lines of docs/methods.md promise these files."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    for path in (ROOT / "tests/golden").glob("*.npz"):
        assert path.stem in tests, f"{path.name}: no test reads it"
