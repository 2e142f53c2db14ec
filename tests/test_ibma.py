"""Every bound of IBMA against its formula, written out over the samples that have both places."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
from test_methods import WIDTH, batch, make, spec, start_epoch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma import methods
from ibma.errors import IbmaError
from ibma.methods.ibma import BoundSpec, Frame, Model, Step, bound_names, find_bound
from ibma.network import bounds, dependence, tasks
from ibma.network.centroids import Assignment
from ibma.network.method import FUSED

NAMES = ("a", "b", "c")
WIDTHS = {"a": 3, "b": 4, "c": 5, FUSED: 6}
U = {"a": 0.5, "c": 0.25}
ROWS, CLASSES, INPUTS = 12, 3, 7
PLACES = (*NAMES, FUSED)


def bound_spec(refresh: str = "epoch") -> BoundSpec:
    task = tasks.build("classify", NAMES)
    inputs = dict.fromkeys(NAMES, INPUTS)
    assignment = Assignment(0.5, normalise=False)
    return BoundSpec(NAMES, WIDTHS, task, (1, CLASSES), assignment, U, inputs, refresh)


def bound_of(name: str, align: bool = True, refresh: str = "epoch", **options: object) -> Frame:
    torch.manual_seed(0)
    made = find_bound(name)(bound_spec(refresh), align, **options)
    return made if name == "plugin" else made.double()  # whose marginals move in float32


def step(seed: int = 0, masked: bool = True, **changed: object) -> Step:
    """Twelve samples of three classes; some lack a, others lack b, all have c."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    y, rows = torch.arange(ROWS) % CLASSES, torch.arange(ROWS)
    one = Step(
        z={place: normal(ROWS, width) for place, width in WIDTHS.items()},
        systems=F.one_hot(y, CLASSES)[:, None].double(),
        y=y,
        logits=normal(ROWS, CLASSES),
        present={"a": rows % 4 != 1, "b": rows > 1} if masked else {},
        phi_x={name: normal(ROWS, 1, CLASSES).softmax(-1) for name in NAMES},
        inputs={name: normal(ROWS, INPUTS) for name in NAMES},
    )
    return replace(one, **changed)


def both(one: Step, *places: str) -> Tensor:
    known = torch.ones(ROWS, dtype=torch.bool)
    for place in places:
        known = known & one.present.get(place, known)
    return known


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in found.items():
        torch.testing.assert_close(
            value.detach(), expected[name].detach().to(value.dtype), msg=name
        )


def shared(one: Step, places: tuple[str, str], value) -> Tensor:
    """A term: its value on the rows that have both places, times their share of all rows."""
    known = both(one, *places)
    return known.double().mean() * value(known)


def framed(one: Step, compress, relate, predict: Tensor | None) -> dict[str, Tensor]:
    """The frame of Table 6: compress(place, modality, rows), relate(j, other, rows)."""
    terms = {
        f"compress/{m}": shared(one, (m, m), lambda rows, m=m: compress(m, m, rows)) for m in NAMES
    }
    for j, o in itertools.permutations(NAMES, 2):
        terms[f"relate/{j}|{o}"] = shared(one, (j, o), lambda rows, j=j, o=o: -relate(j, o, rows))
    fused = [shared(one, (FUSED, m), lambda rows, m=m: compress(FUSED, m, rows)) for m in NAMES]
    terms[f"compress/{FUSED}"] = torch.stack(fused).sum()
    return terms if predict is None else terms | {"predict": -predict}


def mean_of_classes(parts: list[Step], place: str) -> Tensor:
    known = [both(part, place) for part in parts]
    z = torch.cat([part.z[place][rows] for part, rows in zip(parts, known, strict=True)])
    y = torch.cat([part.y[rows] for part, rows in zip(parts, known, strict=True)])
    return torch.stack([z[y == k].mean(0) for k in range(CLASSES)])[None]


def phi(one: Step, place: str, centroids: Tensor) -> Tensor:
    return Assignment(0.5, normalise=False).phi(one.z[place], centroids)


