"""Class centroids, distances and soft assignments phi, by FAISS (input space) and torch (features).

Shapes as in `ibma.bounds`: systems [n, G, K], centroids [G, K, D], phi [n, G, K].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ibma import bounds
from ibma.errors import IbmaError
from ibma.store import Features, Rows
from ibma.tasks import Task


@dataclass(frozen=True)
class Assignment:
    """How features are softly assigned to centroids.

    beta: inverse temperature of the squared distance. normalise: L2-normalise features and
    centroids first. The paper writes neither; the released code normalises with beta = 1
    (Statistical-Deep-Learning/IBMA@c04b18b, ib_loss.py), which keeps the logits in [-4 beta, 0].
    Without it, distances of 512-d features saturate phi to one-hot.
    """

    beta: float = 1.0
    normalise: bool = True

    def centroids(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Class means of raw features, then normalised (as the released code); absent class: zero.

        sums: [G, K, D], counts: [G, K] -> [G, K, D].
        """
        mean = sums / counts.clamp_min(1.0).unsqueeze(-1)
        return F.normalize(mean, dim=-1) if self.normalise else mean

    def prepare(self, features: Tensor) -> Tensor:
        """[n, D] as it enters a distance."""
        return F.normalize(features, dim=-1) if self.normalise else features

    def phi(self, features: Tensor, centroids: Tensor) -> Tensor:
        """Softmax over K of -beta ||f - c||^2. [n, D], [G, K, D] -> [n, G, K]."""
        f = self.prepare(features)
        squared = (
            f.square().sum(-1)[:, None, None]
            - 2.0 * torch.einsum("nd,gkd->ngk", f, centroids)
            + centroids.square().sum(-1)
        )
        return torch.softmax(-self.beta * squared, dim=-1)


