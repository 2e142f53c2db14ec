"""Make features of a given shape, and the networks that train on them.

Features are random numbers: what a step costs does not depend on them. They live in memory; nothing
of the pipeline is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ibma import methods
from ibma.features.store import Features, StoredModality, Tables
from ibma.network import tasks
from ibma.network.centroids import INPUT_WIDTH, Assignment
from ibma.network.method import Method, Modality, Spec
from ibma.training.cell import Setting
from ibma.training.loop import Fit

SETTING = Setting(lr=1e-4, weight_decay=1e-5, eta=0.5)
BLOCK = 64  # rows that are drawn; a store repeats them
VOCABULARY = 30522  # token ids of BERT; 0 is padding


@dataclass(frozen=True)
class View:
    """One modality of a problem.

    Args:
        kind, shape, dtype: of an example in the feature store.
        encoder: parameters of `encoders.build`.
        tokens: mean and deviation of a text's length in tokens; texts fill their shape without.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    encoder: Mapping[str, object]
    tokens: tuple[float, float] | None = None


@dataclass(frozen=True)
class Problem:
    """Some samples of some views.

    Args:
        n: number of samples.
        batch: samples of a step.
        width, heads: of the network.
    """

    views: Mapping[str, View]
    n: int
    batch: int
    classes: int = 6
    width: int = 512
    heads: int = 8
    kind: str = "classify"

    def features(self) -> Features:
        """Draw the features, in memory."""
        modalities, arrays = {}, {}
        for name, view in self.views.items():
            modalities[name] = StoredModality(view.kind, view.shape, view.dtype)
            arrays[name] = np.empty((self.n, *view.shape), view.dtype)
            block = drawn(view)
            for start in range(0, self.n, BLOCK):
                arrays[name][start : start + BLOCK] = block[: self.n - start]
        return features_of(self, modalities, arrays, np.arange(self.n) % self.classes)

    def one_hot(self) -> NDArray[np.float32]:
        """Return the class of each sample as `network.tasks` has it, [n, 1, K]."""
        return np.eye(self.classes, dtype=np.float32)[np.arange(self.n) % self.classes][:, None]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes, or of the labels of multi-label data."""
        return tuple(str(label) for label in range(self.classes))

    @property
    def systems(self) -> tuple[int, int]:
        """Return the label shape (G, K) of `ibma.network.tasks`."""
        return (self.classes, 2) if self.kind == "multilabel" else (1, self.classes)

    def spec(self, refresh: str = "epoch") -> Spec:
        """Describe the problem to a method; the constants of U are made up.

        Two epochs: after the first, every phase of a method has begun.
        """
        return Spec(
            modalities={n: Modality(v.kind, v.shape, v.encoder) for n, v in self.views.items()},
            task=tasks.build(self.kind, self.names),
            width=self.width,
            heads=self.heads,
            epochs=2,
            systems=self.systems,
            assignment=Assignment(),
            eta=SETTING.eta,
            u=dict.fromkeys(self.views, 0.1),
            input_widths=dict.fromkeys(self.views, INPUT_WIDTH),
            refresh=refresh,
        )

    def tables(self, device: torch.device) -> Tables:
        """Draw what stage `centroids` knows of each row: phi(X) and X as vectors."""
        generator = torch.Generator().manual_seed(0)
        phi = torch.rand((self.n, *self.systems), generator=generator).softmax(-1).to(device)
        inputs = torch.randn((self.n, INPUT_WIDTH), generator=generator).to(device)
        return Tables(dict.fromkeys(self.views, phi), dict.fromkeys(self.views, inputs))

    def build(
        self,
        method: str,
        device: torch.device,
        refresh: str = "epoch",
        start: int = 0,
        **hparams: object,
    ) -> Method:
        """Build a network.

        Args:
            start: seed of its initial weights.
            hparams: of the method.
        """
        torch.manual_seed(start)
        return methods.build(method, self.spec(refresh), **hparams).to(device)

    def fit(
        self,
        method: str,
        features: Features,
        device: torch.device,
        refresh: str = "epoch",
        compiled: bool = False,
        seed: int = 0,
        epochs: int = 0,
        **hparams: object,
    ) -> Fit:
        """Prepare the training of one method, with `epochs` epochs to go."""
        return Fit(
            self.build(method, device, refresh, seed, **hparams),
            features.training(0).joined(self.tables(device)),
            SETTING,
            seed=seed,
            epochs=epochs,
            batch_size=self.batch,
            device=device,
            compiled=compiled,
            quiet=True,
        )


def features_of(
    problem: Problem,
    modalities: Mapping[str, StoredModality],
    arrays: Mapping[str, NDArray[Any]],
    classes: NDArray[np.int64],
) -> Features:
    """Make features of given arrays, all of them training samples.

    Args:
        classes: of each sample, [n]; of multi-label data their binary digits are the labels.
    """
    labels = classes[:, None]
    if problem.kind == "multilabel":
        labels = labels >> np.arange(problem.classes) & 1
    n = len(classes)
    return Features(
        meta={"kind": problem.kind, "classes": problem.names, "folds": 0},
        modalities=modalities,
        arrays=arrays,
        labels=labels.astype(np.float64),
        ids=[str(row) for row in range(n)],
        groups=np.arange(n).astype(str),
        splits=np.full(n, "train"),
        dialogues=np.full(n, ""),
    )


def drawn(view: View) -> NDArray[Any]:
    """Draw `BLOCK` samples: pixels, token ids, or standard normal numbers."""
    rng = np.random.default_rng(0)
    shape = (BLOCK, *view.shape)
    if view.kind == "text":
        known = int(str(view.encoder.get("vocab_size", VOCABULARY)))
        ids = rng.integers(1, known, shape, dtype=np.int32)
        if view.tokens is not None:
            lengths = rng.normal(*view.tokens, BLOCK).clip(8, view.shape[0]).astype(int)
            ids[np.arange(view.shape[0]) >= lengths[:, None]] = 0
        return ids.astype(view.dtype)
    if view.dtype == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape, dtype=np.float32).astype(view.dtype)


def one_more_epoch(fit: Fit) -> None:
    """Train one epoch as stage `timing` does: without a checkpoint."""
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
    """Take CREMA-D's shape: three frames of size x size and a spectrogram, a ResNet each.

    Args:
        sizes: of a smaller ResNet; ResNet-18 without.
    """
    encoder = {"name": "resnet", **(sizes or {})}
    views = {
        "audio": View("audio", spectrogram, "float16", {**encoder, "channels": 1}),
        "visual": View("frames", (3, 3, size, size), "uint8", {**encoder, "channels": 3}),
    }
    return Problem(views, n, batch, width=width)


TWIN = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
CREMA_D_CLIPS = 6698  # training clips of the paper's split (Table 1)


def twin_size() -> Problem:
    """Take the twin of CREMA-D as profile `twin` trains it."""
    return faces_and_voices(256, 16, 32, (32, 47), TWIN, width=32)


def middle_size() -> Problem:
    """Take two ResNet-18 on small pictures: arithmetic outweighs what Python adds, even on CPUs."""
    return faces_and_voices(32, 16, 64, (64, 94))


def paper_size() -> Problem:
    """Take CREMA-D as the paper trains it: batch 64, two ResNet-18 of width 512."""
    return faces_and_voices(CREMA_D_CLIPS, 64, 224, (257, 188))


def pictures_and_reports(
    n: int,
    batch: int = 64,
    size: int = 224,
    length: int = 256,
    vit: Mapping[str, object] | None = None,
    bert: Mapping[str, object] | None = None,
    width: int = 512,
) -> Problem:
    """Take MIMIC-CXR's shape: a radiograph and a report of about 100 tokens, five findings.

    Args:
        length: tokens that a report is padded to.
        vit, bert: of smaller networks; ViT-B/16 and BERT-base without.
    """
    views = {
        "image": View("image", (3, size, size), "uint8", {"name": "vit", **(vit or {})}),
        "text": View(
            "text",
            (length,),
            "int32",
            {"name": "bert", **(bert or {})},
            tokens=(0.4 * length, 0.15 * length),
        ),
    }
    return Problem(views, n, batch, classes=5, width=width, kind="multilabel")


BLOCK_SIZES = {"hidden_size": 32, "layers": 1, "heads": 2}


def tiny_reports() -> Problem:
    """Take pictures and reports with networks of a size for tests."""
    vit = {**BLOCK_SIZES, "size": 32, "patch_size": 8}
    bert = {**BLOCK_SIZES, "vocab_size": 512, "max_length": 32}
    return pictures_and_reports(48, 16, 32, 32, vit, bert, width=32)
