"""Encode one modality's stored features as an embedding of width D (paper B.2: 512).

Backbones come from transformers: ResNet with basic blocks, ViT, BERT; vectors go through an MLP.
`pretrained: <hub id, local folder or package:name>` (`pretrained.locate`) loads weights, otherwise
the network starts at random from the given configuration. transformers is imported only where a
backbone needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma import pretrained
from ibma.errors import IbmaError, one_line

PREPARED = "preprocessor_config.json"  # how pretrained weights want their pictures
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
TRAINED = ("all", "last", "none")
READS = {  # encoder -> kinds of modality it can read
    "resnet": ("audio", "frames", "image"),
    "vit": ("frames", "image"),
    "bert": ("text",),
    "auto": ("frames", "image"),
    "mlp": ("vector", "expression"),
}
SIZES = {  # encoder -> keys of a network that starts at random
    "resnet": ("channels", "embedding_size", "hidden_sizes", "depths"),
    "vit": ("size", "patch_size", "hidden_size", "layers", "heads"),
    "bert": ("vocab_size", "max_length", "hidden_size", "layers", "heads", "dropout"),
    "auto": (),
    "mlp": ("hidden",),
}


class Pixels(nn.Module):
    """Turn uint8 pixels into floats with a mean and a deviation, on the pixels' device.

    CHOICE: those that pretrained weights name, else ImageNet's, for radiographs too (the paper's
    released code has .5056 and .252).
    """

    def __init__(
        self, mean: Sequence[float] = IMAGE_MEAN, deviation: Sequence[float] = IMAGE_STD
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(deviation).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return floats of the same shape, [..., 3, S, S]."""
        return (x.float() / 255.0 - self.get_buffer("mean")) / self.get_buffer("std")

    @classmethod
    def of(cls, name: str, source: object) -> Pixels:
        """Return what prepares pictures for pretrained weights.

        Args:
            name: of the encoder.
            source: where its weights come from; None for random ones. A folder may lack
                `preprocessor_config.json`, then mean and deviation are ImageNet's.

        Raises:
            IbmaError: the file cannot be read or fetched, or names no mean and deviation.
        """
        place = "" if source is None else pretrained.locate(str(source))
        if not place or (Path(place).is_dir() and not (Path(place) / PREPARED).exists()):
            return cls()
        import transformers

        processors: Any = transformers.AutoImageProcessor
        try:
            shown = processors.from_pretrained(place)
            return cls(shown.image_mean, shown.image_std)
        except (OSError, ValueError, TypeError) as error:
            raise IbmaError(
                f"params.yaml: encoder {name}: {PREPARED} of '{source}' cannot be read "
                f"({one_line(error)}): correct it or fetch it again"
            ) from None


class Spectrogram(nn.Module):
    """Standardise each example; repeat it when pretrained weights want more than one channel.

    CHOICE: per example (alternative: training statistics), so that loudness carries nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Return pictures of spectrograms: [B, n_mels, T] -> [B, channels, n_mels, T]."""
        standard = F.layer_norm(x.float(), x.shape[1:])
        return standard.unsqueeze(1).expand(-1, self.channels, -1, -1)


class Standardise(nn.Module):
    """Standardise vectors with statistics of train that are not learned.

    CHOICE: the running mean over all batches seen (alternative: an exponential one, which would
    still lag behind after the few batches of a small data set). Values stop at 10 deviations, so
    that a column that is constant in train cannot explode on test.
    """

    steps_differ = True  # by the number of batches seen

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs, affine=False, momentum=None)
        self.batches = 0  # seen in training, as the host knows it
        # a function with a name, so that a network can be pickled
        self.register_load_state_dict_post_hook(Standardise.count)  # type: ignore[no-untyped-call]

    def count(self, _: object = None) -> None:
        """Read from the buffers how many batches were seen."""
        self.batches = int(self.norm.get_buffer("num_batches_tracked"))

    def forward(self, x: Tensor) -> Tensor:
        """Return standardised vectors [B, d]; in training mode B >= 2."""
        # without a momentum torch reads the count of batches from the GPU and waits for it
        if self.training:
            self.batches += 1
            self.norm.momentum = 1.0 / self.batches
        return cast(Tensor, self.norm(x.float())).clamp(-10.0, 10.0)


