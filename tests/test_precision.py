"""What a GPU does, on the CPU: bfloat16, steps that never wait, texts of their own length.

And what a step must not do on any processor: take MKL's square roots.
"""

import traceback

import numpy as np
import pytest
import torch
from problems import BATCH, MEDIA, METHODS, VECTORS, Problem, one_percent
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ibma.errors import IbmaError
from ibma.features import store
from ibma.features.store import Placed, Streamed
from ibma.network import method as method_module
from ibma.network import tasks
from ibma.training import loop

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    loop.configure_torch(1, compiled=False)


def problems() -> dict[str, Problem]:
    kinds = ("multilabel", "one_class")
    return {"media": Problem(views=MEDIA), **{kind: Problem(kind) for kind in kinds}}


@pytest.fixture(scope="module", params=METHODS)
def trained(request) -> tuple[str, dict[str, loop.Fit]]:
    """A method, and its network for each problem after training: in its last phase, in float32."""
    loop.configure_torch(1, compiled=False)
    fits = {
        name: problem.fit(request.param, CPU, precision=torch.float32)
        for name, problem in (problems() | {"classify": Problem()}).items()
    }
    for fit in fits.values():
        fit.run("test")
        fit.model.train()
    return request.param, fits


def test_a_history_in_bfloat16_is_within_one_percent_of_float32(trained):
    method, fits = trained
    for name, problem in problems().items():
        half = problem.history(method, CPU, precision=torch.bfloat16)
        worst = one_percent(half, fits[name].history)
        assert worst < 1, f"{name}: {worst:.2f} %"


def test_the_one_percent_would_catch_losses_in_bfloat16(monkeypatch):
    """In many steps a sum in bfloat16 stops growing."""

    def many_steps(precision):
        fit = Problem().fit("ce3", CPU, precision=precision, batch_size=2, epochs=1)
        fit.rows = fit.rows.taking(np.tile(fit.rows.index, 5))
        fit.run("test")
        return fit.history

    full = many_steps(torch.float32)
    assert one_percent(many_steps(torch.bfloat16), full) < 1
    monkeypatch.setattr(method_module.Output, "float", lambda out: out)
    monkeypatch.setattr(tasks.Head, "forward", nn.Linear.forward)
    assert one_percent(many_steps(torch.bfloat16), full) > 1


def test_passes_before_an_epoch_run_in_the_networks_precision():
    problem = Problem("one_class")
    fit = problem.fit("ibma", CPU, precision=torch.bfloat16)
    kinds: set[torch.dtype] = set()
    layer = fit.model.encoders["left"].projection
    layer.register_forward_hook(lambda _, __, out: kinds.add(out.dtype))
    loop.centre_spheres(fit.model.eval(), fit.outputs())
    assert kinds == {torch.bfloat16}
    kinds.clear()
    fit.refresh()
    assert kinds == {torch.bfloat16}
    assert fit.model.bound.get_buffer("centroids_left").abs().sum() > 0
    kinds.clear()
    loop.predict(fit.model, problem.features.test(0), CPU, torch.bfloat16)
    assert kinds == {torch.bfloat16}


class HostReads(TorchDispatchMode):
    """Note who reads a tensor's value on the host; on a GPU each would wait for it."""

    # F.one_hot checks its range on the CPU only; the inner Adam counts its steps on the CPU
    HARMLESS = ("one_hot", "torch/optim/adam.py")

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, lists = str(function), [a for a in args if isinstance(a, list | tuple)]
        by_mask = name.startswith("aten.index.") and any(
            isinstance(one, Tensor) and one.dtype == torch.bool for each in lists for one in each
        )
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique")
        if by_mask or any(each in name for each in waits):
            stack = traceback.format_stack()
            if not any(each in line for line in stack for each in self.HARMLESS):
                self.found.add(f"{name}: {stack[-2]}")
        return function(*args, **(kwargs or {}))


