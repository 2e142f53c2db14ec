"""Grad-CAM on pictures whose class shows in a known corner."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import cell_over, golden
from torch import nn

from ibma.datasets import Card, Counts, Dropped, Sample
from ibma.errors import IbmaError
from ibma.experiments import gradcam
from ibma.features.extract import extract
from ibma.features.store import Batch
from ibma.network import encoders, tasks
from ibma.network.centroids import Assignment, write_all
from ibma.network.method import Output
from ibma.report import figures
from ibma.training.cell import Setting
from ibma.training.loop import Fit, configure_torch

CPU = torch.device("cpu")
SIZE, CORNER = 32, 12
ENCODERS = {
    "resnet": {"name": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "vit": {"name": "vit", "patch_size": 8, "hidden_size": 16, "layers": 1, "heads": 2},
}


def region(picture, label):
    """Class 0 shows top left, class 1 bottom right."""
    mask = np.zeros((SIZE, SIZE), bool)
    part = slice(0, CORNER) if label == 0 else slice(SIZE - CORNER, SIZE)
    mask[part, part] = True
    return mask


def compute(kind, part, params):
    rng = np.random.default_rng(int(part[0]))
    picture = rng.integers(60, 90, (3, SIZE, SIZE)).astype(np.uint8)
    picture[:, region(picture, int(part[1]))] += 120
    return picture if params.get("still") else np.stack([picture, picture])


def build(tmp_path, network, *, still=True, twin=True, train="all", method="concat"):
    configure_torch(1, compiled=False)
    card = Card(
        title="fake", kind="classify", classes=("a", "b"), licence="none", access="builtin",
        modalities={"view": "image" if still else "frames"}, official=Counts(64, 24), cite="none",
    )  # fmt: skip

    def samples(raw, *, on_bad="stop"):
        for i in range(88):
            split = "test" if i >= 64 else "train"
            yield Sample(f"s{i}", split, f"g{i}", i % 2, {"view": (float(i), float(i % 2))})

    tmp_path.mkdir(exist_ok=True)
    if twin:
        (tmp_path / "TWIN").touch()
    dataset = SimpleNamespace(CARD=card, FILES=(), samples=samples)
    entry = {"dataset": "fake", "options": {}, "features": {"view": {"still": still}}}
    extract("fake", entry, dataset, tmp_path, tmp_path / "out", compute)
    configs = {"view": ENCODERS[network] | {"train": train}}
    cell = cell_over(tmp_path / "out", method, configs, epochs=6)
    write_all(cell.open(), cell.problem(), configs, Assignment(), 2, cell.centroids)
    return cell


def fitted(cell):
    setting = Setting(0.003, 1e-6, None)
    model = untrained(cell).train()
    sizes = {"epochs": cell.epochs, "batch_size": 16, "device": CPU, "quiet": True}
    Fit(model, cell.training(0, CPU), setting, seed=0, **sizes).run("fake")
    return model.eval()


def untrained(cell):
    return cell.build(0, Setting(0.01, 0.0, 0.5), cell.epochs, seed=0, on=CPU).eval()


def look(cell, model, modality="view"):
    return gradcam.look(cell, 0, model, modality, region, CPU)


@pytest.mark.parametrize(("network", "still"), [("resnet", True), ("resnet", False), ("vit", True)])
def test_maps_and_numbers_of_a_trained_network(tmp_path, capsys, network, still):
    cell = build(tmp_path, network, still=still)
    looked = look(cell, fitted(cell))
    assert "gradcam fake concat: 24 of 24, " in capsys.readouterr().err
    assert looked.maps.shape == (24, 1 if still else 2, SIZE, SIZE)
    assert looked.maps.min() >= 0 and looked.maps.max() <= 1 + 1e-6
    assert looked.classes.tolist() == cell.open().test(0).labels().tolist()
    assert looked.energy is not None and 0 <= looked.energy <= 1
    assert len(looked.deletion) == len(looked.random) == gradcam.STEPS + 1
    assert looked.deletion[0] == looked.random[0] > 0.8
    assert looked.deletion[-1] == pytest.approx(looked.random[-1]), "nothing is left of either"


class Mixed(nn.Module):
    """Logits that are weighted sums of feature maps, so that their gradients are the weights."""

    def __init__(self, gradients):
        super().__init__()
        self.gradients = gradients  # [n, C, h, w] of class 0; of class 1 they are the opposite
        stages = nn.ModuleList([nn.Identity()])
        backbone = encoders.ResNet.__new__(encoders.ResNet)
        nn.Module.__init__(backbone)
        backbone.network = nn.ModuleDict({"encoder": nn.ModuleDict({"stages": stages})})
        self.encoders = nn.ModuleDict({"view": nn.Module()})
        self.encoders["view"].backbone = backbone
        self.stage = stages[0]

    def forward(self, x):
        score = (self.stage(x["view"]) * self.gradients).sum((1, 2, 3))
        return Output({}, score[:, None], torch.stack([score, -score], 1), {})


def test_maps_equal_those_of_the_official_code():
    """`gradcam_cam`: activations, gradients and map of jacobgil/pytorch-grad-cam@66a8fe5."""
    values = golden("gradcam_cam")
    rows = torch.arange(2)
    batch = Batch({"view": values["activations"]}, rows, rows)
    maps = gradcam.explain(Mixed(values["grads"]), batch, "view", torch.zeros(2, dtype=torch.long))
    expected = values["cam_relu"] / values["cam_relu"].amax((1, 2), keepdim=True)
    torch.testing.assert_close(maps[:, 0], expected, rtol=0, atol=1e-12)
    opposite = gradcam.explain(Mixed(values["grads"]), batch, "view", torch.ones(2, dtype=int))
    expected = (-values["cam"]).relu() / (-values["cam"]).relu().amax((1, 2), keepdim=True)
    torch.testing.assert_close(opposite[:, 0], expected, rtol=0, atol=1e-12)


def test_a_map_is_the_weighted_sum_of_activations_by_hand():
    """Selvaraju's equations 1 and 2: gradients average to +1 and -1, the map is ReLU(A0 - A1)."""
    planes = torch.tensor([[[1.0, 0.0], [0.0, 0.5]], [[0.0, 1.0], [0.0, 0.0]]])[None]
    slopes = torch.tensor([[[2.0, 0.0], [0.0, 2.0]], [[-4.0, 0.0], [0.0, 0.0]]])[None]
    batch = Batch({"view": planes}, torch.tensor([0]), torch.tensor([0]))
    maps = gradcam.explain(Mixed(slopes), batch, "view", torch.tensor([0]))
    torch.testing.assert_close(maps[0, 0], torch.tensor([[1.0, 0.0], [0.0, 0.5]]))


