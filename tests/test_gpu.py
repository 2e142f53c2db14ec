"""On a GPU: every method trains, as on the CPU, twice the same, without waiting for it.

It needs torch, transformers, NumPy, SciPy, scikit-learn and pytest alone:
`pytest -m gpu tests/test_gpu.py`.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import BATCH, BERT, MEDIA, METHODS, VIT, Problem, one_percent
from torch import Tensor, nn

from ibma import IBMAClassifier
from ibma.features import store
from ibma.features.store import Streamed
from ibma.network import distributed
from ibma.training import loop

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.fixture(autouse=True)
def shared_setup():
    loop.configure_torch(1, compiled=False)


@pytest.fixture
def quiet(monkeypatch):
    """No dropout, the same noise in every step and texts as they are stored: alike on each device.

    Steps are replayed all the same, so that what equals the CPU is what training does.
    """
    drop = nn.functional.dropout

    def noise(*shape: int, device: torch.device = CPU, **more: object) -> Tensor:
        return torch.arange(math.prod(shape), device=device).float().sin().reshape(shape)

    monkeypatch.setattr(torch, "randn", noise)
    monkeypatch.setattr(
        torch, "randn_like", lambda like, **more: noise(*like.shape, device=like.device)
    )
    monkeypatch.setattr(nn.functional, "dropout", lambda x, p=0.5, *rest, **more: drop(x, 0.0))
    monkeypatch.setattr(store.Features, "lengths", {})
    heads = nn.MultiheadAttention.__init__

    def without_dropout(module, *sizes, **more):
        heads(module, *sizes, **(more | {"dropout": 0.0}))

    monkeypatch.setattr(nn.MultiheadAttention, "__init__", without_dropout)


def problems(**encoder: object) -> dict[str, Problem]:
    kinds = ("multilabel", "one_class")
    return {"media": Problem(views=MEDIA, **encoder), **{kind: Problem(kind) for kind in kinds}}


def state_of(fit: loop.Fit) -> dict[str, Tensor]:
    return {name: value.cpu().clone() for name, value in fit.model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("method", METHODS)
def test_two_epochs_are_finite_and_twice_the_same(method):
    """In bfloat16, with dropout, texts by length; the loop refuses a loss that is not finite."""
    for name, problem in problems(dropout=0.1).items():
        fits = [problem.fit(method, GPU, lr=1e-3) for _ in range(2)]
        for fit in fits:
            fit.run(name)
            logits, _ = loop.predict(fit.model, problem.features.test(0), GPU)
            assert logits.dtype == torch.float32 and logits.isfinite().all(), name
        assert fits[0].history == fits[1].history, name
        assert same(*map(state_of, fits)), name


def test_attention_over_many_tokens_is_twice_the_same():
    """As many as ViT-B has, with its width of a head: sums over blocks of tokens have an order."""
    vit = VIT | {"hidden_size": 128}
    problem = Problem(views=MEDIA | {"image": ("image", (3, 112, 112), vit)}, dropout=0.1)
    fits = [problem.fit("ibma", GPU, lr=1e-3, epochs=4) for _ in range(2)]
    for fit in fits:
        fit.run("many tokens")
    assert fits[0].history == fits[1].history
    assert same(*map(state_of, fits))


def test_long_texts_are_twice_the_same(monkeypatch):
    """Gradients of over 128 tokens are sums of several blocks, whose order must be fixed."""
    monkeypatch.setattr(store.Features, "lengths", {})  # all as long as they are stored
    bert = BERT | {"max_length": 256, "hidden_size": 128}
    problem = Problem(views=MEDIA | {"text": ("text", (256,), bert)}, dropout=0.1)
    fits = [problem.fit("ibma", GPU, lr=1e-3, epochs=4) for _ in range(2)]
    for fit in fits:
        fit.run("long texts")
    assert fits[0].history == fits[1].history
    assert same(*map(state_of, fits))


def test_estimators_with_weighted_classes_are_twice_the_same():
    draw = np.random.default_rng(0)
    x = {
        "a": draw.integers(0, 255, (64, 3, 16, 16), dtype=np.uint8),
        "b": draw.normal(size=(64, 4)),
    }
    options = {"device": "cuda", "epochs": 3, "random_state": 0, "class_weight": "balanced"}
    ones = [IBMAClassifier(**options).fit(x, np.arange(64) % 3) for _ in range(2)]
    assert np.array_equal(*(one.predict_proba(x) for one in ones))
    assert torch.get_deterministic_debug_mode() == 2, "as this test's set-up left it"


@pytest.mark.parametrize("method", METHODS)
def test_float32_equals_the_cpu(quiet, method):
    for name, problem in problems().items():
        ours, theirs = (
            problem.history(method, device, precision=torch.float32, lr=1e-5)
            for device in (GPU, CPU)
        )  # Adam makes a whole step of a gradient that is rounding alone
        for term, values in ours.items():
            assert values == pytest.approx(theirs[term], rel=1e-4, abs=1e-4), f"{name} {term}"


@pytest.mark.parametrize("method", METHODS)
def test_a_history_in_bfloat16_is_within_one_percent_of_float32(quiet, method):
    for name, problem in problems().items():
        half, full = (
            problem.history(method, GPU, precision=each) for each in (None, torch.float32)
        )
        worst = one_percent(half, full)
        assert worst < 1, f"{name}: {worst:.2f} %"


@pytest.mark.parametrize("method", ["ibma", "ibma_club", "dclf", "omib"])
def test_streamed_features_give_the_bytes_of_resident_ones(method, monkeypatch):
    resident = Problem(views=MEDIA, dropout=0.1).fit(method, GPU)
    resident.run("resident")
    monkeypatch.setattr(store, "_fit", lambda x, device: False)
    streamed = Problem(views=MEDIA, dropout=0.1).fit(method, GPU)
    assert isinstance(streamed.rows.features.on(GPU), Streamed)
    streamed.run("streamed")
    assert streamed.history == resident.history
    assert same(state_of(streamed), state_of(resident))


@pytest.mark.parametrize("method", METHODS)
def test_replayed_steps_equal_steps_made_one_by_one(quiet, method):
    """To rounding, and without dropout."""
    problem = Problem(views=MEDIA)
    replayed, single = (
        problem.fit(method, GPU, epochs=4, precision=torch.float32) for _ in range(2)
    )
    assert replayed.replays
    single.replays = False
    replayed.run("replayed")
    single.run("single")
    for term, values in replayed.history.items():
        assert values == pytest.approx(single.history[term], rel=1e-5, abs=1e-5), term


@pytest.mark.parametrize("method", ["ibma", "ibma_club", "omib", "misa"])
def test_a_killed_run_resumes_to_the_same_bytes(method, tmp_path: Path, monkeypatch):
    problem = Problem(views=MEDIA, dropout=0.1)
    options = {"epochs": 4, "lr": 1e-3, "key": "k"}
    whole = problem.fit(method, GPU, **options)
    whole.run("undisturbed")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    killed = problem.fit(method, GPU, checkpoint=tmp_path / "state.pt", **options)
    one_epoch = killed._one_epoch

    def dies_in_epoch_3():
        if killed.epoch == 2:
            raise KeyboardInterrupt
        return one_epoch()

    killed._one_epoch = dies_in_epoch_3
    with pytest.raises(KeyboardInterrupt):
        killed.run("killed")
    resumed = problem.fit(method, GPU, checkpoint=tmp_path / "state.pt", **options)
    resumed.run("resumed")
    assert len(resumed.seconds) == 4 and resumed.history == whole.history
    assert same(state_of(resumed), state_of(whole))


@pytest.mark.parametrize("method", METHODS)
def test_an_epoch_never_waits_for_the_gpu(method):
    """Batches, refresh and steps; the one read of the losses comes after them."""
    for problem in problems(dropout=0.1).values():
        fit = problem.fit(method, GPU)
        fit.run("into the last phase of every method")
        batches = fit.rows.shuffled(BATCH, 0, 0, by_length=True)
        shares = list(map(distributed.share, batches))
        fit.model.train()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for batch in fit.rows.load(shares, GPU):
                fit.step(batch, watched=True)
            fit.refresh()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_pinned_reads_ahead_arrive_whole(monkeypatch):
    """Every batch of a streamed epoch has the rows that it names."""
    monkeypatch.setattr(store, "_fit", lambda x, device: False)
    problem = Problem(views=MEDIA)
    rows = problem.rows(GPU)
    batches = [(rows_, 1.0) for rows_ in rows.shuffled(BATCH, 0, 0)]
    for (index, _), batch in zip(batches, rows.load(batches, GPU), strict=True):
        assert batch.index.tolist() == index.tolist()
        image = np.asarray(problem.features.arrays["image"])[index]
        assert np.array_equal(batch.x["image"].cpu().numpy(), image)
        text = batch.x["text"].cpu().numpy()
        assert np.array_equal(text, problem.features.arrays["text"][index][:, : text.shape[1]])
