"""Show where an image encoder looks: Grad-CAM (Selvaraju et al., ICCV 2017) of Figures 1 and 3.

Two numbers over the whole test split go with the pictures: the share of a map's energy inside the
region where the class shows, which is known on twins, and the deletion curve (Petsiuk et al., BMVC
2018). The maps themselves are captum's.

CHOICE: the class is the sample's own (multi-label: its first positive label), because the paper's
figures show correct labels. The score is that of the fused head and, where a network has one, that
of the modality's own head. Of a clip every frame has its map, and the middle one is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibma import paths, tables, twins
from ibma.datasets import Sample
from ibma.errors import IbmaError, progress_bar, tell
from ibma.experiments.probe import current_runs, refuse_one_class, restore
from ibma.features import extract, store
from ibma.features.store import Batch, Features
from ibma.files import write_json
from ibma.network import encoders
from ibma.network.method import FUSED, Method, Output
from ibma.network.tasks import Task, per_class
from ibma.params import Params
from ibma.training.cell import Cell, skipped
from ibma.training.loop import EVALUATION_BATCH, configure_torch, run_network, select_device

STEPS = 10  # of the deletion curve
# picture [3, S, S] and class -> where the class shows, [S, S]; None where that is not known
Region = Callable[[NDArray[np.uint8], int], NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Looked:
    """Maps of one network on the test split, for one class a sample.

    Args:
        rows: rows of the feature store, [n].
        classes: which class each map explains, [n].
        maps: see `explain`, [n, T, S, S] (T pictures a sample, 1 for a still).
        energy: share of the maps' sum inside the known region, averaged over samples; None where
            no region is known.
        deletion: mean probability of the class after 0, 10, .. 100 % of the pixels are replaced,
            most salient first.
        random: the same in a random order.
    """

    rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    maps: NDArray[np.float32]
    energy: float | None
    deletion: list[float]
    random: list[float]


def explain_tasks(params: Params) -> None:
    """Explain the first run of some methods on every task that params.yaml names.

    Raises:
        IbmaError: a run or its weights are missing, stale or damaged.
    """
    configure_torch(params.threads, compiled=False)
    device = select_device(params.device)
    explained = {}
    for task, modality in params.gradcam.tasks.items():
        if skipped(task):
            continue
        region = twins.region(params.task(task).dataset)
        looked = {
            _label(one.method, head): look(cell, 0, model, modality, region, device, head)
            for cell, one in current_runs(params, task, params.gradcam.methods, [0])
            for model in [restore(cell, one, one.id.weights, device)]
            for head in heads(cell, model, modality, device)
        }
        features = store.opened(paths.FEATURES / task)
        shown = examples(features, modality, looked, params.gradcam.examples)
        texts = _texts(params, task, [one["id"] for one in shown])
        for one in shown:
            one["text"] = texts.get(one["id"], "")
        explained[task] = summary(features, looked) | {"examples": shown}
    write_json(paths.GRADCAM, explained)


def _texts(params: Params, task: str, ids: Sequence[str]) -> dict[str, str]:
    """Read the words of some samples from the raw data: features hold their token ids only."""
    entry = params.task(task)
    raw = tables.raw(params, entry.dataset)
    if not raw.exists():
        tell(f"{task}: {raw} is gone: examples are shown without their texts")
        return {}
    dataset, options = tables.dataset(params, entry.dataset), entry.model_dump(mode="json")
    return {
        one.id: next((part for part in one.parts.values() if isinstance(part, str)), "")
        for one in extract.samples(dataset, raw, task, options)
        if isinstance(one, Sample) and one.id in ids
    }


def heads(cell: Cell, model: Method, modality: str, device: torch.device) -> list[str]:
    """List the heads that read a modality: the fused one, and its own where a network has it."""
    out = run_network(model, next(cell.open().test(0).batches(1, device)).x)
    return [FUSED, modality] if f"logits/{modality}" in out.extra else [FUSED]


def _label(method: str, head: str) -> str:
    return method if head == FUSED else f"{method}/{head}"


def _logits(out: Output, head: str) -> Tensor:
    return out.logits if head == FUSED else out.extra[f"logits/{head}"]


def look(
    cell: Cell,
    run: int,
    model: Method,
    modality: str,
    region: Region,
    device: torch.device,
    head: str = FUSED,
) -> Looked:
    """Explain every test sample's own class (multi-label: its first positive label).

    Args:
        model: trained, in evaluation mode.
        modality: of kind image or frames.
        head: one of `heads`.

    Raises:
        IbmaError: the task has one class, or the modality has no pictures.
    """
    refuse_one_class(cell, "gradcam.tasks")
    kind = cell.open().modalities[modality].kind
    if kind not in ("image", "frames"):
        raise IbmaError(f"params.yaml: gradcam: '{modality}' is {kind}: expected image or frames")
    parts: list[Looked] = []
    for batch, classes in _explained(cell, run, device):
        pictures = batch.x[modality]
        maps = explain(model, batch, modality, classes, head)
        random = torch.rand(maps.shape, generator=torch.Generator().manual_seed(0))
        curves = [
            _deletion(model, batch, modality, classes, order, cell.problem(), head)
            for order in (maps, random)
        ]
        stills = pictures.reshape(len(pictures), -1, *pictures.shape[-3:]).cpu().numpy()
        energy = None
        if cell.meta["source"] == "twin":  # of real data no region is known
            energy = _energy(maps.cpu().numpy(), stills, classes.numpy(), region)
        parts.append(
            Looked(
                batch.index.cpu().numpy(),
                classes.numpy(),
                maps.float().cpu().numpy(),
                energy,
                *curves,
            )
        )
    return _join(parts)


def _explained(cell: Cell, run: int, device: torch.device) -> Iterator[tuple[Batch, Tensor]]:
    """Yield test batches and the class to explain, without samples that have no positive label."""
    problem, test = cell.problem(), cell.open().test(run)
    label = f"gradcam {cell.task} {cell.method}"
    with progress_bar(total=len(test), desc=label, unit="sample") as bar:
        for batch in test.batches(EVALUATION_BATCH, device):
            hot = per_class(problem, problem.systems(batch.y.cpu()))
            kept = hot.any(1)
            if kept.any():
                there = kept.to(batch.y.device)
                x = {name: value[there] for name, value in batch.x.items()}
                yield Batch(x, batch.y[there], batch.index[there]), hot[kept].argmax(1)
            bar.update(len(batch.y))


def explain(
    model: Method, batch: Batch, modality: str, classes: Tensor, head: str = FUSED
) -> Tensor:
    """Compute maps of where a class shows in the pictures of a batch.

    Args:
        model: in evaluation mode.
        classes: which class to explain, [n].
        head: whose score, see `heads`.

    Returns:
        [n, T, S, S]; each picture's map runs from 0 to 1 (jacobgil/pytorch-grad-cam@66a8fe5,
        scale_cam_image), or is 0 where it would be flat.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    def logits(pictures: Tensor) -> Tensor:
        return _logits(model({**batch.x, modality: pictures}), head)

    pictures = batch.x[modality]
    size = pictures.shape[-1]
    with _watched(model.encoders[modality]) as layer:
        small = LayerGradCam(logits, layer).attribute(
            pictures, target=classes.to(pictures.device), relu_attributions=True
        )
    cam: Tensor = LayerAttribution.interpolate(small.detach(), (size, size), "bilinear")
    cam = cam.reshape(len(pictures), -1, size, size)
    cam = cam - cam.amin((-2, -1), keepdim=True)
    return cam / cam.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(cam.dtype).tiny)