def infonce(bound: Frame, one: Step):
    def relate(j: str, other: str, rows: Tensor) -> Tensor:
        a, b = (F.normalize(bound.critics[m](one.z[m][rows]), dim=1) for m in (j, other))
        scores = a @ b.T / 0.1
        return (scores.diagonal() - scores.logsumexp(1)).mean() + math.log(len(a))

    return relate


# --- IBB -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("align", [True, False])
def test_ibb_is_u_minus_v_against_the_q_and_the_centroids_of_the_last_epoch(align):
    bound, first = bound_of("ibb", align), step()
    bound.refresh(0, [first])
    old = {place: mean_of_classes([first], place) for place in bound.assigned}
    assert bound.assigned == (PLACES if align else (FUSED,))
    uniform = bound.terms(step(9))
    if align:
        share = both(first, "a", "b").double().mean()
        torch.testing.assert_close(uniform["ibb/a|b"], share * (0.5 + math.log(CLASSES)))
    seen = [step(1), step(2)]
    for one in seen:
        bound.inner_step(one)
    bound.inner_step(step(3, weight=0.0))  # only fills a batch
    bound.refresh(1, ())
    phis = {p: [phi(s, p, old[p])[both(s, p)] for s in seen] for p in bound.assigned}
    labels = {p: torch.cat([s.systems[both(s, p)] for s in seen]) for p in bound.assigned}
    q = {p: bounds.conditional(torch.cat(phis[p]), labels[p]) for p in bound.assigned}
    new = {place: mean_of_classes(seen, place) for place in bound.assigned}
    one, expected = step(4), {}
    now = {place: phi(one, place, new[place]) for place in bound.assigned}
    if align:
        for j, o in itertools.permutations(NAMES, 2):

            def value(rows: Tensor, j: str = j, o: str = o) -> Tensor:
                return U.get(j, 0.0) - bounds.v_term(now[j][rows], now[o][rows], q[j]).mean()

            expected[f"ibb/{j}|{o}"] = shared(one, (j, o), value)
    expected["ibb/fused"] = 0.75 - bounds.v_term(now[FUSED], one.systems, q[FUSED]).mean()
    same(bound.terms(one), expected)
    bound.refresh(2, ())
    assert all(bound.get_buffer(f"sums_{p}").eq(0).all() for p in bound.assigned), "sums are spent"


def test_ibb_reports_phi_and_v_over_that_of_a_uniform_q():
    bound = bound_of("ibb")
    bound.refresh(0, [step()])
    bound.inner_step(step(1))
    bound.refresh(1, ())
    one = step(4)
    found, log = bound.regime(bound.assign(one)), math.log(CLASSES)
    for place in PLACES:
        own = one.extra[f"phi/{place}"][both(one, place)]
        entropy = -(own * own.log()).sum(-1).mean() / log
        torch.testing.assert_close(found[f"phi_max/{place}"], own.amax(-1).mean())
        torch.testing.assert_close(found[f"phi_entropy/{place}"], entropy)

    def v(place: str, other: Tensor, rows: Tensor) -> Tensor:
        q = bound.get_buffer(f"q_{place}")
        return bounds.v_term(one.extra[f"phi/{place}"][rows], other[rows], q).mean() / -log

    for place in NAMES:
        others = [o for o in NAMES if o != place]
        each = [v(place, one.extra[f"phi/{o}"], both(one, place, o)) for o in others]
        torch.testing.assert_close(found[f"v/{place}"], torch.stack(each).mean())
    everyone = torch.ones(ROWS, dtype=torch.bool)
    torch.testing.assert_close(found[f"v/{FUSED}"], v(FUSED, one.systems, everyone))
    assert len(found) == 3 * len(PLACES)


