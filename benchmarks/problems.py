"""Generated features of a given shape, and the networks that train on them.

Features are random numbers: what a step costs does not depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ibma import methods
from ibma.features.store import Features
from ibma.network import tasks
from ibma.network.centroids import Assignment
from ibma.network.method import Method, Modality, Spec
from ibma.training.cell import Setting
from ibma.training.loop import Fit

SETTING = Setting(lr=1e-4, weight_decay=1e-5, eta=0.5)
BLOCK = 64  # rows that are drawn; a store repeats them


@dataclass(frozen=True)
class View:
    """One modality of a problem: its kind, shape and type in the store, and its encoder."""

    kind: str
    shape: tuple[int, ...]
    dtype: str
    encoder: Mapping[str, object]


@dataclass(frozen=True)
class Problem:
    """n samples of some views. width, heads: of the network; batch: samples of a step."""

    views: Mapping[str, View]
    n: int
    batch: int
    classes: int = 6
    width: int = 512
    heads: int = 8

    def store(self, folder: Path) -> Features:
        """Write the features and open them."""
        for name, view in self.views.items():
            shape = (self.n, *view.shape)
            out = np.lib.format.open_memmap(
                folder / f"{name}.npy", mode="w+", dtype=view.dtype, shape=shape
            )
            block = drawn(view)
            for start in range(0, self.n, BLOCK):
                out[start : start + BLOCK] = block[: self.n - start]
        lines = (f"{row},train,g{row},{row % self.classes},," for row in range(self.n))
        index = "\n".join(["id,split,group,label,dialogue,lacks", *lines])
        (folder / "index.csv").write_text(index + "\n", encoding="utf-8")
        meta: dict[str, Any] = {
            "kind": "classify",
            "classes": [str(label) for label in range(self.classes)],
            "folds": 0,
            "modalities": {
                name: {"kind": view.kind, "shape": view.shape, "dtype": view.dtype}
                for name, view in self.views.items()
            },
        }
        (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        return Features.read(folder)

    def spec(self, refresh: str = "epoch") -> Spec:
        """What a method is told of it; the constants of U are made up."""
        return Spec(
            modalities={n: Modality(v.kind, v.shape, v.encoder) for n, v in self.views.items()},
            task=tasks.build("classify", tuple(str(label) for label in range(self.classes))),
            width=self.width,
            heads=self.heads,
            epochs=500,
            systems=(1, self.classes),
            assignment=Assignment(),
            eta=SETTING.eta,
            u=dict.fromkeys(self.views, 0.1),
            refresh=refresh,
        )

    def build(
        self, method: str, device: torch.device, refresh: str = "epoch", start: int = 0
    ) -> Method:
        """A network. start: seed of its initial weights."""
        torch.manual_seed(start)
        return methods.build(method, self.spec(refresh)).to(device)

    def fit(
        self,
        method: str,
        features: Features,
        device: torch.device,
        refresh: str = "epoch",
        compiled: bool = False,
        seed: int = 0,
        epochs: int = 0,
    ) -> Fit:
        """The training of one method, with `epochs` epochs to go."""
        return Fit(
            self.build(method, device, refresh, seed),
            features.training(0),
            SETTING,
            seed=seed,
            epochs=epochs,
            batch_size=self.batch,
            device=device,
            compiled=compiled,
        )


def drawn(view: View) -> np.ndarray[Any, np.dtype[Any]]:
    """`BLOCK` random samples: pixels, or standard normal numbers."""
    rng = np.random.default_rng(0)
    shape = (BLOCK, *view.shape)
    if view.dtype == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape, dtype=np.float32).astype(view.dtype)


def one_more_epoch(fit: Fit) -> None:
    """As `ibma.timing` trains: no checkpoint, one epoch on."""
    fit.epochs += 1
    fit.run("benchmark")


def faces_and_voices(
    n: int,
    batch: int,
    size: int,
    spectrogram: tuple[int, int],
    sizes: Mapping[str, object] | None = None,
    width: int = 512,
) -> Problem:
    """CREMA-D's shape: three frames of size x size and a spectrogram, a ResNet each.

    sizes: of a smaller ResNet; ResNet-18 without.
    """
    encoder = {"name": "resnet", **(sizes or {})}
    views = {
        "audio": View("audio", spectrogram, "float16", {**encoder, "channels": 1}),
        "visual": View("frames", (3, 3, size, size), "uint8", {**encoder, "channels": 3}),
    }
    return Problem(views, n, batch, width=width)


TWIN = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


def twin_size() -> Problem:
    """The twin of CREMA-D as profile `twin` trains it."""
    return faces_and_voices(256, 16, 32, (32, 47), TWIN, width=32)


def middle_size() -> Problem:
    """Two ResNet-18 on small pictures: arithmetic outweighs what Python adds, on a CPU too."""
    return faces_and_voices(32, 16, 64, (64, 94))


def paper_size() -> Problem:
    """CREMA-D as the paper trains it: 6,698 clips, batch 64, two ResNet-18 of width 512."""
    return faces_and_voices(6698, 64, 224, (257, 188))