class Watch(nn.Module):
    """Pass feature maps [n, C, h, w] on, with a gradient even where no parameter trains."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps."""
        return maps if maps.requires_grad else maps.detach().requires_grad_()


@contextmanager
def _watched(encoder: nn.Module) -> Iterator[Watch]:
    """Lead an encoder's last feature maps through a layer that captum can read."""
    watch = Watch()

    def lead(_: nn.Module, __: object, output: Tensor) -> Tensor:
        if output.dim() == 3:  # tokens of a ViT
            return _to_tokens(watch(_to_maps(output)), output)
        maps: Tensor = watch(output)
        return maps

    hook = _last_layer(encoder).register_forward_hook(lead)
    try:
        yield watch
    finally:
        hook.remove()


def _last_layer(encoder: nn.Module) -> nn.Module:
    """Return the last layer that still knows places: a ResNet's last stage, a ViT's last block."""
    backbone = encoder.get_submodule("backbone")
    if isinstance(backbone, encoders.Frames):
        backbone = backbone.get_submodule("network")
    network = backbone.get_submodule("network")
    if isinstance(backbone, encoders.ResNet):
        return list(network.get_submodule("encoder.stages").children())[-1]
    names = [name for name, _ in network.named_modules() if name.endswith("norm_before")]
    return network.get_submodule(names[-1])


