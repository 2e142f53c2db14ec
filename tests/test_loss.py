"""The losses of `ibma` in loops of one's own: the pipeline's terms, masks, state, precision.

Two processes run this file as a script.
"""

import itertools
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from ibma import CLUBLoss, IBBLoss, PluginIBLoss, VIBLoss, methods
from ibma.errors import IbmaError
from ibma.features.store import Batch
from ibma.network import distributed, tasks
from ibma.network.centroids import Assignment
from ibma.network.method import FUSED, Method, Modality, Spec

SRC = Path(distributed.__file__).parents[2]
LOSSES = {"ibb": IBBLoss, "plugin": PluginIBLoss, "club": CLUBLoss, "vib": VIBLoss}


def views(names: list[str], n: int = 24) -> tuple[dict[str, Tensor], Tensor]:
    """Noisy views [n, 3] of three classes [n]."""
    random, y = torch.Generator().manual_seed(0), torch.arange(n) % 3
    return {v: F.one_hot(y, 3) + 0.4 * torch.randn(n, 3, generator=random) for v in names}, y


@pytest.mark.parametrize("loss", [IBBLoss, PluginIBLoss])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_batch_that_is_no_number_costs_one_refresh(loss, wrong):
    """As a scaler of gradients skips it: centroids and Q stay, which a warning says."""
    z, y = views(["a", "b"])
    bound = loss(["a", "b"], num_classes=3, dim=3)
    phi = bound.assign_inputs(z, y)
    more = {"phi_x": phi} if loss is PluginIBLoss else {}
    for _ in range(3):
        bound.start_epoch()
        bound(z, y, **more)
    before = {name: value.clone() for name, value in bound.bound.named_buffers()}
    assert not bound({**z, "a": z["a"] * wrong}, y, **more).isfinite()
    with pytest.warns(UserWarning, match="a batch held NaN or infinity"):
        bound.start_epoch()
    after = dict(bound.bound.named_buffers())
    for name in (name for name in after if name.startswith(("q_", "centroids_"))):
        assert torch.equal(after[name], before[name]), name
    assert bound(z, y, **more).isfinite()
    bound.start_epoch()
    assert bound(z, y, **more).isfinite()


@pytest.mark.parametrize("mean", [0.0, 5.0, 20.0, 100.0])
@pytest.mark.parametrize("width", [8, 512])
def test_phi_that_rounding_moves_visibly_comes_with_a_warning(mean, width):
    """Without the warning phi is that of float64, up to a hundredth."""
    random, y = torch.Generator().manual_seed(0), torch.arange(300) % 3
    z = {"a": mean + 0.05 * torch.randn(300, width, generator=random)}
    bound = IBBLoss(["a"], num_classes=3, dim=width)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        bound.assign_inputs(z, y)
        bound.start_epoch([(z, y)])
    centroids = bound.bound.get_buffer("centroids_a")
    assignment = bound.spec.assignment
    exact = assignment.phi(z["a"].double(), centroids.double())
    off = float((assignment.phi(z["a"], centroids) - exact).abs().max())
    warned = ["a: far from zero" in str(one.message) for one in told]
    assert warned == ([True, True] if (mean, width) in ((20.0, 512), (100.0, 512)) else [])
    assert bool(warned) == (off > 0.01)