class Roots(TorchDispatchMode):
    """Note square roots of tensors: MKL's differ in the last bit between processors.

    No switch holds MKL's functions of vectors to one code. Processors of Intel and AMD agreed on
    the others (exp, log), and two machines did not on this one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if ("sqrt" in name and "rsqrt" not in name) or (".pow." in name and 0.5 in args[1:]):
            self.found.add(f"{name}: {traceback.format_stack()[-2]}")
        return function(*args, **(kwargs or {}))


class AnyOrder(TorchDispatchMode):
    """Note what has no deterministic form on CUDA: training refuses it there."""

    # of torch.use_deterministic_algorithms; cumsum only of floats
    NAMES = (
        *("adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "avg_pool3d_backward"),
        *("pool3d_with_indices_backward", "fractional_max_pool", "max_unpool", "nll_loss2d"),
        *("upsample_linear1d_backward", "upsample_bilinear2d", "upsample_bicubic2d_backward"),
        *("upsample_trilinear3d_backward", "_pad1d_backward", "_pad2d_backward"),
        *("_pad3d_backward", "ctc_loss_backward", "embedding_bag", "aten.put_", "histc"),
        *("bincount", "kthvalue", "median.dim", "grid_sampler", "scatter_reduce"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        of_floats = isinstance(args[0], Tensor) and args[0].is_floating_point() if args else False
        if any(each in name for each in self.NAMES) or ("cumsum" in name and of_floats):
            self.found.add(name)
        return function(*args, **(kwargs or {}))


def test_a_step_has_the_same_bytes_each_time_on_a_gpu(trained):
    for name, fit in trained[1].items():
        batch = next(fit.rows.batches(16, CPU))
        with AnyOrder() as without:
            fit.step(batch, watched=True)
        assert not without.found, f"{name}: {without.found}"


def test_an_operation_without_a_deterministic_form_is_noticed_and_named(monkeypatch):
    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    with AnyOrder() as without:
        torch.nn.functional.interpolate(x, size=(8, 8), mode="bicubic").sum().backward()
    assert without.found == {"aten.upsample_bicubic2d_backward.default"}
    fit = Problem().fit("concat", CPU)

    def step(*_: object) -> None:  # as torch says it
        raise RuntimeError("upsample_x does not have a deterministic implementation, but you set")

    monkeypatch.setattr(fit, "step", step)
    with pytest.raises(IbmaError, match="mine: upsample_x does not have .* last layer only"):
        fit.run("mine")


def test_compiled_or_not_statistics_are_those_of_all_batches(monkeypatch):
    """The host counts batches; a compiled function would keep one count."""
    compile_, fits = torch.compile, []
    monkeypatch.setattr(
        torch, "compile", lambda f, dynamic=None: compile_(f, dynamic=dynamic, backend="eager")
    )
    for compiled in (False, True):
        fits.append(Problem().fit("concat", CPU, compiled=compiled))
        fits[-1].run("test")
    plain, compiled = (fit.model.state_dict() for fit in fits)
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, msg=name)


def test_a_step_never_reads_a_tensor_on_the_host_nor_takes_a_root_by_mkl(trained):
    for name, fit in trained[1].items():
        batch = next(fit.rows.batches(16, CPU))
        with HostReads() as reads, Roots() as roots:
            fit.step(batch, watched=True)
        assert not reads.found | roots.found, f"{name}: {reads.found | roots.found}"


def test_a_read_on_the_host_and_a_root_are_noticed():
    with HostReads() as reads, Roots() as roots:
        float(torch.ones(3).sum())
        torch.ones(2).sqrt()
        torch.ones(2) ** 0.5
    assert len(reads.found) == 1 and len(roots.found) == 2


def test_layers_of_a_transformer_are_compiled_once(monkeypatch):
    """And only in batches of the usual size; every other encoder is compiled whole."""
    compiled, called = [], []

    def compile_(forward, dynamic=None):
        assert (dynamic is False) == (type(forward.__self__).__name__ in ("Encoder", "Model"))
        compiled.append(forward.__self__)
        return lambda *x, **more: called.append(forward.__self__) or forward(*x, **more)

    monkeypatch.setattr(torch, "compile", compile_)
    problem = Problem(views=MEDIA)
    fit = problem.fit("concat", CPU, compiled=True, epochs=1)
    encoders = fit.model.encoders
    names = {name: [type(m).__name__ for m in encoders[name].modules()] for name in encoders}
    assert [type(one).__name__ for one in compiled] == ["Encoder", "ViTLayer", "BertLayer"]
    assert names["image"].count("ViTLayer") == names["text"].count("BertLayer") == 1
    fit.run("compiled")
    whole = len(fit.rows.index) // BATCH
    assert len(called) == 3 * whole and len(fit.rows.index) % BATCH
    assert fit.history == problem.history("concat", CPU, epochs=1)
    assert all("forward" not in vars(layer) for layer in compiled)
    compiled.clear()
    Problem(views={name: MEDIA["audio"] for name in ("a", "b")}).fit("concat", CPU, compiled=True)
    assert len(compiled) == 1, "a network without transformers, as one"


def test_texts_are_cut_to_the_longest_of_their_batch():
    features = Problem(views=MEDIA).features
    whole, lengths = features.on(CPU), features.lengths["text"]
    ids = features.arrays["text"]
    assert lengths.tolist() == [row.nonzero()[0].max() + 1 if row.any() else 0 for row in ids]
    parts = [(rows, 1.0) for rows in features.training(0).shuffled(8, 0, 0)]
    for kind in (Placed, Streamed):
        cut = kind(whole.x, whole.y, features.lengths).load(parts)
        for (rows, _), short, full in zip(parts, cut, whole.load(parts), strict=True):
            width = short.x["text"].shape[1]
            assert width == full.x["text"].shape[1] or width % store.WIDTHS == 0
            assert width - lengths[rows].max() < store.WIDTHS
            assert torch.equal(short.x["text"], full.x["text"][:, :width])
            assert not full.x["text"][:, width:].any()
            assert torch.equal(short.x["image"], full.x["image"])


def test_cut_texts_give_the_same_history(monkeypatch):
    """Without dropout; its masks depend on shapes."""
    full, problem = Problem(views=MEDIA).history("ibma", CPU), Problem(views=MEDIA)
    whole = problem.features.on(CPU)
    short = Placed(whole.x, whole.y, problem.features.lengths)
    monkeypatch.setitem(problem.features._placed, CPU, short)
    for name, values in problem.history("ibma", CPU).items():
        assert values == pytest.approx(full[name], rel=1e-4, abs=1e-5), name


def test_batches_by_length_hold_every_row_and_less_padding():
    rows, lengths = (one := Problem(views=MEDIA).features).training(0), one.lengths["text"]

    def padding(batches):
        return sum(int((lengths[one].max() - lengths[one]).sum()) for one in batches)

    plain, by_length = rows.shuffled(4, 0, 0), rows.shuffled(4, 0, 0, by_length=True)
    assert sorted(np.concatenate(by_length)) == sorted(np.concatenate(plain)) == list(rows.index)
    assert padding(by_length) < 0.5 * padding(plain)
    again, other = (rows.shuffled(4, 0, epoch, by_length=True) for epoch in (0, 1))
    assert all(map(np.array_equal, by_length, again))
    assert not all(map(np.array_equal, by_length, other))
    longest = [int(lengths[one].max()) for one in by_length]
    assert longest != sorted(longest), "batches are shuffled again"
    vectors = Problem(views=VECTORS).features.training(0)
    same = zip(vectors.shuffled(16, 0, 0), vectors.shuffled(16, 0, 0, by_length=True), strict=True)
    assert all(np.array_equal(a, b) for a, b in same), "without texts the order stays"


def test_training_and_benchmarks_share_one_setup():
    for compiled, deterministic in ((False, False), (True, True), (False, True)):
        loop.configure_torch(1, compiled, deterministic)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.backends.cudnn.benchmark is not deterministic
        assert torch.get_num_threads() == 1
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
