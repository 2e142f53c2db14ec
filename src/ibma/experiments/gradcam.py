"""Where an image encoder looks: Grad-CAM (Selvaraju et al., ICCV 2017) of Figures 1 and 3.

Beside the pictures two numbers over the whole test split: the share of a map's energy inside the
region that matters, which is known on twins, and the deletion curve (Petsiuk et al., BMVC 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.errors import IbmaError
from ibma.experiments.probe import per_class
from ibma.features.store import Batch, Features
from ibma.network import encoders
from ibma.network.method import Method
from ibma.training.loop import EVALUATION_BATCH, Cell

STEPS = 10  # of the deletion curve
# picture [3, S, S] and class -> where the class shows, [S, S]; None where it cannot be told
Region = Callable[[NDArray[np.uint8], int], NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Looked:
    """Maps of one network on the test split, for one class a sample.

    rows: rows of the feature store [n]. classes: which class each map explains [n]. maps: in
    [0, 1], [n, T, S, S] (T pictures a sample, 1 for a still). energy: share of the maps' sum inside
    the known region, mean over samples; None where no region is known. deletion: mean probability
    of the class after 0, 10, .. 100 % of the pixels are gone, most salient first; random: in a
    random order.
    """

    rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    maps: NDArray[np.float32]
    energy: float | None
    deletion: list[float]
    random: list[float]


def look(cell: Cell, run: int, model: Method, modality: str, region: Region) -> Looked:
    """Explain every test sample's own class (multi-label: its first positive label).

    model: trained, in evaluation mode. modality: of kind image or frames.

    Raises IbmaError when the modality has no pictures.
    """
    kind = cell.features.modalities[modality].kind
    if kind not in ("image", "frames"):
        raise IbmaError(f"params.yaml: gradcam: '{modality}' is {kind}: expected image or frames")
    layer = _layer(model.encoders[modality])
    found: list[Looked] = []
    for batch, classes in _explained(cell, run):
        pictures = batch.x[modality]
        maps = _cam(model, layer, batch, classes, pictures)
        curves = [
            _deletion(model, batch, modality, classes, order, cell)
            for order in (maps, torch.rand(maps.shape, generator=torch.Generator().manual_seed(0)))
        ]
        stills = pictures.reshape(len(pictures), -1, *pictures.shape[-3:]).cpu().numpy()
        energy = None
        if cell.features.meta["source"] == "twin":  # of real data no region is known
            energy = _energy(maps.cpu().numpy(), stills, classes.numpy(), region)
        found.append(
            Looked(
                batch.index.cpu().numpy(),
                classes.numpy(),
                maps.float().cpu().numpy(),
                energy,
                *curves,
            )
        )
    return _joined(found)


def _explained(cell: Cell, run: int) -> Iterator[tuple[Batch, Tensor]]:
    """Test batches and the class to explain; samples without a positive label are left out."""
    for batch in cell.features.test(run).batches(EVALUATION_BATCH, cell.device):
        hot = per_class(cell.task.systems(batch.y.cpu()))
        kept = hot.any(1)
        if kept.any():
            x = {name: value[kept.to(value.device)] for name, value in batch.x.items()}
            there = kept.to(batch.y.device)
            part = Batch(x, batch.y[there], batch.index[there])
            yield part, hot[kept].argmax(1)


def _layer(encoder: nn.Module) -> nn.Module:
    """The last layer that still knows places: a ResNet's last stage, a ViT's last block."""
    backbone = encoder.get_submodule("backbone")
    if isinstance(backbone, encoders.Frames):
        backbone = backbone.get_submodule("network")
    network = backbone.get_submodule("network")
    if isinstance(backbone, encoders.ResNet):
        return network.get_submodule("encoder")
    norms = [module for name, module in network.named_modules() if name.endswith("norm_before")]
    found: nn.Module = norms[-1]
    return found


def _cam(
    model: Method, layer: nn.Module, batch: Batch, classes: Tensor, pictures: Tensor
) -> Tensor:
    """Maps [n, T, S, S]: ReLU of activations weighted by the mean gradient of the class's logit."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Any) -> None:
        places: Tensor = output if isinstance(output, Tensor) else output[0]
        kept.append(places if places.requires_grad else places.requires_grad_())

    hook = layer.register_forward_hook(keep)
    try:
        logits = model(batch.x).logits
    finally:
        hook.remove()
    chosen = logits.gather(1, classes.to(logits.device)[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, kept[0])
    places, slopes = _spatial(kept[0].detach()), _spatial(gradient)
    weights = slopes.mean((2, 3), keepdim=True)
    cam = F.relu((weights * places).sum(1, keepdim=True))
    size = pictures.shape[-1]
    cam = F.interpolate(cam, (size, size), mode="bilinear", align_corners=False)
    cam = cam.reshape(len(pictures), -1, size, size)
    peak = cam.amax((1, 2, 3), keepdim=True)
    return cam / peak.clamp_min(torch.finfo(cam.dtype).tiny)


def _spatial(values: Tensor) -> Tensor:
    """[N, C, h, w] as it is; a ViT's tokens [N, 1 + h w, D] as [N, D, h, w]."""
    if values.dim() == 4:
        return values
    patches = values[:, 1:].transpose(1, 2)
    side = round(patches.shape[2] ** 0.5)
    return patches.reshape(*patches.shape[:2], side, side)


def _energy(
    maps: NDArray[np.float32],
    pictures: NDArray[np.uint8],
    classes: NDArray[np.int64],
    region: Region,
) -> float | None:
    """Mean share of a map's sum inside the known region; a map of zeros counts as 0."""
    shares = []
    for each, stills, label in zip(maps, pictures, classes.tolist(), strict=True):
        masks = [region(still, label) for still in stills]
        known = [i for i, mask in enumerate(masks) if mask is not None]
        if known:
            inside = sum(float((each[i] * masks[i]).sum()) for i in known)
            shares.append(inside / max(float(each[known].sum()), 1e-12))
    return float(np.mean(shares)) if shares else None


@torch.no_grad()
def _deletion(
    model: Method, batch: Batch, modality: str, classes: Tensor, order: Tensor, cell: Cell
) -> list[float]:
    """Probability of the class while the first pixels of an order give way to the mean colour."""
    pictures = batch.x[modality]
    flat = order.to(pictures.device).flatten(1)
    ranks = flat.argsort(dim=1, descending=True).argsort(dim=1)
    grey = pictures.float().mean((-1, -2), keepdim=True).to(pictures.dtype)
    curve = []
    for step in range(STEPS + 1):
        gone = (ranks < flat.shape[1] * step / STEPS).reshape(order.shape)
        gone = gone.reshape(*pictures.shape[:-3], 1, *pictures.shape[-2:])
        logits = model({**batch.x, modality: torch.where(gone, grey, pictures)}).logits
        p = per_class(cell.task.log_probabilities(logits.float()).exp())
        curve.append(float(p.gather(1, classes.to(p.device)[:, None]).mean()))
    return curve


def _joined(parts: list[Looked]) -> Looked:
    """Batches as one, means weighted by their sizes."""
    sizes = [len(part.rows) for part in parts]
    energies = [part.energy for part in parts]
    known = [e for e in energies if e is not None]
    weights = [n for n, e in zip(sizes, energies, strict=True) if e is not None]
    return Looked(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.maps for part in parts]),
        float(np.average(known, weights=weights)) if known else None,
        np.average([part.deletion for part in parts], axis=0, weights=sizes).tolist(),
        np.average([part.random for part in parts], axis=0, weights=sizes).tolist(),
    )


