"""From one modality's stored features to an embedding of width D (paper B.2: 512).

Backbones come from transformers: ResNet with basic blocks, ViT, BERT; vectors go through an MLP.
`pretrained: <hub id or local folder>` loads weights, otherwise the network starts at random from
the given configuration. transformers is imported only where a backbone needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.errors import IbmaError

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
TRAINED = ("all", "last", "none")


class Pixels(nn.Module):
    """uint8 [n, 3, S, S] -> normalised float, on whatever device the pixels are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, S, S] uint8 -> [n, 3, S, S] float."""
        return (x.float() / 255.0 - self.get_buffer("mean")) / self.get_buffer("std")


class Spectrogram(nn.Module):
    """[B, n_mels, T] -> [B, 1, n_mels, T], each example standardised.

    CHOICE: per example (alternative: training statistics), so that loudness carries nothing.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, n_mels, T] -> [B, 1, n_mels, T]."""
        return F.layer_norm(x.float(), x.shape[1:]).unsqueeze(1)


class ResNet(nn.Module):
    """Basic-block ResNet with global average pooling; ResNet-18 unless configured smaller."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers.models.resnet.configuration_resnet import ResNetConfig
        from transformers.models.resnet.modeling_resnet import ResNetModel

        sizes = list(config.get("hidden_sizes", [64, 128, 256, 512]))
        default = ResNetConfig(
            layer_type="basic",
            num_channels=config.get("channels", 3),
            embedding_size=config.get("embedding_size", 64),
            hidden_sizes=sizes,
            depths=list(config.get("depths", [2, 2, 2, 2])),
        )
        self.backbone = _backbone(ResNetModel, default, config)
        self.width = int(self.backbone.config.hidden_sizes[-1])

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, H, W] -> [n, width]."""
        return cast(Tensor, self.backbone(pixel_values=x).pooler_output.flatten(1))


class Frames(nn.Module):
    """One shared image network over the frames, then the mean over time (paper 4.2)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, 3, S, S] -> [B, width]."""
        return cast(Tensor, self.network(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1))


class ViT(nn.Module):
    """Vision transformer; read-out is the mean of the patch tokens.

    CHOICE: the mean (as the released code) rather than the class token, so that Grad-CAM sees
    gradients at the patches.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers.models.vit.configuration_vit import ViTConfig
        from transformers.models.vit.modeling_vit import ViTModel

        width = config.get("hidden_size", 768)
        default = ViTConfig(
            image_size=config.get("size", 224),
            patch_size=config.get("patch_size", 16),
            hidden_size=width,
            num_hidden_layers=config.get("layers", 12),
            num_attention_heads=config.get("heads", 12),
            intermediate_size=4 * width,
        )
        self.backbone = _backbone(ViTModel, default, config, add_pooling_layer=False)
        self.width = int(self.backbone.config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, S, S] -> [n, width]."""
        return cast(Tensor, self.backbone(pixel_values=x).last_hidden_state[:, 1:].mean(1))


class Bert(nn.Module):
    """BERT; read-out is the mean over tokens that are not padding (id 0)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers.models.bert.configuration_bert import BertConfig
        from transformers.models.bert.modeling_bert import BertModel

        width = config.get("hidden_size", 768)
        default = BertConfig(
            vocab_size=config.get("vocab_size", 30522),
            max_position_embeddings=max(config.get("max_length", 512), 2),
            hidden_size=width,
            num_hidden_layers=config.get("layers", 12),
            num_attention_heads=config.get("heads", 12),
            intermediate_size=4 * width,
        )
        self.backbone = _backbone(BertModel, default, config, add_pooling_layer=False)
        self.width = int(self.backbone.config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Token ids [B, L] -> [B, width]; an empty text is attended to as one padding token."""
        ids = x.long()
        mask = (ids != 0).float()
        mask[:, 0] = torch.where(mask.sum(1) == 0, 1.0, mask[:, 0])
        states = self.backbone(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return cast(Tensor, (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))


class MLP(nn.Module):
    """Vectors: batch standardisation without learned scale (CHOICE), hidden ReLU layers."""

    def __init__(self, config: Mapping[str, Any], inputs: int) -> None:
        super().__init__()
        sizes = [inputs, *config.get("hidden", [512])]
        layers: list[nn.Module] = [nn.BatchNorm1d(inputs, affine=False)]
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.width = int(sizes[-1])

    def forward(self, x: Tensor) -> Tensor:
        """[B, d] -> [B, width]."""
        return cast(Tensor, self.layers(x.float()))


KEYS = {
    "resnet": {"channels", "embedding_size", "hidden_sizes", "depths", "pretrained"},
    "vit": {"size", "patch_size", "hidden_size", "layers", "heads", "pretrained"},
    "bert": {"vocab_size", "max_length", "hidden_size", "layers", "heads", "pretrained"},
    "mlp": {"hidden"},
}


def build(config: Mapping[str, Any], *, kind: str, shape: tuple[int, ...], width: int) -> nn.Module:
    """Return a module from a batch of stored features [B, *shape] to [B, width].

    config: `tasks.<task>.encoders.<modality>` with `name` (resnet, vit, bert, mlp), the network's
    own keys (`KEYS`) and `train`: all, last (only the projection to `width`) or none.
    Raises IbmaError for an unknown name or key, or a kind the network cannot read.
    """
    name = str(config.get("name"))
    if name not in KEYS:
        raise IbmaError(f"params.yaml: unknown encoder '{name}': expected one of {', '.join(KEYS)}")
    unknown = set(config) - KEYS[name] - {"name", "train"}
    if unknown:
        raise IbmaError(
            f"params.yaml: encoder {name}: unknown key '{min(unknown)}': "
            f"expected some of {', '.join(sorted(KEYS[name] | {'train'}))}"
        )
    body = _body(name, config, kind, shape)
    projection = nn.Linear(_width_of(body), width)
    return _freeze(nn.Sequential(body, projection), str(config.get("train", "all")))


def _body(name: str, config: Mapping[str, Any], kind: str, shape: tuple[int, ...]) -> nn.Sequential:
    pixels: dict[str, Callable[[], nn.Module]] = {
        "resnet": lambda: ResNet(config),
        "vit": lambda: ViT(config),
    }
    if kind == "audio" and name == "resnet":
        return nn.Sequential(Spectrogram(), ResNet(config))
    if kind == "image" and name in pixels:
        return nn.Sequential(Pixels(), pixels[name]())
    if kind == "frames" and name in pixels:
        return nn.Sequential(Frames(nn.Sequential(Pixels(), pixels[name]())))
    if kind == "text" and name == "bert":
        return nn.Sequential(Bert(config))
    if kind in ("vector", "expression") and name == "mlp":
        return nn.Sequential(MLP(config, shape[0]))
    raise IbmaError(f"params.yaml: encoder {name} cannot read a modality of kind '{kind}'")


def _width_of(body: nn.Module) -> int:
    return next(int(m.width) for m in body.modules() if isinstance(m, ResNet | ViT | Bert | MLP))


def _freeze(encoder: nn.Sequential, train: str) -> nn.Sequential:
    if train not in TRAINED:
        raise IbmaError(
            f"params.yaml: encoder train '{train}': expected one of {', '.join(TRAINED)}"
        )
    if train != "all":
        (encoder[0] if train == "last" else encoder).requires_grad_(False)
    return encoder


def _backbone(model: Any, default: Any, config: Mapping[str, Any], **options: Any) -> Any:
    source = config.get("pretrained")
    if source is None:
        return model(default, **options)
    try:
        return model.from_pretrained(source, **options)
    except OSError as error:
        raise IbmaError(
            f"params.yaml: encoder weights '{source}' are neither a local folder nor to be had "
            f"({str(error).splitlines()[0]}): download them, or set pretrained to a local folder"
        ) from None
