"""Encoders: shapes per kind, what they ignore, what they freeze, what they refuse."""

import copy
import json

import pytest
import torch
from conftest import fresh

from ibma.errors import IbmaError
from ibma.network import encoders

WIDTH = 6
RESNET = {"name": "resnet", "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]}
VIT = {"name": "vit", "patch_size": 8, "hidden_size": 8, "layers": 1, "heads": 2}
BERT = {
    "name": "bert",
    "vocab_size": 20,
    "max_length": 12,
    "hidden_size": 8,
    "layers": 1,
    "heads": 2,
}
MLP = {"name": "mlp", "hidden": [10]}


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


CASES = {
    "audio": (RESNET, "audio", lambda n: torch.randn(n, 16, 24)),
    "frames": (RESNET, "frames", lambda n: pixels(n, 3, 3, 16, 16)),
    "frames vit": (VIT, "frames", lambda n: pixels(n, 3, 3, 16, 16)),
    "image": (RESNET, "image", lambda n: pixels(n, 3, 16, 16)),
    "image vit": (VIT, "image", lambda n: pixels(n, 3, 16, 16)),
    "text": (BERT, "text", lambda n: torch.randint(1, 20, (n, 12), dtype=torch.int32)),
    "vector": (MLP, "vector", lambda n: torch.randn(n, 7)),
    "expression": (MLP, "expression", lambda n: torch.randn(n, 7)),
}


def build(config, kind, x, **more) -> encoders.Encoder:
    torch.manual_seed(0)
    return encoders.build({**config, **more}, kind=kind, shape=tuple(x.shape[1:]), width=WIDTH)


@pytest.fixture(params=CASES)
def case(request):
    config, kind, make = CASES[request.param]
    torch.manual_seed(1)
    return config, kind, make(4)


def test_every_kind_becomes_a_finite_embedding_that_learns(case):
    config, kind, x = case
    encoder = build(config, kind, x)
    z = encoder(x)
    assert z.shape == (4, WIDTH)
    assert z.dtype == torch.float32
    z.square().sum().backward()
    gradients = [p.grad for p in encoder.backbone.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.abs().sum() > 0 for g in gradients)


def test_an_example_does_not_depend_on_its_batch_at_evaluation(case):
    config, kind, x = case
    encoder = build(config, kind, x)
    encoder(x)  # running statistics
    encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(x[:1]), encoder(x)[:1], rtol=1e-4, atol=1e-5)


def test_train_says_what_learns(case):
    config, kind, x = case
    learns = {"all": (True, True), "last": (False, True), "none": (False, False)}
    for train, (backbone, projection) in learns.items():
        encoder = build(config, kind, x, train=train)
        assert all(p.requires_grad is backbone for p in encoder.backbone.parameters()), train
        assert all(p.requires_grad is projection for p in encoder.projection.parameters()), train


def test_a_frozen_backbone_keeps_its_state_and_its_answer():
    x = pixels(4, 3, 16, 16)
    encoder = build(RESNET, "image", x, train="last")
    before = {name: value.clone() for name, value in encoder.backbone.state_dict().items()}
    encoder.train()
    first = encoder(x)
    for name, value in encoder.backbone.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    torch.testing.assert_close(encoder.eval()(x), first, rtol=0, atol=0)


def test_the_default_resnet_is_resnet_18():
    encoder = encoders.build({"name": "resnet"}, kind="image", shape=(3, 32, 32), width=512)
    parameters = sum(p.numel() for p in encoder.backbone.parameters())
    assert parameters == 11_176_512  # ResNet-18 without its classifier


def test_audio_gets_one_channel_by_default_and_ignores_loudness():
    x = torch.randn(4, 16, 24)
    encoder = build(RESNET, "audio", x).eval()
    assert encoder.backbone.channels == 1
    with torch.no_grad():
        torch.testing.assert_close(encoder(3.0 * x + 5.0), encoder(x), rtol=1e-3, atol=1e-4)


def test_a_silent_clip_is_finite():
    x = torch.full((4, 16, 24), -11.5)
    assert build(RESNET, "audio", x)(x).isfinite().all()


def test_a_picture_is_standardised_as_imagenets_and_read_out_at_its_patches():
    """The class token is not read."""
    config = {"name": "vit", "patch_size": 8, "hidden_size": 16, "layers": 1, "heads": 2}
    encoder = encoders.build(config, kind="image", shape=(3, 16, 16), width=4).eval()
    x = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16).remainder(256).to(torch.uint8)
    colours = zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    planes = [(x[:, c] / 255 - mean) / std for c, (mean, std) in enumerate(colours)]
    states = encoder.backbone.network(pixel_values=torch.stack(planes, dim=1)).last_hidden_state
    assert states.shape == (2, 1 + 4, 16)
    torch.testing.assert_close(encoder(x), encoder.projection(states[:, 1:].sum(1) / 4))