class Backbone(Protocol):
    """A network with a known output width."""

    width: int

    def __call__(self, x: Tensor) -> Tensor:
        """Encode prepared features: [B, ...] -> [B, width]."""
        ...


class ResNet(nn.Module):
    """Basic-block ResNet with global average pooling; ResNet-18 unless configured smaller."""

    def __init__(self, config: Mapping[str, Any], kind: str) -> None:
        super().__init__()
        from transformers.models.resnet.configuration_resnet import ResNetConfig
        from transformers.models.resnet.modeling_resnet import ResNetModel

        sizes = {
            "num_channels": config.get("channels", 1 if kind == "audio" else 3),
            "embedding_size": config.get("embedding_size", 64),
            "hidden_sizes": config.get("hidden_sizes", [64, 128, 256, 512]),
            "depths": config.get("depths", [2, 2, 2, 2]),
        }
        network = _network(ResNetModel, ResNetConfig, {"layer_type": "basic", **sizes}, config)
        # the layout that convolutions are fastest in
        self.network = network.to(memory_format=torch.channels_last)
        widths, depths = self.network.config.hidden_sizes, self.network.config.depths
        _require(len(widths) == len(depths), "resnet", "hidden_sizes and depths differ in length")
        self.channels = int(self.network.config.num_channels)
        _require(kind == "audio" or self.channels == 3, "resnet", "channels: pictures have 3")
        self.width = int(widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Encode pictures: [B, channels, H, W] -> [B, width]."""
        x = x.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.network(pixel_values=x).pooler_output.flatten(1))


class ViT(nn.Module):
    """Vision transformer, read out as the mean of the patch tokens.

    CHOICE: the mean (as the released code) rather than the class token, so that Grad-CAM sees
    gradients at the patches.
    """

    def __init__(self, config: Mapping[str, Any], size: int) -> None:
        super().__init__()
        from transformers import AttentionInterface
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.models.vit.configuration_vit import ViTConfig
        from transformers.models.vit.modeling_vit import ViTModel

        _require(
            config.get("size", size) == size, "vit", f"size: the stored pictures are {size} wide"
        )
        sizes = {"image_size": size, "patch_size": config.get("patch_size", 16), **_block(config)}
        self.network = _network(ViTModel, ViTConfig, sizes, config, add_pooling_layer=False)
        # a step that is recorded or compiled got a mask of ones from some versions of
        # transformers, and with it attention in float32, three times as slow
        AttentionInterface.register("unmasked", sdpa_attention_forward)
        self.network.set_attn_implementation("unmasked")
        patch = int(self.network.config.patch_size)
        _require(size % patch == 0, "vit", f"patch_size {patch} does not divide size {size}")
        self.width = int(self.network.config.hidden_size)
        self._fit_positions(size, size // patch)

    @torch.no_grad()
    def _fit_positions(self, size: int, side: int) -> None:
        """Interpolate the positions of pretrained weights, once, to pictures of this size.

        In every step it would have a gradient, whose sums a GPU adds up in any order.
        """
        embeddings = self.network.embeddings
        tokens = torch.zeros(1, 1 + side**2, self.width)
        positions = embeddings.interpolate_pos_encoding(tokens, size, size)
        embeddings.position_embeddings = nn.Parameter(positions.clone())
        embeddings.image_size = (size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Encode pictures: [B, 3, S, S] -> [B, width]."""
        out = self.network(pixel_values=x)
        return cast(Tensor, out.last_hidden_state[:, 1:].mean(1))


class Auto(nn.Module):
    """Any image model of transformers, read out as the mean of its last states.

    Its pooling layer is not read: checkpoints of classifiers have none.
    """

    def __init__(self, config: Mapping[str, Any], size: int) -> None:
        super().__init__()
        import transformers

        _require(config.get("pretrained") is not None, "auto", "pretrained: expected a model")
        self.network = _network(transformers.AutoModel, None, {}, config, unread="pooler")
        wanted = getattr(self.network.config, "image_size", size)
        _require(wanted == size, "auto", f"this model reads {wanted}: set size in features to it")
        with torch.no_grad():
            self.width = self.forward(torch.zeros(1, 3, size, size)).shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Encode prepared pictures: [B, 3, S, S] -> [B, width]."""
        states = self.network(pixel_values=x).last_hidden_state
        return cast(Tensor, states.flatten(2).mean(2) if states.ndim == 4 else states.mean(1))


class Frames(nn.Module):
    """Encode frames by one shared image network, then average over time (paper 4.2)."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network
        self.width = network.width

    def forward(self, x: Tensor) -> Tensor:
        """Encode frames: [B, T, 3, S, S] -> [B, width]."""
        each = self.network(x.flatten(0, 1))
        return each.reshape(*x.shape[:2], self.width).mean(1)


class Bert(nn.Module):
    """BERT, read out as the mean over tokens that are not padding (id 0).

    Pretrained weights may be RoBERTa's, whose first token has id 0; the first token always counts.
    """

    def __init__(self, config: Mapping[str, Any], length: int) -> None:
        super().__init__()
        from transformers.models.bert.configuration_bert import BertConfig
        from transformers.models.bert.modeling_bert import BertModel

        roberta = _family(config.get("pretrained")) == "roberta"
        model: Any = BertModel
        if roberta:
            from transformers.models.roberta.modeling_roberta import RobertaModel as model
        sizes = {
            "vocab_size": config.get("vocab_size", 30522),
            "max_position_embeddings": config.get("max_length", 512),
            "hidden_dropout_prob": config.get("dropout", 0.1),
            "attention_probs_dropout_prob": config.get("dropout", 0.1),
            **_block(config),
        }
        self.network = _network(model, BertConfig, sizes, config, add_pooling_layer=False)
        self.network.set_attn_implementation("sdpa")  # other ones read a mask of booleans otherwise
        longest = int(self.network.config.max_position_embeddings)
        if roberta:  # which counts from behind its padding id
            longest -= self.network.config.pad_token_id + 1
        _require(
            length <= longest, "bert", f"max_length {longest}: the stored texts have {length} ids"
        )
        self.width = int(self.network.config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Encode token ids: [B, L] -> [B, width]; an empty text counts as one padding token."""
        mask = (x != 0).long()
        mask[:, 0] = 1
        # with four dimensions transformers takes it as it is; two it reads on the host, which waits
        seen = mask[:, None, None, :].bool()
        states = self.network(input_ids=x.long(), attention_mask=seen).last_hidden_state
        return cast(Tensor, (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))


class MLP(nn.Module):
    """Hidden ReLU layers over a vector."""

    def __init__(self, config: Mapping[str, Any], inputs: int) -> None:
        super().__init__()
        hidden = config.get("hidden", [512])
        listed = isinstance(hidden, list) and all(isinstance(n, int) and n > 0 for n in hidden)
        _require(listed, "mlp", f"hidden {hidden}: expected a list of layer widths")
        sizes = [inputs, *hidden]
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.width: int = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Encode vectors: [B, d] -> [B, width]."""
        return cast(Tensor, self.layers(x))


class Encoder(nn.Module):
    """Prepare the input, run the backbone, project to the shared width.

    What does not train also stays in evaluation mode, so that its batch statistics and dropout do
    not change either.

    Args:
        train: "all" trains backbone and projection, "last" the projection only, "none" neither (a
            fixed random projection).
    """

    def __init__(self, prepare: nn.Module, backbone: Backbone, width: int, train: str) -> None:
        super().__init__()
        self.prepare = prepare
        self.backbone = cast(nn.Module, backbone)
        self.projection = nn.Linear(backbone.width, width)
        self.frozen = train != "all"
        self.backbone.requires_grad_(train == "all")
        self.projection.requires_grad_(train != "none")

    def train(self, mode: bool = True) -> Self:
        """Switch mode; a frozen backbone stays as it is."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Encode stored features: [B, ...] -> [B, D]."""
        return cast(Tensor, self.projection(self.backbone(self.prepare(x))))


def build(config: Mapping[str, Any], *, kind: str, shape: tuple[int, ...], width: int) -> Encoder:
    """Build the encoder of a modality, from stored features [B, *shape] to [B, width].

    Args:
        config: `tasks.<task>.encoders.<modality>` with `name` (resnet, vit, bert, mlp), the
            network's own keys (`SIZES`) or `pretrained`, and `train`: all, last or none (see
            `Encoder`).
        kind: see `datasets.ModalityKind`.

    Raises:
        IbmaError: an unknown name, key or value, sizes that do not fit the stored features, a kind
            the network cannot read, or pretrained weights that are missing or do not fit.
    """
    name = str(config.get("name"))
    _check(name, config, kind)
    backbone: Backbone
    prepare: nn.Module = nn.Identity()
    if name == "mlp":
        backbone, prepare = MLP(config, shape[0]), Standardise(shape[0])
    elif name == "bert":
        backbone = Bert(config, shape[0])
    elif name == "vit":
        backbone = ViT(config, shape[-1])
    elif name == "auto":
        backbone = Auto(config, shape[-1])
    else:
        backbone = network = ResNet(config, kind)
        if kind == "audio":
            prepare = Spectrogram(network.channels)
    if kind in ("frames", "image"):
        prepare = Pixels.of(name, config.get("pretrained"))
    if kind == "frames":
        backbone = Frames(backbone)
    return Encoder(prepare, backbone, width, config.get("train", "all"))


def _check(name: str, config: Mapping[str, Any], kind: str) -> None:
    if name not in SIZES:
        known = ", ".join(SIZES)
        raise IbmaError(f"params.yaml: unknown encoder '{name}': expected one of {known}")
    known_keys = {"name", "train", *SIZES[name]} | ({"pretrained"} if name != "mlp" else set())
    unknown = sorted(set(config) - known_keys)
    expected = ", ".join(sorted(known_keys))
    _require(
        not unknown, name, f"unknown key '{''.join(unknown[:1])}': expected some of {expected}"
    )
    train = config.get("train", "all")
    _require(train in TRAINED, name, f"train '{train}': expected one of {', '.join(TRAINED)}")
    _require(kind in READS[name], name, f"it reads {', '.join(READS[name])}, not {kind}")
    if config.get("pretrained") is not None:
        given = sorted(set(config) & set(SIZES[name]))
        _require(not given, name, f"{', '.join(given)}: sizes come with pretrained, remove them")


def _require(holds: bool, name: str, message: str) -> None:
    if not holds:
        raise IbmaError(f"params.yaml: encoder {name}: {message}")


def _block(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of a transformer, the base model's unless configured smaller."""
    width, heads = config.get("hidden_size", 768), config.get("heads", 12)
    name = str(config["name"])
    numbers = isinstance(width, int) and isinstance(heads, int) and heads > 0
    _require(
        numbers and width % heads == 0,
        name,
        f"hidden_size {width} is not a multiple of {heads} heads",
    )
    return {
        "hidden_size": width,
        "num_hidden_layers": config.get("layers", 12),
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }


def _family(source: object) -> str:
    """Return the kind of network that pretrained weights say they are; empty where none is read."""
    from transformers.configuration_utils import PretrainedConfig

    if source is None:
        return ""
    try:
        found, _ = PretrainedConfig.get_config_dict(pretrained.locate(str(source)))
    except OSError:  # `_network` says so
        return ""
    return str(found.get("model_type", ""))


def _network(
    model: Any,
    configuration: Any,
    sizes: dict[str, Any],
    config: Mapping[str, Any],
    unread: str | None = None,
    **options: Any,
) -> Any:
    """Build a transformers model at random from `sizes`, or with weights that config names.

    Args:
        unread: part of the names of tensors that may be missing.
    """
    from huggingface_hub.errors import StrictDataclassError

    name, source = config["name"], config.get("pretrained")
    if source is None:
        try:
            return model(configuration(**sizes), **options)
        except (StrictDataclassError, TypeError, ValueError) as error:
            raise IbmaError(
                f"params.yaml: encoder {name}: {' '.join(str(error).split())}"
            ) from None
    try:
        place = pretrained.locate(str(source))
        network, loaded = model.from_pretrained(place, output_loading_info=True, **options)
    except (OSError, ValueError) as error:
        raise IbmaError(
            f"params.yaml: encoder {name}: pretrained '{source}' is neither a folder of weights "
            f"nor to be downloaded ({str(error).splitlines()[0]}): correct the name, or download "
            "the weights first and name their folder"
        ) from None
    missing = [
        key
        for key in (*loaded["missing_keys"], *loaded["mismatched_keys"])
        if unread is None or unread not in str(key)
    ]
    _require(
        not missing,
        name,
        f"pretrained '{source}' lacks {len(missing)} of its tensors: it holds another network",
    )
    return network
