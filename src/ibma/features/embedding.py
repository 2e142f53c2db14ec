"""Turn pictures, sound and words into vectors by pretrained networks that nothing here trains.

A network is any image, audio or text model that transformers' AutoModel loads, from a folder, a
package or the hub; or EfficientNet-Lite0. CHOICE: a vector is what the model pools, where it has
such an output with trained weights, else the mean of its last states.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma import pretrained
from ibma.errors import IbmaError, one_line

FEATURES = {"image": "get_image_features", "audio": "get_audio_features"}  # of two-sided models


def words(text: str, max_length: int, name: str) -> NDArray[np.float32]:
    """Return the mean output over the tokens of a text, [width], as `encoders.Bert` reads it."""
    import torch

    model, _ = network(name)
    tokens = tokenizer(name)(text, truncation=True, max_length=max_length, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state
    vector: NDArray[np.float32] = states[0].mean(0).numpy()
    return vector


def pictures(pixels: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    """Return the mean vector of some pictures: uint8 [T, 3, S, S] -> [width].

    The model's own processor resizes and normalises; EfficientNet-Lite0 takes them as they are.
    """
    import torch

    if name == f"{pretrained.PACKAGE}{pretrained.LITE0}":
        from ibma.features import efficientnet

        torch.set_num_threads(1)  # extraction has a process per core
        with torch.inference_mode():
            return _mean(efficientnet.pretrained()(torch.from_numpy(pixels.copy())))
    inputs = _processor(name, "AutoImageProcessor")(
        images=list(pixels), return_tensors="pt", input_data_format="channels_first"
    )
    return _mean(_pooled(name, "image", pixel_values=inputs["pixel_values"]))


def rate(name: str) -> int:
    """Return the samples per second that an audio model reads."""
    return int(_processor(name, "AutoFeatureExtractor").sampling_rate)


def sound(wave: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Return the vector of a sound [n] at `rate(name)` samples per second: [width]."""
    processor = _processor(name, "AutoFeatureExtractor")
    inputs = processor(wave, sampling_rate=processor.sampling_rate, return_tensors="pt")
    return _mean(_pooled(name, "audio", **inputs))


def _pooled(name: str, kind: str, **inputs: Any) -> Any:
    """Return a vector of each example, [B, width]."""
    import torch

    model, pools = network(name)
    with torch.inference_mode():
        if hasattr(model, FEATURES[kind]):
            found = getattr(model, FEATURES[kind])(**inputs)
            return getattr(found, "pooler_output", found)
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        out = model(**inputs)
    if pools and (pooled := getattr(out, "pooler_output", None)) is not None:
        return pooled.flatten(1)
    return out.last_hidden_state.mean(1)


def _mean(vectors: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = vectors.float().mean(0).numpy()
    return found


@cache
def tokenizer(name: str) -> Any:
    """Load a tokenizer."""
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer, "tokenizer", name)


@cache
def network(name: str) -> tuple[Any, bool]:
    """Load a model, in evaluation mode; say whether its pooling layer, if any, has weights.

    Raises:
        IbmaError: It is not there, or lacks weights: what is made at random says nothing.
    """
    import torch
    from transformers import AutoModel

    torch.set_num_threads(1)  # extraction has a process per core
    model, loaded = _loaded(AutoModel, "embedding", name, output_loading_info=True)
    missing = {key for key in loaded["missing_keys"] if "pooler" not in key}
    if missing:
        raise IbmaError(
            f"params.yaml: embedding '{name}' lacks {len(missing)} of its tensors, the first "
            f"{min(missing)}: it holds another network"
        )
    return model.eval(), len(loaded["missing_keys"]) == 0


@cache
def _processor(name: str, kind: str) -> Any:
    import transformers

    return _loaded(getattr(transformers, kind), "embedding", name)


def _loaded(kind: Any, parameter: str, name: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(pretrained.locate(name), **options)
    except (OSError, ValueError, ImportError) as error:
        raise IbmaError(
            f"params.yaml: {parameter} '{name}' is neither a folder nor to be downloaded "
            f"({one_line(error)[:200]}): download it first and name its folder"
        ) from None