@dataclass
class ClassSums:
    """Running sums per class, so that one pass over batches gives the centroids."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def zeros(cls, systems: tuple[int, int], width: int, like: Tensor) -> ClassSums:
        """Start at nothing; systems is (G, K), `like` gives device and dtype."""
        return cls(like.new_zeros((*systems, width)), like.new_zeros(systems))

    def add(self, features: Tensor, systems: Tensor) -> None:
        """features: [n, D], systems: [n, G, K]."""
        self.sums += torch.einsum("ngk,nd->gkd", systems, features)
        self.counts += systems.sum(0)


def input_vectors(kind: str, x: NDArray[np.generic], vocabulary: int = 0) -> NDArray[np.float32]:
    """The input X_j as vectors, [n, ...] -> [n, D].

    Sound, images and vectors are flattened (uint8 scaled to [0, 1]); frames are averaged over time
    first; token ids become counts over the vocabulary. CHOICE: the paper does not say what the
    input feature of a text is; counts need no second model (alternative: a frozen sentence vector,
    as in the released code).
    """
    if kind == "text":
        counts = np.zeros((len(x), vocabulary), dtype=np.float32)
        np.add.at(counts, (np.arange(len(x))[:, None], x.astype(np.int64)), 1.0)
        counts[:, 0] = 0.0  # padding
        return counts
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    vectors = x.astype(np.float32) / scale
    if kind == "frames":
        vectors = vectors.mean(axis=1)
    return np.ascontiguousarray(vectors.reshape(len(x), -1))


class InputSpace:
    """Centroids C_y of one modality's inputs and distances to them, by FAISS.

    One streaming pass over train gives the class means; distances come from an exact
    `IndexFlatL2` (on the GPU when FAISS has one), so that phi(X) is the same softmax as elsewhere.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.centroids: NDArray[np.float32] = np.zeros((0, 0, 0), dtype=np.float32)

    def _prepare(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.assignment.normalise:
            import faiss

            faiss.normalize_L2(vectors)
        return vectors

    def fit(self, chunks: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> None:
        """chunks: pairs of vectors [m, D] and one-hot systems [m, G, K] of the training split."""
        sums: NDArray[np.float64] | None = None
        counts: NDArray[np.float64] | None = None
        for vectors, systems in chunks:
            g, k = systems.shape[1:]
            flat = systems.reshape(len(systems), g * k)
            part = flat.T @ vectors
            sums = part.astype(np.float64) if sums is None else sums + part
            counts = flat.sum(0, dtype=np.float64) + (0.0 if counts is None else counts)
            shape = (g, k, vectors.shape[1])
        assert sums is not None and counts is not None, "an empty training split has no centroids"
        mean = (sums / np.maximum(counts, 1.0)[:, None]).astype(np.float32)
        self.centroids = self._prepare(np.ascontiguousarray(mean)).reshape(shape)

    def distances(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Squared distances [m, G, K] of vectors [m, D] to every centroid."""
        import faiss

        g, k, width = self.centroids.shape
        index: faiss.Index = faiss.IndexFlatL2(width)
        if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
            index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        index.add(self.centroids.reshape(g * k, width))
        squared, order = index.search(self._prepare(vectors), g * k)
        by_centroid = np.empty_like(squared)
        np.put_along_axis(by_centroid, order, squared, axis=1)
        return by_centroid.reshape(-1, g, k)

    def phi(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Soft assignments [m, G, K] of vectors [m, D]."""
        logits = torch.from_numpy(-self.assignment.beta * self.distances(vectors))
        return torch.softmax(logits, dim=-1).numpy()


def stream(
    rows: Rows, name: str, vocabulary: int, chunk: int = 256
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Input vectors of one modality, `chunk` rows at a time, each with the place of its first."""
    kind = rows.features.modalities[name].kind
    for start in range(0, len(rows.index), chunk):
        part = rows.features.arrays[name][rows.index[start : start + chunk]]
        yield start, input_vectors(kind, part, vocabulary)


def vocabulary_of(encoder: Mapping[str, object], kind: str) -> int:
    """Number of token ids of a text modality (0 for others)."""
    return int(str(encoder.get("vocab_size", 30522))) if kind == "text" else 0


@dataclass(frozen=True)
class InputAssignments:
    """What the centroid stage leaves for one test fold (or the fixed split).

    phi: modality -> phi(X) of every row of the store [n, G, K]. u: modality -> mean of U over
    train, in nats. prior: p_y [G, K].
    """

    phi: dict[str, Tensor]
    u: dict[str, float]
    prior: Tensor

    @classmethod
    def compute(
        cls,
        features: Features,
        run: int,
        task: Task,
        encoders: Mapping[str, Mapping[str, object]],
        assignment: Assignment,
    ) -> InputAssignments:
        """Centroids from the training rows of `run`, then phi(X) of every row."""
        train, everything = features.training(run), features.everything()
        systems = task.systems(train.labels())
        prior = bounds.priors(systems)
        phi, u = {}, {}
        for name, modality in features.modalities.items():
            vocabulary = vocabulary_of(encoders[name], modality.kind)
            space = InputSpace(assignment)
            one_hot = systems.numpy()
            space.fit(
                (vectors, one_hot[start : start + len(vectors)])
                for start, vectors in stream(train, name, vocabulary)
            )
            chunks = [space.phi(vectors) for _, vectors in stream(everything, name, vocabulary)]
            phi[name] = torch.from_numpy(np.concatenate(chunks))
            u[name] = float(bounds.u_term(phi[name][train.index], prior).mean())
        return cls(phi, u, prior)

    def write(self, path: Path) -> None:
        """Write one `.npz`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"phi/{name}": phi.numpy() for name, phi in self.phi.items()}
        scalars = {f"u/{name}": np.float64(u) for name, u in self.u.items()}
        np.savez(path, **arrays, **scalars, prior=self.prior.numpy())  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> InputAssignments:
        """Read what `write` wrote. Raises IbmaError when it is missing."""
        if not path.exists():
            raise IbmaError(f"{path}: missing: run `dvc repro centroids` first")
        with np.load(path) as file:
            phi = {k[4:]: torch.from_numpy(file[k]) for k in file if k.startswith("phi/")}
            u = {k[2:]: float(file[k]) for k in file if k.startswith("u/")}
            return cls(phi, u, torch.from_numpy(file["prior"]))


def file_name(fold: int | None) -> str:
    """Name of the file for a test fold (None: fixed split)."""
    return "split.npz" if fold is None else f"fold_{fold}.npz"