def summary(features: Features, looked: Mapping[str, Looked]) -> dict[str, Any]:
    """The numbers over the test split, per method: `energy`, `deletion`, `random`."""
    numbers = ("energy", "deletion", "random")
    methods_ = {m: {name: getattr(one, name) for name in numbers} for m, one in looked.items()}
    count = len(next(iter(looked.values())).rows)
    return {"source": features.meta["source"], "n": count, "methods": methods_}


def examples(
    features: Features, modality: str, looked: Mapping[str, Looked], count: int
) -> list[dict[str, Any]]:
    """The first test samples of distinct classes, as JSON: id, class, picture, map per method.

    The choice depends on the order of the data set alone, never on the maps.
    """
    first = next(iter(looked.values()))
    places: dict[int, int] = {}
    for place, label in enumerate(first.classes.tolist()):
        places.setdefault(label, place)
    shown = []
    for label, place in list(places.items())[:count]:
        row = int(first.rows[place])
        picture = np.asarray(features.arrays[modality][row])
        middle = len(first.maps[place]) // 2  # of the pictures of a clip
        still = picture.reshape(-1, *picture.shape[-3:])[middle]
        shown.append(
            {
                "id": features.ids[row],
                "class": features.meta["classes"][label],
                "picture": still.transpose(1, 2, 0).tolist(),
                "maps": {
                    method: np.round(one.maps[place][middle], 3).tolist()
                    for method, one in looked.items()
                },
            }
        )
    return shown