def test_phi_of_labels_is_reported_over_all_of_them_and_of_one_sample_too():
    """Three labels of two classes: K = 2; and a batch where a single sample has the modality."""
    labels = tasks.build("multilabel", NAMES)
    known = replace(bound_spec(), task=labels, systems=(3, 2))
    bound = find_bound("ibb")(known, True).double()
    y = (torch.arange(ROWS)[:, None] % 4 > torch.arange(3)).double()
    one = step(masked=False, y=y, systems=labels.systems(y).double())
    bound.refresh(0, [one])
    alone = replace(one, present={"a": torch.arange(ROWS) == 3}, extra={})
    for this, rows in ((replace(one, extra={}), torch.arange(ROWS)), (alone, torch.tensor([3]))):
        found = bound.regime(bound.assign(this))
        own = this.extra["phi/a"][rows]
        assert own.shape == (len(rows), 3, 2)
        torch.testing.assert_close(found["phi_max/a"], own.amax(-1).mean())
        entropy = -(own * own.log()).sum(-1).mean() / math.log(2)
        torch.testing.assert_close(found["phi_entropy/a"], entropy)
        torch.testing.assert_close(found["v/a"], torch.ones((), dtype=torch.float64))


def test_the_constants_u_can_be_replaced_one_by_one():
    bound = bound_of("ibb")
    bound.set_u({"b": 2.0})
    assert bound.get_buffer("u").tolist() == [0.5, 2.0, 0.25]
    find_bound("plugin")(bound_spec(), True).set_u({"b": 2.0})  # which has none


def test_with_a_pass_first_steps_leave_the_sums_alone():
    bound = bound_of("ibb", refresh="pass")
    bound.refresh(0, [step()])
    bound.inner_step(step(1))
    assert bound.get_buffer("counts_a").sum() == 0
    bound.refresh(1, [step(2)])
    expected = mean_of_classes([step(2)], "a")
    torch.testing.assert_close(bound.get_buffer("centroids_a"), expected)
    bound.add_to_sums(bound.assign(step(3)))
    bound.forget()
    assert bound.get_buffer("sums_b").eq(0).all() and bound.get_buffer("joint_c").eq(0).all()


# --- bounds that fill the frame ------------------------------------------------------------------


def plain(seed: int = 0, **changed: object) -> Step:
    """The same step in float32."""
    one = step(seed)
    named = {"z": one.z, "phi_x": one.phi_x, "inputs": one.inputs}
    named = {k: {n: v.float() for n, v in values.items()} for k, values in named.items()}
    return replace(one, systems=one.systems.float(), **(named | changed))


def test_the_plug_in_bound_is_information_against_marginals_that_follow_slowly():
    bound, seen = bound_of("plugin"), [plain(1), plain(2)]
    bound.refresh(0, [plain()])
    centroids = {place: mean_of_classes([plain()], place) for place in PLACES}
    uniform = torch.full((1, CLASSES), 1 / CLASSES)
    marginal = dict.fromkeys([*PLACES, *(f"x_{m}" for m in NAMES), "y"], uniform)
    for one in seen:
        bound.inner_step(one)
        batch = {p: phi(one, p, centroids[p])[both(one, p)] for p in PLACES}
        batch |= {f"x_{m}": one.phi_x[m][both(one, m)] for m in NAMES} | {"y": one.systems}
        marginal = {k: 0.9 * v + 0.1 * batch[k].mean(0) for k, v in marginal.items()}
    nobody = {"b": torch.zeros(ROWS, dtype=torch.bool)}
    kept = bound.get_buffer("marginal_b").clone()
    bound.inner_step(plain(3, weight=0.0))
    bound.inner_step(plain(3, present=nobody, z={"b": plain(3).z["b"]}))
    torch.testing.assert_close(bound.get_buffer("marginal_b"), kept)
    for name in ("a", "b", FUSED):
        torch.testing.assert_close(bound.get_buffer(f"marginal_{name}"), marginal[name])
    marginal = {name: bound.get_buffer(f"marginal_{name}") for name in marginal}
    one = plain(4)
    now = {p: phi(one, p, centroids[p]) for p in PLACES} | {"y": one.systems}
    now |= {f"x_{m}": one.phi_x[m] for m in NAMES}

    def information(a: str, b: str, rows: Tensor) -> Tensor:
        return bounds.plug_in_information(now[a][rows], now[b][rows], marginal[a], marginal[b])

    everyone = torch.ones(ROWS, dtype=torch.bool)
    expected = framed(
        one,
        lambda place, m, rows: information(place, f"x_{m}", rows),
        information,
        information(FUSED, "y", everyone),
    )
    same(bound.terms(one), expected)


