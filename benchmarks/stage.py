"""Compare the centroid stage with per-sample loops, and its speed with a copy's.

The loops are what a reader makes of the paper and of the released code: class means by walking the
samples and, for every label, adding each to its class; then, sample by sample and class by class,
the squared distance to every centroid and a softmax.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from benchmarks.measure import WALL, Goal, Row, every_core, interleaved, ratio, speed_up
from benchmarks.problems import Problem, View
from ibma.features.store import Features
from ibma.network.centroids import Assignment, InputSpace, stream

ROUNDS = 5
COPIED = 2**28  # bytes of the array whose copy measures the bandwidth


def ours(features: Features, name: str, systems: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return phi of every sample, as `centroids.InputAssignments.compute` gets it."""
    space = InputSpace(Assignment())
    space.fit((rows, systems[place]) for place, rows in stream(features, name, 0))
    return np.concatenate([space.phi(rows) for _, rows in stream(features, name, 0)])


def loops(kind: str, array: NDArray[np.generic], systems: NDArray[np.float32]) -> torch.Tensor:
    """Return phi of every sample, one at a time: [n, ...] and [n, G, K] -> [n, G, K]."""
    labels = torch.from_numpy(systems.argmax(-1))
    groups, classes = systems.shape[1:]
    sums = [[0.0] * classes for _ in range(groups)]
    counts = [[0] * classes for _ in range(groups)]
    for i in range(len(array)):
        x = one_vector(kind, array[i])
        for g in range(groups):
            for k in range(classes):
                if labels[i, g] == k:
                    sums[g][k] = sums[g][k] + x
                    counts[g][k] += 1
    centroids = [
        [F.normalize(s / n, dim=0) for s, n in zip(*pair, strict=True)]
        for pair in zip(sums, counts, strict=True)
    ]
    phi = torch.zeros(len(array), groups, classes)
    for i in range(len(array)):
        x = F.normalize(one_vector(kind, array[i]), dim=0)
        for g in range(groups):
            logits = [-torch.sum((x - centroid) ** 2) for centroid in centroids[g]]
            phi[i, g] = torch.softmax(torch.stack(logits), dim=0)
    return phi


def one_vector(kind: str, x: NDArray[np.generic]) -> torch.Tensor:
    """Return the input of one sample, [D]."""
    values = torch.from_numpy(x).float()
    if x.dtype == np.uint8:
        values = values / 255.0
    return (values.mean(0) if kind == "frames" else values).flatten()


def compared(label: str, view: View, n: int, groups: int, classes: int) -> Iterator[Row]:
    """Yield the rows of one modality: speed over the loops, bytes a second over a copy's."""
    rng = np.random.default_rng(0)
    systems = np.eye(classes, dtype=np.float32)[rng.integers(0, classes, (n, groups))]
    source = np.ones(COPIED // 4, dtype=np.float32)
    target = np.zeros_like(source)
    features = Problem({"x": view}, n, 1).features()
    array = features.arrays["x"]
    np.testing.assert_allclose(
        ours(features, "x", systems), loops(view.kind, array, systems), rtol=1e-4
    )
    times = interleaved(
        {
            "ours": lambda: ours(features, "x", systems),
            "loops": lambda: loops(view.kind, array, systems),
            "copy": lambda: np.copyto(target, source),
        },
        ROUNDS,
        WALL,
    )
    pair = {"streams": times["ours"], "per-sample loops": times["loops"]}
    yield speed_up(f"centroids and phi(X), {label}", pair, Goal("at least", 100.0))
    moved = 2 * array.nbytes  # two passes over the store
    bare = [moved / (2 * COPIED) * taken for taken in times["copy"]]
    pair = {"two reads at a copy's speed": bare, "per-sample loops": times["loops"]}
    yield speed_up(f"limit of that, {label}", pair)
    rates = [moved / taken for taken in times["ours"]]
    copies = [2 * COPIED / taken for taken in times["copy"]]  # read and written
    yield Row(
        f"share of memory bandwidth, {label}",
        f"{np.median(rates) / 1e9:.3g} GB/s",
        f"copy {np.median(copies) / 1e9:.3g} GB/s",
        ratio(rates, copies),
        "share",
    )


def rows() -> Iterator[Row]:
    """Take vectors of the paper's width, the released code's wide ones, and frames of video."""
    one_label, five_labels = (1, 6), (5, 2)  # CREMA-D and CheXpert: systems and classes
    narrow, wide = (View("vector", (width,), "float32", {}) for width in (512, 4096))
    film = View("frames", (3, 3, 224, 224), "uint8", {})
    with every_core():
        yield from compared("6,698 x 512 numbers, 6 classes", narrow, 6698, *one_label)
        yield from compared("6,698 x 512 numbers, 5 labels", narrow, 6698, *five_labels)
        yield from compared("2,000 x 4,096 numbers, 5 labels", wide, 2000, *five_labels)
        yield from compared("256 clips of 3 frames, 224 x 224, 6 classes", film, 256, *one_label)