def _to_maps(tokens: Tensor) -> Tensor:
    """Arrange the patches of tokens [n, 1 + h w, D], class token first, as maps [n, D, h, w]."""
    patches = tokens[:, 1:].transpose(1, 2)
    side = round(patches.shape[2] ** 0.5)
    return patches.reshape(*patches.shape[:2], side, side)


def _to_tokens(maps: Tensor, tokens: Tensor) -> Tensor:
    """Put maps [n, D, h, w] in the place of the patches of tokens [n, 1 + h w, D]."""
    return torch.cat([tokens[:, :1], maps.flatten(2).transpose(1, 2)], dim=1)


def _energy(
    maps: NDArray[np.float32],
    pictures: NDArray[np.uint8],
    classes: NDArray[np.int64],
    region: Region,
) -> float | None:
    """Average the share of a map's sum inside the known region; a map of zeros counts as 0."""
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
    model: Method,
    batch: Batch,
    modality: str,
    classes: Tensor,
    order: Tensor,
    problem: Task,
    head: str,
) -> list[float]:
    """Return the class's probability while the first pixels of an order become the mean colour."""
    pictures = batch.x[modality]
    flat = order.to(pictures.device).flatten(1)
    ranks = flat.argsort(dim=1, descending=True).argsort(dim=1)
    grey = pictures.float().mean((-1, -2), keepdim=True).to(pictures.dtype)
    curve = []
    for step in range(STEPS + 1):
        gone = (ranks < flat.shape[1] * step / STEPS).reshape(order.shape)
        gone = gone.reshape(*pictures.shape[:-3], 1, *pictures.shape[-2:])
        out = run_network(model, {**batch.x, modality: torch.where(gone, grey, pictures)})
        logits = _logits(out, head)
        p = per_class(problem, problem.log_probabilities(logits).exp())
        curve.append(float(p.gather(1, classes.to(p.device)[:, None]).mean()))
    return curve


def _join(parts: list[Looked]) -> Looked:
    """Join batches, means weighted by their sizes."""
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
    """Return the numbers over the test split: `energy`, `deletion`, `random`.

    Args:
        looked: `<method>`, or `<method>/<modality>` for the modality's own head -> what was seen.
    """
    numbers = ("energy", "deletion", "random")
    methods_ = {at: {name: getattr(one, name) for name in numbers} for at, one in looked.items()}
    count = len(next(iter(looked.values())).rows)
    return {"source": features.meta["source"], "n": count, "methods": methods_}


def examples(
    features: Features, modality: str, looked: Mapping[str, Looked], count: int
) -> list[dict[str, Any]]:
    """Return the first test samples of distinct classes: id, class, picture, map per head.

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
                    head: np.round(one.maps[place][middle], 3).tolist()
                    for head, one in looked.items()
                },
            }
        )
    return shown