def test_frames_are_one_network_and_a_mean_over_time():
    x = pixels(2, 3, 3, 16, 16)
    encoder = build(VIT, "frames", x).eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(x[:, [2, 0, 1]]), encoder(x))
        still = x[:, :1].expand(-1, 3, -1, -1, -1)
        assert not torch.allclose(encoder(still), encoder(x))


def test_an_empty_text_is_finite():
    text = torch.zeros(2, 12, dtype=torch.int32)
    assert build(BERT, "text", text)(text).isfinite().all()


def test_vectors_are_standardised_by_the_mean_over_all_batches():
    """Scale and offset of a column do not matter, and evaluation knows them after one batch."""
    x = torch.randn(64, 7)
    plain, moved = (build(MLP, "vector", x) for _ in range(2))
    torch.testing.assert_close(moved(100.0 * x + 1000.0), plain(x), rtol=1e-3, atol=1e-3)
    train_mode = plain(x)
    torch.testing.assert_close(plain.eval()(x), train_mode, rtol=0.05, atol=0.05)


def test_the_running_mean_over_batches_goes_on_from_a_saved_state():
    batches = torch.randn(6, 16, 7)
    whole, first = (build(MLP, "vector", batches[0]) for _ in range(2))
    for x in batches:
        whole(x)
    for x in batches[:3]:
        first(x)
    second = build(MLP, "vector", batches[0])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for x in batches[3:]:
        second(x)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    expected = batches.mean((0, 1))
    torch.testing.assert_close(whole.prepare.norm.running_mean, expected, atol=1e-6, rtol=1e-5)


def test_padding_is_as_good_as_texts_of_their_own_length():
    text = torch.zeros(3, 12, dtype=torch.int32)
    for row, length in enumerate((3, 7, 8)):
        text[row, :length] = torch.arange(1, length + 1)
    encoder = build(BERT, "text", text).eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(text[:, :8]), encoder(text))
        for row, length in enumerate((3, 7, 8)):
            alone = encoder(text[row : row + 1, :length])
            torch.testing.assert_close(alone, encoder(text)[row : row + 1])
        assert not torch.allclose(encoder(text), encoder(text.roll(1, 1))), "an order of words"


def test_a_column_that_is_constant_in_train_cannot_explode():
    x = torch.randn(16, 7)
    x[:, 0] = 0.0
    encoder = build(MLP, "vector", x)
    encoder(x)
    x[:, 0] = 5.0
    assert encoder.prepare.eval()(x).abs().max() <= 10.0


@pytest.mark.parametrize(
    ("config", "kind", "shape", "named"),
    [
        ({"name": "resnett"}, "image", (3, 16, 16), "resnett"),
        ({}, "image", (3, 16, 16), "None"),
        ({**RESNET, "depth": 3}, "image", (3, 16, 16), "depth"),
        ({**RESNET, "depths": [1]}, "image", (3, 16, 16), "depths"),
        ({**RESNET, "depths": ["x", 1]}, "image", (3, 16, 16), "depths"),
        ({**RESNET, "channels": 1}, "image", (3, 16, 16), "channels"),
        ({**RESNET, "train": "some"}, "image", (3, 16, 16), "some"),
        (RESNET, "vector", (7,), "vector"),
        (BERT, "audio", (16, 24), "audio"),
        ({**VIT, "size": 32}, "image", (3, 16, 16), "size"),
        ({**VIT, "patch_size": 5}, "image", (3, 16, 16), "patch_size"),
        ({**VIT, "heads": 3}, "image", (3, 16, 16), "heads"),
        ({**BERT, "max_length": 8}, "text", (12,), "max_length"),
        ({**MLP, "hidden": 10}, "vector", (7,), "hidden"),
        ({**MLP, "pretrained": "x"}, "vector", (7,), "pretrained"),
        ({**VIT, "pretrained": "x"}, "image", (3, 16, 16), "patch_size"),
    ],
)
def test_bad_configuration_is_refused_in_one_line(config, kind, shape, named):
    with pytest.raises(IbmaError, match=named) as caught:
        encoders.build(config, kind=kind, shape=shape, width=WIDTH)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_are_loaded_from_a_folder(tmp_path):
    x = pixels(2, 3, 16, 16)
    first = build(VIT, "image", x)
    first.backbone.network.save_pretrained(tmp_path)
    config = {"name": "vit", "pretrained": str(tmp_path)}
    torch.manual_seed(5)
    second = encoders.build(config, kind="image", shape=(3, 16, 16), width=WIDTH).eval()
    with torch.no_grad():
        torch.testing.assert_close(second.backbone(x.float()), first.eval().backbone(x.float()))
        larger = encoders.build(config, kind="image", shape=(3, 32, 32), width=WIDTH)
        assert larger(pixels(2, 3, 32, 32)).shape == (2, WIDTH)  # positions are interpolated