def test_each_picture_of_a_clip_has_a_map_from_0_to_1():
    planes = torch.tensor([[[[3.0, 4.0], [5.0, 3.0]]], [[[7.0, 7.0], [7.0, 7.0]]]])  # two frames
    clip = Batch({"view": planes[None]}, torch.tensor([0]), torch.tensor([0]))

    class Frames(Mixed):
        def forward(self, x):
            score = (self.stage(x["view"].flatten(0, 1)) * self.gradients).sum((1, 2, 3)).sum()
            return Output({}, score[None, None], torch.stack([score, -score])[None], {})

    maps = gradcam.explain(Frames(torch.ones(2, 1, 2, 2)), clip, "view", torch.tensor([0]))
    expected = torch.tensor([[[0.0, 0.5], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(maps[0], expected)


def test_the_own_head_of_a_modality_is_explained_too(tmp_path):
    cell = build(tmp_path, "resnet", method="ibma")
    model = untrained(cell)
    assert gradcam.heads(cell, model, "view", CPU) == ["fused", "view"]
    fused, own = (gradcam.look(cell, 0, model, "view", region, CPU, at) for at in ("fused", "view"))
    assert fused.deletion[0] != own.deletion[0]
    concat = untrained(build(tmp_path / "concat", "resnet"))
    assert gradcam.heads(cell, concat, "view", CPU) == ["fused"]


def test_the_layer_that_is_explained_is_the_last_block_of_a_vit():
    config = ENCODERS["vit"] | {"layers": 3}
    encoder = encoders.build(config, kind="image", shape=(3, SIZE, SIZE), width=8)
    met = []
    for name, module in encoder.named_modules():
        if name.endswith("norm_before"):
            module.register_forward_hook(lambda module, *_: met.append(module))
    encoder(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8))
    assert len(met) == 3 and gradcam._last_layer(encoder) is met[-1]


def test_tokens_of_a_vit_become_a_picture_and_tokens_again():
    tokens = torch.arange(2 * 5 * 3, dtype=torch.float32).reshape(2, 5, 3)
    maps = gradcam._to_maps(tokens)
    assert maps.shape == (2, 3, 2, 2)
    torch.testing.assert_close(maps[1, :, 0, 1], tokens[1, 2])  # the class token comes first
    assert torch.equal(gradcam._to_tokens(maps, tokens), tokens)


@pytest.mark.parametrize("network", ENCODERS)
def test_a_frozen_encoder_is_explained_too(tmp_path, network):
    frozen, free = (
        look(cell, untrained(cell))
        for cell in (
            build(tmp_path / train, network, train=train)  # same networks, other gradients
            for train in ("none", "all")
        )
    )
    assert frozen.maps.max() > 0
    np.testing.assert_allclose(frozen.maps, free.maps, atol=1e-6)


def test_no_region_is_claimed_for_real_data(tmp_path):
    cell = build(tmp_path, "resnet", twin=False)
    assert look(cell, untrained(cell)).energy is None


def test_energy_is_the_share_inside():
    maps = np.zeros((2, 1, 2, 2), np.float32)
    maps[0, 0] = [[1, 0], [0, 3]]  # one part in four lies top left
    pictures = np.zeros((2, 1, 3, 2, 2), np.uint8)
    left = np.array([[True, False], [False, False]])
    found = gradcam._energy(maps, pictures, np.array([0, 0]), lambda picture, label: left)
    assert found == pytest.approx((0.25 + 0.0) / 2), "a map of zeros counts as 0"
    assert gradcam._energy(maps, pictures, np.array([0, 0]), lambda p, c: None) is None


def test_deletion_takes_the_most_salient_pixels_first_and_leaves_each_channels_mean():
    """Of ten pixels step s takes the s with the highest map; the score falls by 1 a pixel."""
    picture = torch.arange(30.0).reshape(1, 3, 2, 5)
    order = torch.tensor([3.0, 9, 1, 7, 5, 0, 8, 2, 6, 4])
    means, met = torch.tensor([4.5, 14.5, 24.5]), []

    class Told(nn.Module):
        def forward(self, x):
            met.append(x["view"][0].flatten(1))
            lost = (met[-1] == means[:, None]).all(0).sum().float()
            return Output({}, lost[None, None], torch.stack([0 * lost, -lost])[None], {})

    batch = Batch({"view": picture}, torch.zeros(1), torch.zeros(1))
    maps, second = order.reshape(1, 1, 2, 5), torch.tensor([1])
    problem = tasks.build("classify", "ab")
    found = gradcam._deletion(Told(), batch, "view", second, maps, problem, "fused")
    assert found == pytest.approx([1 / (1 + math.exp(step)) for step in range(11)])
    for step, seen in enumerate(met):
        gone = order >= 10 - step
        assert torch.equal(seen, torch.where(gone, means[:, None], picture[0].flatten(1)))


def test_the_first_positive_label_is_explained_and_samples_without_one_are_left_out(
    make_cell, monkeypatch
):
    cell = make_cell("multilabel")
    test = cell.open().test(0)
    hot = {
        row: y.nonzero()[:, 0].tolist() for row, y in zip(test.index, test.labels(), strict=True)
    }
    expected = {row: places[0] for row, places in hot.items() if places}
    assert len(expected) < len(hot) and set(expected.values()) == {0, 1, 2}
    for size in (1, 7):
        monkeypatch.setattr(gradcam, "EVALUATION_BATCH", size)
        found = {}
        for batch, classes in gradcam._explained(cell, 0, CPU):
            assert len(classes) == len(batch.y) == len(batch.index) > 0
            found |= zip(batch.index.tolist(), classes.tolist(), strict=True)
            for name, stored in cell.open().arrays.items():
                np.testing.assert_array_equal(batch.x[name], stored[batch.index.numpy()])
        assert found == expected


def looked(rows, classes, maps, energy, curve):
    maps = np.array(maps, np.float32).reshape(len(rows), -1, 1, 1)
    return gradcam.Looked(np.array(rows), np.array(classes), maps, energy, curve, curve[::-1])


def test_batches_count_by_their_samples_and_energy_where_a_region_is_known():
    parts = [
        looked([4], [0], [0.1], 0.2, [1.0, 0.0]),
        looked([5, 6, 7], [1, 1, 0], [0.2, 0.3, 0.4], 0.6, [0.6, 0.4]),
        looked([8, 9], [1, 1], [0.5, 0.6], None, [0.5, 0.5]),
    ]
    found = gradcam._join(parts)
    assert found.rows.tolist() == [4, 5, 6, 7, 8, 9] and found.classes.tolist() == [
        0,
        1,
        1,
        0,
        1,
        1,
    ]
    assert found.maps.ravel() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert found.energy == pytest.approx((1 * 0.2 + 3 * 0.6) / 4)
    assert found.deletion == pytest.approx([(1 + 1.8 + 1) / 6, (0 + 1.2 + 1) / 6])
    assert found.random == pytest.approx([(0 + 1.2 + 1) / 6, (1 + 1.8 + 1) / 6])
    assert gradcam._join(parts[2:]).energy is None


def test_of_a_clip_the_middle_picture_is_shown_with_the_map_of_every_head():
    clip = np.arange(3 * 3 * 2 * 2, dtype=np.uint8).reshape(1, 3, 3, 2, 2)  # of three pictures
    features = SimpleNamespace(
        arrays={"view": np.repeat(clip, 8, 0)}, ids=list("abcdefgh"), meta={"classes": ["x", "y"]}
    )
    heads = {
        name: looked(
            [5, 6, 7], [1, 1, 0], [[first + k, first + k + 1, 9] for k in range(3)], 0, [1]
        )
        for name, first in (("ibma", 0.125), ("ibma/view", 0.5))
    }
    one, other = gradcam.examples(features, "view", heads, 2)
    assert [(x["id"], x["class"]) for x in (one, other)] == [("f", "y"), ("h", "x")]
    assert one["maps"] == {"ibma": [[1.125]], "ibma/view": [[1.5]]}
    assert one["picture"][0] == [[12, 16, 20], [13, 17, 21]], "rows, columns, colours"
    assert len(gradcam.examples(features, "view", heads, 1)) == 1


def test_examples_have_their_words_while_the_raw_data_is_there(tmp_path, monkeypatch, capsys):
    def samples(raw, *, on_bad="stop"):
        yield Dropped("gone", "for the test")
        for name, words in (("a", "some words"), ("b", "others"), ("c", None)):
            yield Sample(name, "test", "g", 0, {"view": Path("x.png"), "text": words})

    dataset = SimpleNamespace(samples=samples)
    monkeypatch.setattr(gradcam.tables, "raw", lambda *_: tmp_path)
    monkeypatch.setattr(gradcam.tables, "dataset", lambda *_: dataset)
    entry = SimpleNamespace(dataset="fake", model_dump=lambda mode: {"dataset": "fake"})
    asked = SimpleNamespace(task=lambda name: entry)
    found = gradcam._texts(asked, "fake", ["a", "c", "gone"])
    assert found == {"a": "some words", "c": ""}
    monkeypatch.setattr(gradcam.tables, "raw", lambda *_: tmp_path / "none")
    assert gradcam._texts(asked, "fake", ["a"]) == {}
    assert "is gone: examples are shown without their texts" in capsys.readouterr().err


def test_energy_counts_the_pictures_of_a_clip_whose_region_is_known():
    """The class is not seen in the first picture; of the others' 2 + 6 parts 1 + 2 lie inside."""
    maps = np.array([[[[5, 5]], [[1, 1]], [[2, 4]]]], np.float32)
    pictures = np.arange(3, dtype=np.uint8).reshape(1, 3, 1, 1, 1) * np.ones((3, 1, 2), np.uint8)
    inside = np.array([[True, False]])
    found = gradcam._energy(
        maps, pictures, np.array([0]), lambda picture, label: inside if picture.any() else None
    )
    assert found == pytest.approx(3 / 8)


def test_examples_are_the_first_of_each_class_and_the_figure_is_drawn(tmp_path):
    cell = build(tmp_path, "resnet")
    looked = {"concat": look(cell, untrained(cell))}
    shown = gradcam.examples(cell.open(), "view", looked, 2)
    assert [(one["id"], one["class"]) for one in shown] == [("s64", "a"), ("s65", "b")]
    assert np.array(shown[0]["picture"]).shape == (SIZE, SIZE, 3)
    for one in shown:
        one["text"] = "some words"
    explained = gradcam.summary(cell.open(), looked) | {"examples": shown}
    figures.attention("fake", explained, {}, tmp_path / "cam")
    text = (tmp_path / "cam.svg").read_text()
    assert "(TWIN)" in text and "some words" in text and "s64" in text


def test_a_modality_without_pictures_is_refused(make_cell):
    cell = make_cell()
    with pytest.raises(IbmaError, match="gradcam: 'view0' is vector: expected image or frames"):
        look(cell, untrained(cell), "view0")


def test_a_task_of_one_class_is_refused(make_cell):
    cell = make_cell("one_class")
    with pytest.raises(IbmaError, match="gradcam.tasks: the training rows of fake have one class"):
        look(cell, untrained(cell), "view0")