class Net(nn.Module):
    """What a user brings: an encoder a modality, a fusion, a head."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({name: nn.Linear(3, 8) for name in names})
        self.fuse, self.head = nn.Linear(8 * len(names), 8), nn.Linear(8, 3)

    def forward(self, x: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        z = {name: encoder(x[name]) for name, encoder in self.encoders.items()}
        return z, self.fuse(torch.cat(list(z.values()), dim=1)).relu()


def in_the_pipeline(names: list[str], kind: str, bound: str) -> Method:
    torch.manual_seed(0)
    spec = Spec(
        modalities=dict.fromkeys(names, Modality("vector", (3,), {"name": "mlp", "hidden": [8]})),
        task=tasks.build(kind, ["0", "1", "2"]),
        width=8,
        heads=2,
        epochs=5,
        systems=(1, 3) if kind == "classify" else (3, 2),
        assignment=Assignment(4.0, normalise=True),
        eta=0.5,
        input_widths=dict.fromkeys(names, 3),
    )
    return methods.build("ibma", spec, bound=bound)


@pytest.mark.parametrize("bound", LOSSES)
def test_a_loop_of_ones_own_gives_the_pipelines_terms(bound):
    """Same network, same batches: with or without a pass first, with or without missing parts."""
    cases = itertools.product(("classify", "multilabel"), (2, 3), (True, False), (True, False))
    for kind, modalities, with_pass, with_mask in cases:
        where = f"{kind}, {modalities} modalities, pass: {with_pass}, mask: {with_mask}"
        names = ["a", "b", "c"][:modalities]
        x, y = views(names)
        mask = {"a": torch.arange(len(y)) % 4 != 0} if with_mask else {}
        labels = y if kind == "classify" else F.one_hot(y, 3).float()
        model = in_the_pipeline(names, kind, bound)
        more = {"input_widths": dict.fromkeys(names, 3)} if bound == "club" else {}
        more |= {"beta": 4.0, "phi": "unit"} if bound in ("ibb", "plugin") else {}
        ours = LOSSES[bound](names, 3, 8, kind, **more)
        phi_x = ours.assign_inputs(x, labels)
        ours.bound.load_state_dict(model.bound.state_dict())  # learnt parts start alike
        masks = {f"present/{name}": rows for name, rows in mask.items()}
        data = Batch(x | masks, labels, torch.arange(len(y)), phi_x=phi_x, inputs=x)
        optimiser = torch.optim.Adam(model.parameter_groups(), lr=0.03)
        for epoch in range(5):
            with torch.no_grad():
                seen = [(model.eval()(data.x), data)] if with_pass or epoch else []
                model.before_epoch(epoch, lambda seen=seen: seen)
            model.train()
            first = [(out.z, labels, out.fused, mask) for out, _ in seen]
            if bound != "vib":  # which keeps nothing of the training data
                ours.start_epoch(first if epoch == 0 and with_pass else None)
            ours.epoch = epoch + 1
            for _ in range(3):
                out = model(data.x)
                if bound == "vib":
                    ours.bound.load_state_dict(model.bound.state_dict())
                    ours._transformed = {*names, "fused"}
                model.inner_step(out, data)
                terms = model.losses(out, data)
                found = ours.terms(
                    out.z, labels, out.fused, mask, logits=out.logits, inputs=x, phi_x=phi_x
                )
                for name, value in found.items():
                    at = f"{where}: {name} in epoch {epoch}"
                    torch.testing.assert_close(0.5 * value, terms[name], rtol=0, atol=1e-6, msg=at)
                assert len(found) == len([t for t in terms if not t.startswith("ce/")]), where
                optimiser.zero_grad()
                torch.stack(list(terms.values())).sum().backward()
                optimiser.step()
                if bound == "club":  # its critics learn with the network
                    ours.bound.critics.load_state_dict(model.bound.critics.state_dict())
        if bound == "ibb":
            assert ours.regime()["fused"] < 0.99, "compared where the bound is constant"


def train(net: Net, loss: nn.Module, x: dict[str, Tensor], y: Tensor, epochs: int, **more) -> list:
    """The ten lines of the README; what the loss gave in each step."""
    optimiser = torch.optim.Adam([*net.parameters(), *loss.parameters()], lr=0.02)
    values = []
    for _ in range(epochs):
        loss.start_epoch()
        for rows in torch.arange(len(y)).split(12):
            z, h = net({name: value[rows] for name, value in x.items()})
            given = {k: {n: v[rows] for n, v in named.items()} for k, named in more.items()}
            bound = loss(z, y[rows], fused=h, **given)
            total = F.cross_entropy(net.head(h), y[rows]) + 0.5 * bound
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            values.append(float(bound.detach()))
    return values


def test_ten_lines_learn_and_the_bound_leaves_its_constant():
    x, y = views(["image", "text"], 60)
    net, ibb = Net(["image", "text"]), IBBLoss(["image", "text"], num_classes=3, dim=8)
    values = train(net, ibb, x, y, 8)
    steps = len(values) // 8
    assert values[: 2 * steps] == pytest.approx([3 * math.log(3)] * 2 * steps, abs=1e-5)
    assert values[-1] < 0.7 * values[0]
    assert all(flat < 0.9 for flat in ibb.regime().values())
    z, h = net(x)
    assert float((net.head(h).argmax(1) == y).float().mean()) > 0.9


def test_one_to_four_modalities_have_a_term_for_each_pair_and_one_for_a_fusion():
    for names, fused in itertools.product((["a"], ["a", "b"], ["a", "b", "c", "d"]), (True, False)):
        x, y = views(names)
        z, h = Net(names)(x)
        ibb = IBBLoss(names, 3, 8)
        ibb.start_epoch()
        if len(names) == 1 and not fused:
            with pytest.raises(IbmaError, match="no term"):
                ibb(z, y)
            continue
        terms = ibb.terms(z, y, h if fused else None)
        assert len(terms) == len(names) * (len(names) - 1) + fused


def test_what_is_missing_counts_for_nothing():
    """Of samples given twice, once without `a`: its terms are halved, the others stay."""
    x, y = views(["a", "b"])
    net, n = Net(["a", "b"]), len(y)
    there = torch.arange(2 * n) < n
    twice = {name: value.repeat(2, 1) for name, value in x.items()}
    twice["a"] = twice["a"].masked_fill(~there[:, None], float("nan"))
    for bound in ("ibb", "plugin"):
        once, holed = (LOSSES[bound](["a", "b"], 3, 8) for _ in range(2))
        phi_x, _ = (one.assign_inputs(x, y) for one in (once, holed))
        phi_twice = {name: value.repeat(2, 1, 1) for name, value in phi_x.items()}
        for epoch in range(4):
            z, h = net({name: (1 + epoch) * value for name, value in x.items()})
            both = net({name: (1 + epoch) * value for name, value in twice.items()})[0]
            once.start_epoch()
            holed.start_epoch()
            whole = once.terms(z, y, h, phi_x=phi_x)
            given = (both, y.repeat(2), h.repeat(2, 1), {"a": there})
            found = holed.terms(*given, phi_x=phi_twice)
            for name, value in found.items():
                if name != "compress/fused":  # a sum over the modalities
                    share = 0.5 if "a" in name.partition("/")[2].split("|") else 1.0
                    expected = (share * whole[name]).detach()
                    torch.testing.assert_close(value.detach(), expected)
        hollow = {name: value.detach().requires_grad_() for name, value in both.items()}
        holed(hollow, *given[1:], phi_x=phi_twice).backward()
        assert all(value.grad.isfinite().all() for value in hollow.values())
        assert (hollow["a"].grad[n:] == 0).all() and (hollow["a"].grad[:n] != 0).any()
        given = (both, y.repeat(2), h.repeat(2, 1).detach(), {"a": torch.zeros_like(there)})
        nobody = holed.terms(*given, phi_x=phi_twice)
        assert all(value.isfinite() for value in nobody.values())


def test_an_unknown_label_has_no_cross_entropy():
    club = started(CLUBLoss(["a"], 2, 4, "multilabel", align=False, input_widths={"a": 4})).eval()
    z, logits = torch.randn(2, 4), torch.tensor([[1.0, -30.0], [2.0, 0.5]])

    def predicted(unknown: float) -> Tensor:
        y = torch.tensor([[1.0, unknown], [0.0, 1.0]])
        return club.terms({"a": z}, y, z, logits=logits, inputs={"a": z})["predict"]

    known = F.binary_cross_entropy_with_logits(logits, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert predicted(0.0) == pytest.approx(float(known))
    by_hand = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2)) + math.log1p(math.exp(-0.5))) / 4
    assert predicted(-1.0) == predicted(math.nan) == pytest.approx(by_hand)


def test_training_goes_on_from_a_state_as_if_nothing_had_happened():
    names = ["a", "b"]
    x, y = views(names)
    for bound in LOSSES:
        torch.manual_seed(1)
        whole, cut, again = (new(bound) for _ in range(3))
        cut.load_state_dict(whole.state_dict())
        given = {"inputs": x} if bound == "club" else {}
        if bound == "plugin":
            given = {"phi_x": whole.assign_inputs(x, y)}
        run = transformed if bound == "vib" else values_of
        expected = run(whole, x, y, 6, given)
        first = run(cut, x, y, 3, given)
        state = cut.state_dict()
        if bound in ("ibb", "plugin", "vib"):  # tensors only
            state = load(save(state))
        again.load_state_dict(state)
        assert first + run(again, x, y, 3, given, 3) == pytest.approx(expected, abs=1e-6), bound


def new(bound: str) -> nn.Module:
    more = {"input_widths": {"a": 3, "b": 3}} if bound == "club" else {}
    return LOSSES[bound](["a", "b"], 3, 8, **more)


def values_of(loss, x, y, epochs, given, start=0) -> list[float]:
    """The loss on representations that drift from epoch to epoch."""
    net, found = Net(["a", "b"]), []
    for epoch in range(start, start + epochs):
        loss.start_epoch()
        z, h = net({name: (1.0 + 0.2 * epoch) * value for name, value in x.items()})
        found.append(float(loss(z, y, fused=h, **given).detach()))
    return found


def transformed(loss, x, y, epochs, given, start=0) -> list[float]:
    net, found = Net(["a", "b"]), []
    for epoch in range(start, start + epochs):
        loss.start_epoch()
        torch.manual_seed(epoch)
        z, h = net(x)
        z = {name: loss.transform(name, value) for name, value in z.items()}
        found.append(float(loss(z, y, fused=loss.transform("fused", h)).detach()))
    return found


def test_both_forms_of_vib_and_club_train_a_network():
    names = ["a", "b"]
    x, y = views(names)
    for loss in (VIBLoss(names, 3, 8), VIBLoss(names, 3, 8, form="posterior")):
        net, start = Net(names), transformed(loss, x, y, 1, {})[0]
        optimiser = torch.optim.Adam([*net.parameters(), *loss.parameters()], lr=0.02)
        for _ in range(30):
            z, h = net(x)
            z = {name: loss.transform(name, value) for name, value in z.items()}
            optimiser.zero_grad()
            loss(z, y, fused=loss.transform("fused", h)).backward()
            optimiser.step()
        assert transformed(loss, x, y, 1, {})[0] < start
        with pytest.raises(IbmaError, match=r"transform\(\)"):
            loss(z, y, fused=h)
    club = CLUBLoss(names, 3, 8, input_widths={"a": 3, "b": 3})
    before = {name: value.clone() for name, value in club.bound.q.state_dict().items()}
    values = train(Net(names), club, x, y, 20, inputs=x)
    assert all(map(math.isfinite, values))
    after = club.bound.q.state_dict()
    assert all((after[name] != value).any() for name, value in before.items())
    assert all(p.grad is None for p in club.bound.q.parameters())


def test_autocast_does_not_reach_the_bound():
    x, y = views(["a", "b"])
    net, ibb, same = Net(["a", "b"]), IBBLoss(["a", "b"], 3, 8), IBBLoss(["a", "b"], 3, 8)
    for _ in range(4):
        ibb.start_epoch()
        same.start_epoch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z, h = net(x)
            assert z["a"].dtype == torch.bfloat16
            value = ibb(z, y, fused=h)
        full = same({name: each.float() for name, each in z.items()}, y, fused=h.float())
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full, rtol=0, atol=0)
    value.backward()


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_a_loss_cast_with_its_network_is_computed_in_float32(kind):
    x, y = views(["a", "b"])
    widths = {name: value.shape[1] for name, value in x.items()}
    for make in (
        lambda: IBBLoss(["a", "b"], 3, 8),
        lambda: CLUBLoss(["a", "b"], 3, 8, input_widths=widths),
        lambda: VIBLoss(["a", "b"], 3, 8),
        lambda: VIBLoss(["a", "b"], 3, 8, form="posterior"),
    ):
        values = []
        for cast in (torch.float32, kind):
            torch.manual_seed(0)
            loss = make().to(cast)
            held = [*loss.buffers(), *loss.parameters()]
            assert {one.dtype for one in held if one.is_floating_point()} == {torch.float32}
            z = {name: torch.randn(len(y), 8).to(kind).to(cast) for name in ("a", "b", FUSED)}
            if isinstance(loss, VIBLoss):
                z = {name: loss.transform(name, value) for name, value in z.items()}
                assert {value.dtype for value in z.values()} == {cast}
            h = z.pop(FUSED)
            loss.start_epoch()
            values.append(loss(z, y, h, inputs=x if isinstance(loss, CLUBLoss) else None))
        assert values[1].dtype == torch.float32
        torch.testing.assert_close(*values, rtol=1e-2, atol=0)


def test_evaluation_leaves_the_sums_alone():
    x, y = views(["a", "b"])
    net, ibb = Net(["a", "b"]), IBBLoss(["a", "b"], 3, 8)
    ibb.start_epoch()
    state = {k: v.clone() for k, v in ibb.state_dict().items()}
    z, h = net(x)
    with torch.no_grad():
        ibb(z, y, fused=h)
    ibb.eval()(z, y, fused=h)
    for name, value in ibb.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    ibb.train()(z, y, fused=h)
    assert float(ibb.bound.counts_fused.sum()) == len(y)


def started(loss):
    loss.start_epoch()
    return loss


def test_wrong_use_ends_in_one_line():
    x, y = views(["a", "b"])
    z, h = Net(["a", "b"])(x)
    ibb = IBBLoss(["a", "b"], 3, 8)
    with pytest.raises(IbmaError, match="call start_epoch"):
        ibb(z, y, fused=h)
    ibb.start_epoch()
    for said, use in (
        ("expected one each of a, b", lambda: ibb({"a": z["a"]}, y)),
        (r"a: shape \(24, 5\)", lambda: ibb(z | {"a": z["a"][:, :5]}, y)),
        ("expected class indices", lambda: ibb(z, y.float())),
        ("without a sample", lambda: ibb({name: one[:0] for name, one in z.items()}, y[:0])),
        ("target='clasify'", lambda: IBBLoss(["a"], 3, 8, "clasify")),
        ("phi='raw'", lambda: IBBLoss(["a"], 3, 8, phi="raw")),
        ("different names", lambda: IBBLoss(["a", "a"], 3, 8)),
        ("different names", lambda: IBBLoss("ab", 3, 8)),
        ("another name", lambda: IBBLoss(["fused"], 3, 8)),
        ("another name", lambda: IBBLoss(["type"], 3, 8)),
        (r"without \. and", lambda: IBBLoss(["a.b"], 3, 8)),
        ("different names", lambda: IBBLoss({"a", "b"}, 3, 8)),
        ("no width for b", lambda: IBBLoss(["a", "b"], 3, {"a": 4})),
        ("positive", lambda: IBBLoss(["a"], 0, 8)),
        ("positive", lambda: IBBLoss(["a"], 3.0, 8)),
        ("positive", lambda: IBBLoss(["a"], 3, "8")),
        *(("beta=", lambda b=beta: IBBLoss(["a"], 3, 8, beta=b)) for beta in (-1, "1", math.nan)),
        ("align='no'", lambda: IBBLoss(["a"], 3, 8, align="no")),
        *((r"expected 0 to 2", lambda y=label: ibb(z, y)) for label in (y + 1, y - 100)),
        ("labels: y: list", lambda: ibb(z, y.tolist())),
        ("labels: y: torch.complex64", lambda: ibb(z, y.to(torch.complex64))),
        ("mask of c: expected some of a, b", lambda: ibb(z, y, mask={"c": y > 0})),
        (r"expected bool \(24,\)", lambda: ibb(z, y, mask={"a": y})),
        (r"expected bool \(24,\)", lambda: ibb(z, y, mask={"a": y[:, None] > 0})),
        ("a: ndarray", lambda: ibb({name: value.detach().numpy() for name, value in z.items()}, y)),
        ("a: torch.complex64", lambda: ibb({name: value + 0j for name, value in z.items()}, y)),
        ("torch.sparse_coo", lambda: ibb({name: one.to_sparse() for name, one in z.items()}, y)),
        ("seen: a batch of type dict", lambda: ibb.start_epoch([{"z": z}])),
        (r"expected 0 or 1, \[B, 3\]", lambda: IBBLoss(["a", "b"], 3, 8, "multilabel")._labels(y)),
        ("phi_x: NoneType", lambda: started(PluginIBLoss(["a", "b"], 3, 8))(z, y)),
        (
            r"phi_x: a: shape \(5, 1, 3\)",
            lambda: started(PluginIBLoss(["a", "b"], 3, 8))(
                z, y, phi_x={name: torch.zeros(5, 1, 3) for name in z}
            ),
        ),
        ("dim has no width for fused", lambda: IBBLoss(["a", "b"], 3, {"a": 8, "b": 8})),
        (
            "no term",
            lambda: started(CLUBLoss(["a"], 3, 8, align=False, input_widths={"a": 4}))(
                {"a": z["a"]}, y, inputs={"a": torch.zeros(24, 4)}
            ),
        ),
        ("width for b", lambda: CLUBLoss(["a", "b"], 3, 8, input_widths={"a": 4})),
        (
            "inputs of a: expected one each of a, b",
            lambda: started(CLUBLoss(["a", "b"], 3, 8, input_widths={"a": 4, "b": 4}))(
                z, y, inputs={"a": torch.zeros(24, 4)}
            ),
        ),
        (r"c: shape \(24, 8\)", lambda: VIBLoss(["a"], 3, 8).transform("c", z["a"])),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            use()
        assert isinstance(caught.value, IbmaError) and "\n" not in str(caught.value)


def in_parts(rank: int, world: int) -> dict[str, float]:
    """Loss and gradient of each step, from every `world`-th sample of each batch."""
    names = ["a", "b"]
    x, y = views(names, 48)
    mask = torch.arange(48) % 5 != 0
    found = {}
    losses = {"ibb": IBBLoss(names, 3, 8), "plugin": PluginIBLoss(names, 3, 8)}
    for bound, loss in losses.items():
        net = Net(names)
        phi_x = loss.assign_inputs(x, y)
        for epoch in range(4):
            loss.start_epoch()
            for step, rows in enumerate(torch.arange(48).split(24)):
                own = rows[rank::world]
                z, h = net({name: value[own] for name, value in x.items()})
                given = {name: value[own] for name, value in phi_x.items()}
                value = loss(z, y[own], fused=h, mask={"a": mask[own]}, phi_x=given)
                net.zero_grad()
                value.backward()
                if bound == "plugin":  # its value is no mean over samples: marginals alone agree
                    value = loss.bound.marginal_fused.square().sum()
                totals = [value.detach().clone(), *(p.grad for p in net.encoders.parameters())]
                distributed.add_up(totals)
                numbers = [float(total.sum()) / world for total in totals]
                found[f"{bound}/{epoch}/{step}/loss"] = numbers[0]
                if bound == "ibb":
                    found[f"{bound}/{epoch}/{step}/gradient"] = sum(numbers[1:])
    return found


def test_two_processes_give_the_numbers_of_one(tmp_path):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    command = (*launcher, "--nproc-per-node", "2", __file__, str(tmp_path / "two.json"))
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "two.json").read_text())
    assert two == pytest.approx(in_parts(0, 1), abs=1e-5)


if __name__ == "__main__":
    distributed.begin()
    result = in_parts(distributed.rank(), distributed.world())
    if distributed.rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(result))