def test_the_released_bound_is_that_of_its_code_for_every_ordered_pair():
    bound = bound_of("released")
    bound.refresh(0, [step()])
    one = step(4)
    now = {p: phi(one, p, mean_of_classes([step()], p)) for p in NAMES}
    expected = {}
    for j, o in itertools.permutations(NAMES, 2):

        def value(rows: Tensor, j: str = j, o: str = o) -> Tensor:
            return bounds.released_bound(now[j][rows], now[o][rows], one.phi_x[j][rows])

        expected[f"ibb/{j}|{o}"] = shared(one, (j, o), value)
    same(bound.terms(one), expected)


@pytest.mark.parametrize("pairwise", [True, False])
def test_club_learns_its_q_apart_and_bounds_with_it_per_dimension(pairwise):
    bound, one = bound_of("club", pairwise=pairwise), step()
    chosen = bounds.club_pairwise if pairwise else bounds.club
    assert bound.estimate is chosen and bound_of("club").estimate is bounds.club
    pairs = [(FUSED, m) for m in NAMES] + [(m, m) for m in NAMES]
    assert list(bound.q) == [f"{place}|{m}" for place, m in pairs]
    assert [type(part) for part in bound.q["a|a"].mean] == [nn.Linear, nn.ReLU, nn.Linear]
    q = copy.deepcopy(bound.q)
    adam = torch.optim.Adam(q.parameters(), lr=1e-3)

    def learning(place: str, m: str, rows: Tensor) -> Tensor:
        mean, log_variance = q[f"{place}|{m}"](one.inputs[m][rows])
        z = F.layer_norm(one.z[place][rows], (WIDTHS[place],))
        return bounds.club_learning_loss(z, mean, log_variance)

    critics = copy.deepcopy(bound.critics.state_dict())
    for _ in range(2):
        losses = [shared(one, pair, lambda rows, p=pair: learning(*p, rows)) for pair in pairs]
        adam.zero_grad()
        torch.stack(losses).sum().backward()
        adam.step()
        bound.inner_step(one)
    for mine, theirs in zip(bound.q.parameters(), q.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
        assert mine.grad is None
    assert all(v.equal(critics[k]) for k, v in bound.critics.state_dict().items())
    bound.inner_step(replace(one, z={name: one.z[name] for name in NAMES}))  # nothing is fused

    def compress(place: str, m: str, rows: Tensor) -> Tensor:
        mean, log_variance = bound.q[f"{place}|{m}"](one.inputs[m][rows])
        z = F.layer_norm(one.z[place][rows], (WIDTHS[place],))
        return bounds.club(z, mean, log_variance) / WIDTHS[place]

    predict = -F.cross_entropy(one.logits, one.y)
    same(bound.terms(one), framed(one, compress, infonce(bound, one), predict))
    z = {place: value.clone().requires_grad_() for place, value in one.z.items()}
    torch.stack(list(bound.terms(replace(one, z=z)).values())).sum().backward()
    assert all(p.grad is None for p in bound.q.parameters()) and z["a"].grad.any()


def test_vib_compresses_by_its_gates_and_relates_by_infonce():
    bound, one = bound_of("vib"), step()
    gates = {p: (bound.mean[p], bound.log_variance[p]) for p in PLACES}
    for mean, log_variance in gates.values():
        assert abs(float(mean.mean()) - 1) < 0.02 and 0 < float(mean.std()) < 0.05
        assert abs(float(log_variance.mean()) + 9) < 0.02 and 0 < float(log_variance.std()) < 0.05
    assert {id(p) for p in bound.undecayed} == {id(p) for pair in gates.values() for p in pair}

    def compress(place: str, m: str, rows: Tensor) -> Tensor:
        mean, log_variance = gates[place]
        return 0.5 * torch.log1p(mean**2 / log_variance.exp()).mean()

    found = bound.terms(one)
    expected = framed(one, compress, infonce(bound, one), -F.cross_entropy(one.logits, one.y))
    assert list(found) == list(expected)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=0, msg=name)