def test_pretrained_weights_get_pictures_as_they_want_them(tmp_path):
    x = pixels(2, 3, 16, 16)
    build(VIT, "image", x).backbone.network.save_pretrained(tmp_path)
    config = {"name": "vit", "pretrained": str(tmp_path)}

    def prepare() -> torch.Tensor:
        return encoders.build(config, kind="image", shape=(3, 16, 16), width=WIDTH).prepare(x)

    torch.testing.assert_close(prepare(), encoders.Pixels()(x))  # the folder lacks the file
    wanted = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3}
    (tmp_path / encoders.PREPARED).write_text(json.dumps(wanted | {"image_std": [0.5] * 3}))
    torch.testing.assert_close(prepare(), x / 127.5 - 1)
    (tmp_path / encoders.PREPARED).write_text("{")
    with pytest.raises(IbmaError, match="encoder vit: preprocessor_config.json of '.*' cannot be"):
        prepare()


def test_pretrained_three_channel_weights_read_a_spectrogram(tmp_path):
    build(RESNET, "image", pixels(2, 3, 16, 16)).backbone.network.save_pretrained(tmp_path)
    config = {"name": "resnet", "pretrained": str(tmp_path)}
    encoder = encoders.build(config, kind="audio", shape=(16, 24), width=WIDTH)
    assert encoder(torch.randn(2, 16, 24)).shape == (2, WIDTH)


def test_a_folder_without_pretrained_weights_is_named_in_one_line(tmp_path):
    config = {"name": "resnet", "pretrained": str(tmp_path)}
    with pytest.raises(IbmaError, match="download") as caught:
        encoders.build(config, kind="image", shape=(3, 16, 16), width=WIDTH)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_pretrained_weights_are_loaded_from_a_package(tmp_path, monkeypatch):
    x = torch.randint(1, 20, (2, 12), dtype=torch.int32)
    first = build(BERT, "text", x)
    first.backbone.network.save_pretrained(tmp_path / "words_model")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {"name": "bert", "pretrained": "package:words_model"}
    second = encoders.build(config, kind="text", shape=(12,), width=WIDTH).eval()
    with torch.no_grad():
        torch.testing.assert_close(second.backbone(x), first.eval().backbone(x))


def test_roberta_s_first_token_has_id_0_and_counts(tmp_path):
    """Its own padding is id 1; stored texts are padded with 0, and read as it reads them itself."""
    from transformers import RobertaConfig, RobertaModel

    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 10}
    torch.manual_seed(0)
    theirs = RobertaModel(RobertaConfig(**sizes), add_pooling_layer=False).eval()
    theirs.save_pretrained(tmp_path)
    config = {"name": "bert", "pretrained": str(tmp_path)}
    ours = encoders.build(config, kind="text", shape=(8,), width=4).eval()
    stored = torch.tensor([[0, 7, 9, 2, 0, 0, 0, 0], [0, 5, 6, 7, 8, 9, 3, 2]])
    known = torch.tensor([[1] * 4 + [0] * 4, [1] * 8])
    states = theirs(stored.where(known == 1, 1), attention_mask=known).last_hidden_state
    means = (states * known.unsqueeze(-1)).sum(1) / known.sum(1, keepdim=True)
    torch.testing.assert_close(ours.backbone(stored), means)
    with pytest.raises(IbmaError, match="max_length 8: the stored texts have 9 ids"):
        encoders.build(config, kind="text", shape=(9,), width=4)


def test_pretrained_weights_of_another_network_are_refused(tmp_path):
    """transformers would only warn and start at random."""
    build(VIT, "image", pixels(2, 3, 16, 16)).backbone.network.save_pretrained(tmp_path)
    config = {"name": "resnet", "pretrained": str(tmp_path)}
    with pytest.raises(IbmaError, match="another network"):
        encoders.build(config, kind="image", shape=(3, 16, 16), width=WIDTH)


def test_a_vector_encoder_never_loads_transformers():
    script = (
        "import sys; from ibma.network import encoders; "
        "encoders.build({'name': 'mlp'}, kind='vector', shape=(3,), width=4); "
        "assert 'transformers' not in sys.modules"
    )
    fresh(script)


def test_the_layout_in_memory_changes_rounding_only():
    encoder = build(RESNET, "image", pixels(2, 3, 16, 16)).eval()
    x = encoder.prepare(pixels(2, 3, 16, 16))
    rows_first = copy.deepcopy(encoder.backbone.network).to(memory_format=torch.contiguous_format)
    expected = rows_first(pixel_values=x).pooler_output.flatten(1)
    torch.testing.assert_close(encoder.backbone(x), expected, rtol=1e-4, atol=1e-5)
