"""Every method on tiny problems: shapes, finite terms, learning, refusals."""

import copy
import inspect
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from problems import METHODS, VECTORS, Problem
from torch import Tensor
from torch.nn import functional as F

from ibma import methods, params
from ibma.errors import IbmaError
from ibma.features.store import Batch
from ibma.network import tasks
from ibma.network.centroids import Assignment
from ibma.network.method import ConcatFusion, Fusion, Method, Modality, Spec
from ibma.training.loop import centre_spheres, run_network

WIDTH, INPUTS, CLASSES = 8, 5, ("a", "b", "c")
KINDS = ["classify", "multilabel", "one_class", "sentiment"]
OUTPUTS = {"one_class": 32}
EPOCHS = 20  # OMIB warms up for 2 of them
torch.set_num_threads(1)


def views(kind: str, n: int, modalities: int, absent: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Views are noisy linear images of the class or labels, [n, 3]."""
    random = torch.Generator().manual_seed(1)
    code = torch.eye(3)[torch.arange(n) % (2 if absent else 3)]
    if kind == "multilabel":
        code = torch.maximum(code, code.roll(1, 0))
        code[:, 2] *= not absent
    x = {
        f"view{m}": code @ torch.randn(3, INPUTS, generator=random)
        + 0.1 * torch.randn(n, INPUTS, generator=random)
        for m in range(modalities)
    }
    return x, code


def batch(kind: str = "classify", modalities: int = 2, n: int = 12, absent: bool = False) -> Batch:
    """Noisy views of three classes; `absent` leaves the last class or label out."""
    x, code = views(kind, n, modalities, absent)
    y = {
        "classify": code.argmax(1),
        "multilabel": code,
        "one_class": torch.zeros(n, dtype=torch.long),
        "sentiment": 0.8 * (code.argmax(1) - 1.0),
    }[kind]
    random = torch.Generator().manual_seed(2)
    systems = (3, 2) if kind == "multilabel" else (1, 3)
    return Batch(
        x,
        y,
        torch.arange(n),
        phi_x={name: torch.randn(n, *systems, generator=random).softmax(-1) for name in x},
        inputs=x,
        pseudo=code if kind == "one_class" else None,
        previous=torch.tensor([np.nan, 0, 1, 2] * 3)[:n] if kind == "classify" else None,
    )


def spec(kind: str = "classify", modalities: int = 2) -> Spec:
    names = [f"view{m}" for m in range(modalities)]
    entry = Modality("vector", (INPUTS,), {"name": "mlp", "hidden": [16]})
    return Spec(
        modalities=dict.fromkeys(names, entry),
        task=tasks.build(kind, CLASSES),
        width=WIDTH,
        heads=2,
        epochs=EPOCHS,
        systems=(3, 2) if kind == "multilabel" else (1, 3),
        assignment=Assignment(),
        eta=0.5,
        u=dict.fromkeys(names, 0.1),
        input_widths=dict.fromkeys(names, INPUTS),
    )


def make(method: str, kind: str = "classify", modalities: int = 2, **hparams: object):
    """A method by file name, or IBMA with another bound as `ibma_<bound>`."""
    torch.manual_seed(0)
    if method.startswith("ibma_"):
        method, hparams = "ibma", hparams | {"bound": method.removeprefix("ibma_")}
    return methods.build(method, spec(kind, modalities), **hparams)


@torch.no_grad()
def start_epoch(model: Method, epoch: int, data: Batch) -> None:
    def outputs():
        yield run_network(model, data.x), data

    model.eval()
    if epoch == 0:
        centre_spheres(model, outputs())
    model.before_epoch(epoch, outputs)
    model.train()


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def step(model: Method, data: Batch) -> dict[str, Tensor]:
    """What the loop does before the optimiser."""
    out = model(data.x)
    model.inner_step(out, data)
    return model.losses(out, data)


def test_params_names_the_methods_that_read_eta():
    found = [name for name in methods.names() if methods.find(name).reads_eta]
    assert found == list(params.READ_ETA), "add yours to READ_ETA of src/ibma/params.py"


def test_a_pair_of_modalities_without_a_term_of_its_own_is_an_error():
    model = make("mmib", "classify", 3)
    model.critics = model.critics[:2]
    with pytest.raises(ValueError, match="shorter"):
        step(model, batch("classify", 3))


def test_methods_that_compare_modalities_refuse_a_single_one():
    """Every other method trains on it; torch would say of pairs that there are none."""
    alone, refused = Problem(views={"left": VECTORS["left"]}), set()
    for method in METHODS:
        try:
            fit = alone.fit(method, torch.device("cpu"), epochs=1)
        except IbmaError as error:
            assert "expected two modalities or more, there is one" in str(error)
            refused.add(method)
        else:
            fit.run(method)
    pairs = {"aligned_ib", "bigated", "clfa", "misa", "mmib", "mmrlib"}
    assert refused == pairs | {"ibma_released"}


@pytest.mark.parametrize("method", METHODS)
def test_shapes_of_every_kind_of_task_with_two_and_three_modalities(method):
    for kind, modalities in product(KINDS, (2, 3)):
        model, data = make(method, kind, modalities), batch(kind, modalities)
        out, where = model(data.x), f"{kind}, {modalities} modalities"
        assert out.logits.shape == (12, OUTPUTS.get(kind, 3)), where
        assert out.fused.shape[0] == 12 and out.fused.ndim == 2, where
        read = list(data.x)[:1] if method == "unimodal" else list(data.x)
        assert list(out.z) == read, where
        assert all(value.shape == (12, WIDTH) for value in out.z.values()), where


@pytest.mark.parametrize("method", METHODS)
def test_every_term_and_gradient_is_finite_in_every_phase(method):
    """A batch of two and a class that nobody has included; a batch of one is never trained on."""
    batches = [(12, False), (2, False), (12, True)]
    for kind, modalities, (n, absent) in product(KINDS, (2, 3), batches):
        model, data = make(method, kind, modalities), batch(kind, modalities, n, absent)
        for epoch in (0, 1, EPOCHS - 1):
            where = f"{kind}, {modalities} modalities, {n} samples, absent: {absent}, {epoch=}"
            start_epoch(model, epoch, data)
            terms = step(model, data)
            assert all(v.shape == () and v.isfinite() for v in terms.values()), where
            model.zero_grad(set_to_none=True)
            total(terms).backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            assert gradients, where
            assert all(gradient.isfinite().all() for gradient in gradients), where


@pytest.mark.parametrize("method", METHODS)
def test_what_fills_a_missing_part_is_not_read(method):
    """In training and in evaluation, whether one, two or no samples of a batch have the part."""
    for kind, there in product(KINDS, (range(6), range(2), [3], [])):
        runs = []
        for filling in (0.0, 1e6):
            model, data = make(method, kind), batch(kind)
            known = torch.zeros(len(data.y), dtype=torch.bool)
            known[list(there)] = True
            x = data.x | {"view0": torch.where(known[:, None], data.x["view0"], filling)}
            data = replace(data, x=x | {"present/view0": known})
            for epoch in (0, 1):
                start_epoch(model, epoch, data)
                torch.manual_seed(epoch)
                terms = step(model, data)
            total(terms).backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            runs.append([*terms.values(), *gradients, model.eval()(data.x).logits])
        where = f"{kind}, present: {list(there)}"
        for one, other in zip(*runs, strict=True):
            assert one.isfinite().all(), where
            torch.testing.assert_close(one, other, rtol=0, atol=0, msg=where)


def rows_of(data: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch."""
    named = {
        field: {name: value[rows] for name, value in getattr(data, field).items()}
        for field in ("x", "phi_x", "inputs")
    }
    whole = ("y", "index", "pseudo", "previous")
    each = {field: getattr(data, field) for field in whole}
    return replace(data, **named, **{k: v if v is None else v[rows] for k, v in each.items()})


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_without_a_modality_adds_nothing_to_its_terms(method):
    """Its label moves no head of the modality, its other part no term that compares the two."""
    compared = {"contrastive", "disagreement", "views", "align", "between", "similarity"}
    compared |= {"difference", "reconstruction"}
    for kind in KINDS:
        data = batch(kind, absent=True)
        known = torch.arange(12) < 7
        data = replace(data, x=data.x | {"present/view0": known})
        others = torch.where(known[:, None], data.x["view1"], -data.x["view1"])
        y = torch.where(known if data.y.ndim == 1 else known[:, None], data.y, data.y.flip(0))
        moved = {
            "view0": replace(data, y=y),
            "pair": replace(data, x=data.x | {"view1": others}),
        }
        model = make(method, kind)
        start_epoch(model, EPOCHS - 1, data)
        model.eval()
        before = model.losses(model(data.x), data)
        for name, value in before.items():
            place = "view0" if name.endswith("/view0") else "pair" if name in compared else None
            if place and not name.startswith("condition"):
                other = moved[place]
                after = model.losses(model(other.x), other)[name]
                torch.testing.assert_close(after, value, msg=f"{kind}: {name}")


@pytest.mark.parametrize("kind", [Fusion, ConcatFusion])
def test_a_missing_modality_is_neither_attended_to_nor_projected(kind):
    """A sample that has one modality is fused as that one alone, beside zeros."""
    torch.manual_seed(0)
    fusion = Fusion(2, WIDTH, 2) if kind is Fusion else ConcatFusion(2, WIDTH)
    z = torch.randn(2, 3, WIDTH)
    known = torch.tensor([[True, True], [True, False], [False, True]])
    found = fusion(z, known)
    project = fusion.project if kind is Fusion else lambda tokens: fusion.linear(tokens).relu()
    for row, place in ((1, 0), (2, 1)):
        alone = z[place, row][None, None]
        tokens = torch.zeros(2, WIDTH)
        tokens[place] = fusion.block(alone)[0, 0] if kind is Fusion else alone[0, 0]
        torch.testing.assert_close(found[row], project(tokens.flatten()))
    torch.testing.assert_close(found[0], fusion(z)[0])


def test_the_loss_of_a_modality_is_a_sum_over_those_that_have_it_over_the_batch():
    model, data = make("ce3"), batch()
    known = torch.arange(12) < 3
    data = replace(data, x=data.x | {"present/view0": known})
    out = model(data.x)
    each = F.cross_entropy(out.extra["logits/view0"], data.y, reduction="none")
    torch.testing.assert_close(model.losses(out, data)["ce/view0"], each[known].sum() / 12)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_whose_terms_are_no_means_over_samples_says_so(method):
    """Several processes have a part of a batch each, and average their terms."""
    moved, model = False, make(method)
    for kind, epoch in product(("classify", "multilabel", "one_class"), (0, EPOCHS - 1)):
        model, data = make(method, kind), batch(kind, 3)
        start_epoch(model, epoch, data)
        with torch.no_grad():
            for weight in model.eval().parameters():
                weight.mul_(3)  # freshly drawn weights make samples much alike
            whole, *parts = (
                model.losses(model(each.x), each)
                for each in (data, *(rows_of(data, torch.arange(k, 12, 2)) for k in (0, 1)))
            )
        for name, value in whole.items():
            mean = (parts[0][name] + parts[1][name]) / 2
            moved |= not torch.allclose(mean, value, rtol=1e-4, atol=1e-5)
    assert moved == model.compares_samples


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_takes_a_batch_of_one_and_is_the_same_twice(method):
    model, data = make(method), batch()
    start_epoch(model, EPOCHS - 1, data)
    model.eval()
    with torch.no_grad():
        whole = model(data.x)
        again = model(data.x)
        one = model({name: value[:1] for name, value in data.x.items()})
    torch.testing.assert_close(whole.logits, again.logits, rtol=0, atol=0)
    torch.testing.assert_close(one.logits, whole.logits[:1])


@pytest.mark.parametrize("method", METHODS)
def test_a_network_in_bfloat16_has_losses_in_float32(method):
    for kind in KINDS:
        model, data = make(method, kind), batch(kind)
        for epoch in (0, EPOCHS - 1):
            start_epoch(model, epoch, data)
            out = run_network(model, data.x, torch.bfloat16)
            assert {v.dtype for v in (out.fused, out.logits, *out.z.values())} == {torch.float32}
            assert all(value.dtype == torch.float32 for value in out.extra.values())
            model.inner_step(out, data)
            terms = model.losses(out, data)
            assert all(v.dtype == torch.float32 and v.isfinite() for v in terms.values()), kind
            total(terms).backward()


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_use_all_their_parameters_say_so(method):
    """Several processes look for unused parameters only where a method says that it has some."""
    for kind, modalities, align in product(KINDS, (2, 3), (True, False)):
        if not align and (not method.startswith("ibma") or method == "ibma_released"):
            continue
        options = {} if align else {"align": False}
        model, data = make(method, kind, modalities, **options), batch(kind, modalities)
        learnt = [p for group in model.parameter_groups() for p in group["params"]]
        for epoch in (0, 1, EPOCHS - 1):
            start_epoch(model, epoch, data)
            model.zero_grad(set_to_none=True)
            total(step(model, data)).backward()
            if any(parameter.grad is None for parameter in learnt):
                assert model.leaves_parameters_unused, f"{kind}, {modalities} modalities, {align}"


@pytest.mark.parametrize("method", METHODS)
def test_noise_comes_from_the_global_generator(method):
    data, runs = batch(), []
    for _ in range(2):
        model = make(method)
        start_epoch(model, EPOCHS - 1, data)
        torch.manual_seed(7)
        runs.append(model(data.x).logits)
    torch.testing.assert_close(*runs, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_unknown_parameter_is_refused_in_one_line(method):
    with pytest.raises(IbmaError, match="betaa") as caught:
        make(method, betaa=1.0)
    assert "\n" not in str(caught.value)


def test_the_released_bound_without_alignment_is_refused():
    with pytest.raises(IbmaError, match="nothing is left of it with align: false"):
        make("ibma_released", align=False)


def test_concat_has_no_interaction_between_modalities():
    """Its logits are a sum of one linear score per modality."""
    model, data = make("concat").eval(), batch()
    z = model.encode(data.x)
    weights = model.head.weight.split(WIDTH, dim=1)
    scores = sum(value @ weight.T for value, weight in zip(z.values(), weights, strict=True))
    torch.testing.assert_close(model(data.x).logits, scores + model.head.bias)


def test_ce3_gives_every_head_a_gradient_and_weight_one():
    model, data = make("ce3", modalities=3), batch(modalities=3)
    terms = model.losses(model(data.x), data)
    assert list(terms) == ["ce/view0", "ce/view1", "ce/view2", "ce/fused"]
    total(terms).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_ce3_is_ibma_without_the_bound():
    """Same network, same start, same cross-entropies: only the bound terms differ."""
    ce3, ibma, data = make("ce3"), make("ibma"), batch()
    terms = ibma.losses(ibma(data.x), data)
    for name, value in ce3.losses(ce3(data.x), data).items():
        torch.testing.assert_close(value, terms[name])


def test_unimodal_is_the_modality_s_half_of_ce3_and_reads_nothing_else():
    data, ce3 = batch(), make("ce3").eval()
    for name in data.x:
        alone = make("unimodal", modality=name).eval()
        alone.encoders[name].load_state_dict(ce3.encoders[name].state_dict())
        alone.head.load_state_dict(ce3.heads[name].state_dict())
        logits = ce3(data.x).extra[f"logits/{name}"]
        torch.testing.assert_close(alone({name: data.x[name]}).logits, logits)
        torch.testing.assert_close(
            alone.losses(alone(data.x), data)["task"], ce3.losses(ce3(data.x), data)[f"ce/{name}"]
        )
    with pytest.raises(IbmaError, match="modality 'view9': expected view0 or view1"):
        make("unimodal", modality="view9")


def test_aligned_ib_pulls_the_views_of_a_sample_together():
    model, data = make("aligned_ib", modalities=3), batch(modalities=3)
    optimiser, before = torch.optim.Adam(model.parameters(), lr=0.01), None
    for _ in range(60):
        terms = step(model, data)
        before = before or {name: value.item() for name, value in terms.items()}
        optimiser.zero_grad()
        total(terms).backward()
        optimiser.step()
    assert all(value.item() < 0.5 * before[name] for name, value in terms.items())
    doubled = step(make("aligned_ib", modalities=3, beta=0.2), data)
    once = step(make("aligned_ib", modalities=3), data)
    torch.testing.assert_close(doubled["disagreement"], 2 * once["disagreement"])
    torch.testing.assert_close(doubled["contrastive"], once["contrastive"])


def omib_gradients(epoch: int) -> dict[str, bool]:
    model, data = make("omib"), batch()
    start_epoch(model, epoch, data)
    total(model.losses(model(data.x), data)).backward()
    parts: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        parts[part] = parts.get(part, False) or parameter.grad is not None
    return parts


def test_omib_warm_up_trains_encoders_and_decoders_only():
    assert omib_gradients(1) == {
        "encoders": True,
        "gaussians": False,
        "fusion": False,
        "head": False,
        "decoders": True,
    }
    assert all(omib_gradients(2).values())


def test_omib_terms_keep_their_names_in_both_phases():
    model, data, names = make("omib"), batch(), []
    for epoch in (0, EPOCHS - 1):
        start_epoch(model, epoch, data)
        names.append(list(model.losses(model(data.x), data)))
    assert names[0] == names[1] == ["task", "kl/view0", "kl/view1", "trb/view0", "trb/view1"]


def test_omib_warms_up_for_a_share_of_the_training():
    from ibma.methods.omib import warm_up_length

    lengths = {500: 50, 60: 6, 20: 2, 12: 1, 3: 1, 2: 1, 1: 0}
    assert {epochs: warm_up_length(0.1, epochs) for epochs in lengths} == lengths
    assert make("omib", warm_up=0.5).warm_up == EPOCHS // 2


def defaults(method: str) -> dict[str, float]:
    """Return the own weights of a method as its constructor has them."""
    model = methods.find(method)
    constructor = next(model.constructors({}))
    of = inspect.signature(constructor.function).parameters
    return {name: of[name].default for name in model.own_weights}


def test_a_scale_multiplies_the_own_weights_and_nothing_else():
    """Methods without any are the same at every scale; most that read eta are tuned by it."""
    data, without = batch(), []
    for method in methods.names():
        own = defaults(method)
        if method == "dmib":
            own = {"kl_weight": 500.0}  # of its variant
        ten = {name: 10.0 * value for name, value in own.items()}
        scaled = replace(spec(), weight_factor=10.0)
        losses = []
        for problem, hparams in ((scaled, {}), (spec(), ten), (spec(), {})):
            torch.manual_seed(0)
            model = methods.build(method, problem, **hparams)
            start_epoch(model, 0, data)
            step(model, data)  # before it the Q of a bound is uniform, whatever weighs it
            start_epoch(model, EPOCHS - 1, data)
            torch.manual_seed(1)
            losses.append(step(model, data))
        for name, value in losses[0].items():
            torch.testing.assert_close(value, losses[1][name], msg=f"{method} {name}")
        moved = any(not torch.equal(value, losses[2][name]) for name, value in losses[0].items())
        assert moved == bool(own), method
        without += [] if own or methods.find(method).reads_eta else [method]
    assert without == ["bigated", "ce3", "concat", "unimodal"]


def test_omib_beta_scales_the_compression_terms_only():
    data = batch()
    small, large = make("omib", beta=0.1), make("omib", beta=0.2)
    terms = []
    for model in (small, large):
        start_epoch(model, EPOCHS - 1, data)
        torch.manual_seed(3)
        terms.append(model.losses(model(data.x), data))
    for name, value in terms[0].items():
        factor = 2.0 if name.startswith("kl/") else 1.0
        torch.testing.assert_close(terms[1][name], factor * value)


def test_state_round_trip_gives_the_same_predictions():
    """A resumed run rebuilds the model and loads its state."""
    data = batch()
    for method in METHODS:
        model = make(method)
        start_epoch(model, EPOCHS - 1, data)
        model(data.x)
        state = copy.deepcopy(model.state_dict())
        torch.manual_seed(99)
        fresh = make(method)
        fresh.load_state_dict(state)
        torch.testing.assert_close(fresh.eval()(data.x).logits, model.eval()(data.x).logits)


# --- DCLF ----------------------------------------------------------------------------------------


def test_dclf_compares_a_modality_with_the_samples_that_have_it():
    model, data = make("dclf", "multilabel"), batch("multilabel", n=8)
    known = torch.arange(8) < 4
    data = replace(data, x=data.x | {"present/view1": known})
    right = torch.where(data.y > 0, 1.0, -1.0)
    strength = torch.tensor([4.0, 3, 2, 1, -9, -9, -9, -9])[:, None]
    out = replace(model(data.x), extra={"logits/view1": strength * right})
    helps = model._helps("view1", out, data)
    assert helps[:4].tolist() == [True, True, False, False] and not helps[4:].any()


def test_dclf_of_one_label_asks_whether_its_loss_is_small():
    problem = replace(spec("multilabel"), task=tasks.build("multilabel", ["a"]), systems=(1, 2))
    model = methods.build("dclf", problem)
    y = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    data = replace(batch(n=4), y=y, previous=None)
    out = replace(
        model(data.x), extra={"logits/view0": torch.tensor([[-3.0], [3.0], [3.0], [-3.0]])}
    )
    assert model._helps("view0", out, data).tolist() == [True, True, False, False]


def test_dclf_of_one_class_and_one_modality_has_nothing_to_compare():
    model, data = make("dclf", "one_class", 1), batch("one_class", 1)
    assert set(model.losses(model(data.x), data)) == {"task", "task/view0"}