def test_alemi_s_vib_compresses_by_its_posterior():
    bound, one = bound_of("vib_alemi").train(), step()
    value, extra = one.z["b"], {"kept": torch.ones(())}
    bound.transform("b", value, extra)
    mean, rho = bound.posterior["b"](value).chunk(2, dim=1)
    assert list(extra) == ["kept", "mean/b", "std/b"]
    torch.testing.assert_close(extra["std/b"], torch.log1p((rho - 5).exp()))
    assert bound.eval().transform("b", value, {}).equal(extra["mean/b"])
    assert not bound.train().transform("b", value, {}).equal(extra["mean/b"])
    for place in PLACES:
        bound.transform(place, one.z[place], one.extra)

    def compress(place: str, m: str, rows: Tensor) -> Tensor:
        mean, std = (one.extra[f"{what}/{place}"][rows] for what in ("mean", "std"))
        return (0.5 * (mean**2 + std**2 - 1) - std.log()).mean()

    predict = -F.cross_entropy(one.logits, one.y)
    same(bound.terms(one), framed(one, compress, infonce(bound, one), predict))


def label_kernel(systems: Tensor) -> Tensor:
    return systems[:, 0] @ systems[:, 0].T


def test_apib_is_hsic_in_place_of_every_information():
    bound, one = bound_of("apib"), step()

    def hsic(a: Tensor, b: Tensor) -> Tensor:
        return dependence.hsic(dependence.laplace_kernel(a), dependence.laplace_kernel(b))

    labels = label_kernel(one.systems)
    expected = framed(
        one,
        lambda place, m, rows: hsic(one.z[place][rows], one.inputs[m][rows]),
        lambda j, o, rows: hsic(one.z[j][rows], one.z[o][rows]),
        dependence.hsic(dependence.laplace_kernel(one.z[FUSED]), labels),
    )
    same(bound.terms(one), expected)


@pytest.mark.parametrize("align", [True, False])
def test_the_lasso_explains_the_labels_by_weighted_features(align):
    bound, one = bound_of("apib_lasso", align), step()
    for place in PLACES:
        weights = torch.linspace(-1, 1, WIDTHS[place], dtype=torch.float64)
        bound.weights[place].data.copy_(weights)
        shown = bound.transform(place, one.z[place], one.extra)
        torch.testing.assert_close(shown, weights * one.z[place])
    expected = {}
    for place in PLACES if align else (FUSED,):

        def value(rows: Tensor, place: str = place) -> Tensor:
            labels = dependence.centre(label_kernel(one.systems[rows]))
            for weight, feature in zip(bound.weights[place], one.z[place][rows].T, strict=True):
                kernel = dependence.laplace_kernel(feature[:, None])
                labels = labels - weight * dependence.centre(kernel)
            return labels.square().mean() / 2 + 5e-5 * bound.weights[place].abs().sum()

        expected[f"lasso/{place}"] = shared(one, (place, place), value)
    same(bound.terms(one), expected)
    assert {id(p) for p in bound.undecayed} == {id(p) for p in bound.weights.values()}
    del one.z[FUSED]
    assert list(bound.terms(one)) == list(expected)[:-1]


@pytest.mark.parametrize("name", [n for n in bound_names() if n not in ("ibb", "released")])
def test_without_alignment_or_fusion_a_bound_has_the_other_terms_only(name):
    if name == "apib_lasso":  # by its own test
        return
    whole, alone = bound_of(name), bound_of(name, align=False)
    fused, drawn = [f"compress/{FUSED}", "predict"], plain if name == "plugin" else step
    for bound in (whole, alone):
        bound.refresh(0, [drawn()])
    one = drawn(4)
    for place in PLACES:
        whole.transform(place, one.z[place], one.extra)
    names = list(whole.terms(one))
    assert list(alone.terms(replace(one, extra=dict(one.extra)))) == fused == names[-2:]
    assert alone.leaves_parameters_unused == hasattr(alone, "critics")
    assert not whole.leaves_parameters_unused
    z = {place: one.z[place] for place in NAMES}
    unfused = replace(one, z=z, logits=None)
    assert list(whole.terms(unfused)) == names[:-2]


# --- what a bound reads --------------------------------------------------------------------------


