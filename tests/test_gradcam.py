"""Grad-CAM on pictures whose class shows in a known corner."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import fake_dataset
from torch import nn

from ibma.datasets import Card, Counts, Sample
from ibma.errors import IbmaError
from ibma.experiments import gradcam
from ibma.features.extract import extract
from ibma.features.store import Batch, Features
from ibma.network.centroids import Assignment, write_all
from ibma.network.method import Output
from ibma.report import figures
from ibma.training.loop import Cell, Fit, Setting

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


def build(tmp_path, network, *, still=True, twin=True):
    card = Card(
        title="fake", kind="classify", classes=("a", "b"), licence="none", access="builtin",
        modalities={"view": "image" if still else "frames"}, official=Counts(64, 24), cite="none",
    )  # fmt: skip

    def samples(raw, *, on_bad="stop"):
        for i in range(88):
            split = "test" if i >= 64 else "train"
            yield Sample(f"s{i}", split, f"g{i}", i % 2, {"view": (float(i), float(i % 2))})

    if twin:
        (tmp_path / "TWIN").touch()
    dataset = SimpleNamespace(CARD=card, FILES=(), samples=samples)
    entry = {"dataset": "fake", "options": {}, "features": {"view": {"still": still}}}
    extract("fake", entry, dataset, tmp_path, tmp_path / "out", compute)
    features = Features(tmp_path / "out")
    encoders = {"view": ENCODERS[network]}
    cell = Cell(
        "twin", "fake", "concat", "concat", {}, encoders, 6, 16, 16, 2, Assignment(), features,
        tmp_path / "centroids", torch.device("cpu"),
    )  # fmt: skip
    write_all(features, cell.task, encoders, Assignment(), 2, cell.centroids)
    return cell


def fitted(cell):
    setting = Setting(0.003, 1e-6, None)
    model = cell.build(0, setting, cell.epochs, seed=0)
    fit = Fit(
        model, cell.features.training(0), setting, seed=0, epochs=cell.epochs, batch_size=16,
        device=cell.device,
    )  # fmt: skip
    fit.run("fake")
    return model.eval()


@pytest.mark.parametrize(("network", "still"), [("resnet", True), ("resnet", False), ("vit", True)])
def test_maps_and_numbers_of_a_trained_network(tmp_path, network, still):
    torch.set_num_threads(1)
    cell = build(tmp_path, network, still=still)
    looked = gradcam.look(cell, 0, fitted(cell), "view", region)
    assert looked.maps.shape == (24, 1 if still else 2, SIZE, SIZE)
    assert looked.maps.min() >= 0 and looked.maps.max() <= 1 + 1e-6
    assert looked.classes.tolist() == cell.features.test(0).labels().tolist()
    assert looked.energy is not None and 0 <= looked.energy <= 1
    assert len(looked.deletion) == len(looked.random) == gradcam.STEPS + 1
    assert looked.deletion[0] == looked.random[0] > 0.8
    assert looked.deletion[-1] == pytest.approx(looked.random[-1]), "nothing is left of either"


def test_a_map_is_the_weighted_sum_of_activations():
    """By hand: logits are means of two channels, one counted negative; Selvaraju's equations 1, 2.

    Class 0 reads +channel 0 and -channel 1, so its map is ReLU(A0 - A1) up to its scale.
    """
    layer = nn.Identity()
    planes = torch.tensor([[[1.0, 0.0], [0.0, 0.5]], [[0.0, 1.0], [0.0, 0.0]]])[None]

    class Two(nn.Module):
        def forward(self, x):
            a = layer(x["view"]).mean((2, 3))
            return Output({}, a, torch.stack([a[:, 0] - a[:, 1], a[:, 1]], 1), {})

    batch = Batch({"view": planes}, torch.tensor([0]), torch.tensor([0]))
    found = gradcam._cam(Two(), layer, batch, torch.tensor([0]), torch.zeros(1, 3, 2, 2))
    torch.testing.assert_close(found[0, 0], torch.tensor([[1.0, 0.0], [0.0, 0.5]]))


def test_tokens_of_a_vit_become_a_picture():
    tokens = torch.arange(2 * 5 * 3, dtype=torch.float32).reshape(2, 5, 3)
    places = gradcam._spatial(tokens)
    assert places.shape == (2, 3, 2, 2)
    torch.testing.assert_close(places[1, :, 0, 1], tokens[1, 2])  # the class token comes first


def test_no_region_is_claimed_for_real_data(tmp_path):
    cell = build(tmp_path, "resnet", twin=False)
    model = cell.build(0, Setting(0.01, 0.0, None), 1, seed=0).eval()
    assert gradcam.look(cell, 0, model, "view", region).energy is None


def test_energy_is_the_share_inside():
    maps = np.zeros((2, 1, 2, 2), np.float32)
    maps[0, 0] = [[1, 0], [0, 3]]  # one part in four lies top left
    pictures = np.zeros((2, 1, 3, 2, 2), np.uint8)
    left = np.array([[True, False], [False, False]])
    found = gradcam._energy(maps, pictures, np.array([0, 0]), lambda picture, label: left)
    assert found == pytest.approx((0.25 + 0.0) / 2), "a map of zeros counts as 0"
    assert gradcam._energy(maps, pictures, np.array([0, 0]), lambda p, c: None) is None


def test_examples_are_the_first_of_each_class_and_the_figure_is_drawn(tmp_path):
    cell = build(tmp_path, "resnet")
    model = cell.build(0, Setting(0.01, 0.0, None), 1, seed=0).eval()
    looked = {"concat": gradcam.look(cell, 0, model, "view", region)}
    shown = gradcam.examples(cell.features, "view", looked, 2)
    assert [(one["id"], one["class"]) for one in shown] == [("s64", "a"), ("s65", "b")]
    assert np.array(shown[0]["picture"]).shape == (SIZE, SIZE, 3)
    for one in shown:
        one["text"] = "some words"
    explained = gradcam.summary(cell.features, looked) | {"examples": shown}
    figures.attention("fake", explained, tmp_path / "cam")
    text = (tmp_path / "cam.svg").read_text()
    assert "(TWIN)" in text and "some words" in text and "s64" in text


def test_a_modality_without_pictures_is_refused(make_cell):
    cell = make_cell()
    model = cell.build(0, Setting(0.01, 0.0, 0.5), 1, seed=0)
    with pytest.raises(IbmaError, match="gradcam: 'view0' is vector: expected image or frames"):
        gradcam.look(cell, 0, model, "view0", region)
    assert fake_dataset().CARD.modalities["view0"] == "vector"