def test_a_step_of_those_that_have_some_modalities():
    one = step()
    one.extra["phi/a"] = one.z["a"]
    assert one.having("c") is one and one.having() is one and len(one) == ROWS
    part, rows = one.having("a", "b"), both(one, "a", "b").nonzero().squeeze(1)
    assert len(part) == len(rows) < ROWS and part.share == len(rows) / ROWS
    assert part.present == {} and part.having("a") is part
    assert part.y.equal(one.y[rows]) and part.logits.equal(one.logits[rows])
    assert part.systems.equal(one.systems[rows])
    for whole, some in (
        (one.z, part.z),
        (one.phi_x, part.phi_x),
        (one.inputs, part.inputs),
        (one.extra, part.extra),
    ):
        assert list(some) == list(whole)
        assert all(some[name].equal(value[rows]) for name, value in whole.items())
    assert replace(one, logits=None).having("a").logits is None


def test_a_step_is_made_of_a_batch_and_what_the_network_says_of_it():
    data = batch(modalities=2)
    known = torch.arange(len(data.y)) > 3
    data = replace(data, x=data.x | {"present/view0": known}, weight=0.0)
    model = make("ibma")
    out = model(data.x)
    one = Step.of(out, data, model.spec.task)
    assert list(one.z) == ["view0", "view1", FUSED] and one.z[FUSED] is out.fused
    assert one.systems.equal(model.spec.task.systems(data.y)) and one.y is data.y
    assert list(one.present) == ["view0"] and one.present["view0"] is known
    assert one.logits is out.logits and one.extra is out.extra and one.weight == 0.0
    assert one.phi_x is data.phi_x and one.inputs is data.inputs and one.share == 1.0
    pseudo = batch("one_class")
    task = tasks.build("one_class", ("a", "b"))
    out = make("ibma", "one_class")(pseudo.x)
    assert Step.of(out, pseudo, task).systems.equal(pseudo.pseudo[:, None])
    known = BoundSpec.of(replace(spec(), refresh="pass"))
    assert known == BoundSpec(
        ("view0", "view1"),
        {"view0": WIDTH, "view1": WIDTH, FUSED: WIDTH},
        spec().task,
        (1, 3),
        spec().assignment,
        {"view0": 0.1, "view1": 0.1},
        {"view0": 5, "view1": 5},
        "pass",
    )


def test_no_sample_with_both_modalities_is_a_term_of_zero():
    nobody = torch.zeros(ROWS, dtype=torch.bool)
    one = step(present={"a": nobody})
    found = bound_of("apib").terms(one)
    zero = [name for name, value in found.items() if value == 0]
    assert zero == ["compress/a", "relate/a|b", "relate/a|c", "relate/b|a", "relate/c|a"]
    assert all(found[name].shape == () for name in zero)
    assert bound_of("ibb").terms(one)["ibb/a|b"] == 0 == bound_of("ibb").regime(one)["v/a"]


# --- the method ----------------------------------------------------------------------------------


def test_the_method_weighs_its_bound_by_eta_and_says_what_share_it_has():
    model, data = make("ibma", modalities=3), batch(modalities=3)
    for epoch in (0, 1):
        start_epoch(model, epoch, data)
        model.inner_step(model(data.x), data)
    start_epoch(model, 2, data)
    out = model(data.x)
    terms, plain = model.losses(out, data), make("ce3", modalities=3).losses(out, data)
    bound = model.bound.terms(model.step(out, data))
    assert list(terms) == [*plain, *bound]
    for name, value in bound.items():
        torch.testing.assert_close(terms[name], 0.5 * value)
    z = {place: value.detach().requires_grad_() for place, value in out.z.items()}
    z[FUSED] = out.fused.detach().requires_grad_()
    ce = [F.cross_entropy(model.heads[m](z[m]), data.y) for m in model.names]
    ce = torch.stack([*ce, F.cross_entropy(model.head(z[FUSED]), data.y)]).sum()
    pull = torch.stack(
        list(model.bound.terms(replace(model.step(out, data), z=z, extra={})).values())
    )
    regime = model.regime(out, data)
    for place, value in z.items():
        (plain_gradient,) = torch.autograd.grad(ce, value, retain_graph=True)
        (gradient,) = torch.autograd.grad(pull.sum(), value, retain_graph=True)
        expected = 0.5 * gradient.norm() / plain_gradient.norm()
        torch.testing.assert_close(regime[f"share/{place}"], expected)
    alone = make("ibma", modalities=3, align=False)
    out = alone(data.x)
    alone.inner_step(out, data)
    found = alone.regime(out, data)
    assert found["share/view0"] == 0 and "phi_max/view0" not in found
    silent = make("ibma_vib", modalities=3)
    assert silent.regime(silent(data.x), data) == {}, "no phi, so no regime"


def test_a_bound_reads_the_training_split_before_the_first_epoch_or_before_each():
    for refresh, expected in (("epoch", [0]), ("pass", [0, 1, 2])):
        torch.manual_seed(0)
        model, asked = methods.build("ibma", replace(spec(), refresh=refresh)), []
        for epoch in range(3):

            def outputs(epoch: int = epoch, asked: list[int] = asked):
                asked.append(epoch)
                return iter(())

            model.before_epoch(epoch, outputs)
        assert asked == expected


def test_gates_are_not_decayed_and_what_learns_apart_is_left_out():
    for bound, apart in (("ibb", 0), ("vib", 0), ("club", 1), ("apib_lasso", 0)):
        model = make(f"ibma_{bound}" if bound != "ibb" else "ibma")
        groups = model.parameter_groups()
        exempt = {id(p) for p in model.bound.undecayed}
        inner = {id(p) for p in model.bound.q.parameters()} if apart else set()
        assert {id(p) for p in groups[0]["params"]} == {
            id(p) for p in model.parameters() if id(p) not in exempt | inner
        }
        assert "weight_decay" not in groups[0] and len(groups) == 1 + bool(exempt)
        if exempt:
            assert groups[1]["weight_decay"] == 0.0
            assert {id(p) for p in groups[1]["params"]} == exempt
        assert (model.inner is not None) == bool(apart)
        unused = make(f"ibma_{bound}" if bound != "ibb" else "ibma", align=False)
        assert unused.leaves_parameters_unused == (bound in ("vib", "club"))


def test_frozen_parameters_are_not_learnt():
    model = make("ibma")
    frozen = next(model.encoders["view0"].parameters())
    frozen.requires_grad_(False)
    assert id(frozen) not in {id(p) for p in model.parameter_groups()[0]["params"]}


def test_an_entry_may_name_its_own_regime_of_phi():
    """Of its representations: what is left out is the problem's."""
    raw, own = Assignment(4.0, normalise=False), {"phi": "printed", "beta": 4.0}
    assert make("ibma", **own).bound.spec.assignment == raw
    assert make("ibma", phi="printed").bound.spec.assignment == replace(raw, beta=1.0)
    assert make("ibma", beta=0.5).bound.spec.assignment.beta == 0.5
    assert make("ibma").bound.spec.assignment == spec().assignment
    for wrong, said in (
        ({"phi": "flat"}, "phi: expected 'printed' or 'unit'"),
        ({"beta": -1}, "beta"),
    ):
        with pytest.raises(IbmaError, match=said):
            methods.check("ibma", wrong)
            make("ibma", **wrong)


def test_hyper_parameters_are_the_method_s_or_the_bound_s():
    mine, bound = Model.constructors({"align": False, "bound": "club", "pairwise": True})
    assert mine.label == "" and mine.function is Model.__init__
    assert mine.arguments == {"align": False, "bound": "club"}
    assert bound.label == "bound club" and bound.arguments == {"pairwise": True}
    assert bound.function is find_bound("club").__init__
    _, default = Model.constructors({})
    assert default.label == "bound ibb" and default.function is find_bound("ibb").__init__
    with pytest.raises(IbmaError, match="beta of a method 'ibma' is 0.0: expected above 0"):
        make("ibma", beta=0.0)
    with pytest.raises(IbmaError, match="^method 'ibma' needs an eta in"):
        methods.build("ibma", replace(spec(), eta=None))
    with pytest.raises(IbmaError, match="bound 'none': expected apib or "):
        find_bound("none")
