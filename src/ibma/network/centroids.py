"""Compute class centroids and soft assignments phi: inputs by FAISS, representations by torch.

Shapes as in `ibma.network.bounds`: systems [n, G, K], centroids [G, K, D], phi [n, G, K].
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ibma.errors import IbmaError, progress_bar
from ibma.features.store import Features, Tables
from ibma.files import atomic_file, atomic_folder, read_json, required, write_json
from ibma.formats import checksums
from ibma.network import bounds
from ibma.network.tasks import Task

SUMS = "sums.json"  # of the files beside it, and of the features that they were made of
PHI = {"printed": False, "unit": True}  # regime of phi -> whether vectors are normalised first


@dataclass(frozen=True)
class Assignment:
    """How features are softly assigned to centroids.

    There are two regimes (`PHI`). The paper's section 3.1 takes vectors as they are: distances grow
    with the width and the norm of the embedding, so that phi is soon nearly one-hot. The released
    code (Statistical-Deep-Learning/IBMA@c04b18b, ib_loss.py) takes unit vectors, which keeps the
    logits in [-4 beta, 0] and phi nearly flat at its beta of 1. The paper's formula has no beta,
    which is beta = 1.

    Args:
        beta: inverse temperature of the squared distance.
        normalise: L2-normalise features and centroids first.
    """

    beta: float = 1.0
    normalise: bool = True

    def centroids(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Return class means of raw features, then normalised as in the released code.

        Args:
            sums: [G, K, D].
            counts: [G, K]; a class without samples gets a zero centroid.

        Returns:
            [G, K, D].
        """
        mean = sums / counts.clamp_min(1.0).unsqueeze(-1)
        return F.normalize(mean, dim=-1) if self.normalise else mean

    def prepare(self, features: Tensor) -> Tensor:
        """Return features [n, D] as they enter a distance."""
        return F.normalize(features, dim=-1) if self.normalise else features

    def phi(self, features: Tensor, centroids: Tensor) -> Tensor:
        """Assign features [n, D] to centroids [G, K, D]: softmax over K of -beta ||f - c||^2."""
        f = self.prepare(features)
        squared = (
            f.square().sum(-1)[:, None, None]
            - 2.0 * torch.einsum("nd,gkd->ngk", f, centroids)
            + centroids.square().sum(-1)
        )
        return torch.softmax(-self.beta * squared, dim=-1)


@dataclass
class ClassSums:
    """Add up features per class, so that one pass over batches gives the centroids."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def zeros(cls, systems: tuple[int, int], width: int, like: Tensor) -> ClassSums:
        """Start at zero for systems (G, K); `like` gives device and dtype."""
        return cls(like.new_zeros((*systems, width)), like.new_zeros(systems))

    def add(self, features: Tensor, systems: Tensor) -> None:
        """Add features [n, D] of class systems [n, G, K]."""
        self.sums += torch.einsum("ngk,nd->gkd", systems, features)
        self.counts += systems.sum(0)


def input_vectors(kind: str, x: NDArray[np.generic], vocabulary: int = 0) -> NDArray[np.float32]:
    """Return inputs X_j as vectors, [n, ...] -> [n, D]; a view of `x` where it is that already.

    Sound, images and vectors are flattened (uint8 scaled to [0, 1]); frames are averaged over time
    first; token ids become counts over the vocabulary. CHOICE: the paper does not say what the
    input feature of a text is; counts need no second model (alternative: a frozen sentence vector,
    as in the released code).
    """
    values = torch.from_numpy(x)
    if kind == "text":
        ids = values.long()
        counts = torch.zeros(len(x), vocabulary).scatter_add_(1, ids, torch.ones(ids.shape))
        counts[:, 0] = 0.0  # padding
        return counts.numpy()
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    if kind == "frames":
        scale *= x.shape[1]
        # whole numbers add up several times faster than a mean in floats does
        whole = torch.int16 if scale < 2**15 else torch.int32
        exact = whole if x.dtype == np.uint8 else torch.float32
        total = values[:, 0].to(exact, copy=True)
        for step in range(1, x.shape[1]):
            total += values[:, step]
        values = total
    vectors = values.to(torch.float32)
    if scale != 1.0:
        vectors *= 1.0 / scale
    return vectors.reshape(len(x), -1).numpy()


class InputSpace:
    """Compute the centroids C_y of one modality's inputs and distances to them, by FAISS.

    Distances are exact and in full (on the GPU when FAISS has one), so that phi(X) is the same
    softmax as elsewhere. The estimators run where FAISS is not installed; torch computes them then.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.centroids: NDArray[np.float32] = np.zeros((0, 0, 0), dtype=np.float32)
        self._faiss = _faiss()
        has_gpu = hasattr(self._faiss, "StandardGpuResources") and self._faiss.get_num_gpus()
        self._gpu: Any = self._faiss.StandardGpuResources() if has_gpu else None

    def _prepare(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.assignment.prepare(torch.from_numpy(vectors)).numpy()

    def fit(self, chunks: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> None:
        """Average inputs per class.

        Args:
            chunks: pairs of vectors [m, D] and class systems [m, G, K], zero for held-out rows.
        """
        sums: Tensor | None = None
        counts: Tensor | None = None
        for vectors, systems in chunks:
            shape = (*systems.shape[1:], vectors.shape[1])
            flat = torch.from_numpy(systems).flatten(1)
            if sums is None or counts is None:
                sums = torch.zeros(flat.shape[1], shape[2], dtype=torch.float64)
                counts = torch.zeros(flat.shape[1], dtype=torch.float64)
            sums += flat.T @ torch.from_numpy(vectors)
            counts += flat.sum(0)
        assert sums is not None and counts is not None, "an empty training split has no centroids"
        mean = sums / counts.clamp_min(1.0).unsqueeze(-1)
        self.centroids = self._prepare(mean.float().numpy()).reshape(shape)

    def distances(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return squared distances [m, G, K] of vectors [m, D] to every centroid."""
        pair = self._prepare(vectors), self.centroids.reshape(-1, self.centroids.shape[-1])
        if self._faiss is None:
            a, b = map(torch.from_numpy, pair)
            squared = torch.cdist(a, b).square().numpy()
        elif self._gpu is None:
            squared = self._faiss.pairwise_distances(*pair)
        else:
            squared = self._faiss.pairwise_distance_gpu(self._gpu, *pair)
        return cast(NDArray[np.float32], squared.reshape(-1, *self.centroids.shape[:2]))

    def phi(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return soft assignments [m, G, K] of vectors [m, D]."""
        logits = torch.from_numpy(-self.assignment.beta * self.distances(vectors))
        return torch.softmax(logits, dim=-1).numpy()


def _faiss() -> Any:
    """Import FAISS; None where it is not installed."""
    return importlib.import_module("faiss") if find_spec("faiss") else None


CHUNK = 2**21  # floats converted at a time: 8 MB, which caches hold
FEWEST = 16  # rows at a time, however wide they are: products with fewer read more than they do


def stream(
    features: Features, name: str, vocabulary: int, at_least: int = FEWEST
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield input vectors of one modality in store order, some rows at a time, with their place.

    Memory does not grow with n; what is done with a chunk uses every core by itself.

    Args:
        at_least: rows in a chunk.
    """
    kind, array = features.modalities[name].kind, features.arrays[name]
    rows = max(CHUNK // input_vectors(kind, array[:1], vocabulary).shape[1], at_least)
    parts = range(0, len(array), rows)
    for start in progress_bar(parts, desc=f"inputs {name}", unit="part", delay=2.0):
        place = slice(start, start + rows)
        yield place, input_vectors(kind, array[place], vocabulary)


def vocabulary_of(encoder: Mapping[str, object], features: Features, name: str) -> int:
    """Return the number of token ids of a text modality, 0 for others.

    Pretrained encoders bring their own: BERT's, or as many as the stored ids need.
    """
    if features.modalities[name].kind != "text":
        return 0
    stored = int(features.arrays[name].max(initial=0)) + 1
    return max(int(str(encoder.get("vocab_size", 30522))), stored)


INPUT_WIDTH = 512  # wider inputs are projected to this; CHOICE: the paper's embedding size


def projected(
    features: Features, name: str, vocabulary: int
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield the inputs of one modality as vectors of at most `INPUT_WIDTH`, with their place.

    CHOICE: a fixed Gaussian random projection where the input is wider (raw pixels, spectrograms);
    it keeps distances up to a few percent and needs no second model.
    """
    mixing: NDArray[np.float32] | None = None
    for place, vectors in stream(features, name, vocabulary, at_least=128):
        width = vectors.shape[1]
        if width > INPUT_WIDTH and mixing is None:
            normal = np.random.default_rng(0).standard_normal(
                (width, INPUT_WIDTH), dtype=np.float32
            )
            mixing = normal / np.sqrt(INPUT_WIDTH, dtype=np.float32)
        yield place, vectors if mixing is None else vectors @ mixing


def input_arrays(
    features: Features, encoders: Mapping[str, Mapping[str, object]]
) -> dict[str, NDArray[np.float32]]:
    """Return modality -> its inputs as `projected` yields them, whole: [n, R].

    Args:
        encoders: modality -> parameters of its encoder.
    """
    arrays = {}
    for name in features.modalities:
        vocabulary = vocabulary_of(encoders[name], features, name)
        arrays[name] = np.concatenate([part for _, part in projected(features, name, vocabulary)])
    return arrays


def project(features: Features, name: str, vocabulary: int, path: Path) -> None:
    """Write what `projected` yields as one array [n, R]; a part is held at a time."""
    # no memory map: writing into one on a full disk ends the process without a word
    with atomic_file(path) as file:
        for place, vectors in projected(features, name, vocabulary):
            if not place.start:
                shape = (len(features.ids), vectors.shape[1])
                head = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, head)
            file.write(np.ascontiguousarray(vectors, "<f4").data)


@dataclass(frozen=True)
class InputVectors:
    """Inputs X_j of every row of the store as standardised vectors of modest width.

    Args:
        array: [n, R], a memory map until `to` moves it.
        mean, scale: over the training split of a run, [R]; a constant dimension has scale 1.
    """

    array: Tensor
    mean: Tensor
    scale: Tensor

    @classmethod
    def over(cls, array: NDArray[np.float32], train: NDArray[np.int64]) -> InputVectors:
        """Standardise by the rows `train`, read a slice at a time."""
        total = np.zeros(array.shape[1])
        squares = np.zeros(array.shape[1])
        for start in range(0, len(train), 4096):
            part = array[train[start : start + 4096]].astype(np.float64)
            total += part.sum(0)
            squares += np.square(part).sum(0)
        mean = total / len(train)
        scale = np.sqrt(np.maximum(squares / len(train) - np.square(mean), 0.0))
        scale[scale < 1e-6] = 1.0
        statistics = (torch.from_numpy(mean).float(), torch.from_numpy(scale).float())
        return cls(torch.from_numpy(array), *statistics)

    @property
    def width(self) -> int:
        """Return R."""
        return int(self.array.shape[1])

    def to(self, device: torch.device) -> InputVectors:
        """Move the vectors to a device, where `__getitem__` reads them."""
        return InputVectors(self.array.to(device), self.mean.to(device), self.scale.to(device))

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return the standardised vectors [B, R] of store rows [B]."""
        return (self.array[index] - self.mean) / self.scale


def pseudo_classes(
    vectors: Mapping[str, InputVectors], train: NDArray[np.int64], classes: int
) -> Tensor:
    """Cluster the training inputs by FAISS k-means; return every row's cluster, one-hot [n, K].

    One-class data has a single label, on which phi is 1 and IBB vanishes. CHOICE: clusters of all
    modalities' concatenated input vectors take the place of classes.
    """
    import faiss

    everything = torch.arange(len(next(iter(vectors.values())).array))
    joint = torch.cat([value[everything] for value in vectors.values()], dim=1).numpy()
    joint = np.ascontiguousarray(joint)
    means = faiss.Kmeans(
        joint.shape[1], min(classes, len(train)), seed=0, min_points_per_centroid=1
    )
    means.train(joint[train])
    _, nearest = means.index.search(joint, 1)
    return F.one_hot(torch.from_numpy(nearest[:, 0])).float()


@dataclass(frozen=True)
class InputAssignments:
    """What the centroid stage writes for one test fold, or for the fixed split.

    Args:
        phi: modality -> phi(X) of every row of the store, [n, G, K].
        u: modality -> mean of U over train, in nats.
        prior: p_y, [G, K].
        vectors: modality -> X of every row.
        pseudo: one-hot pseudo-class of every row, [n, K], for one-class data only.
    """

    phi: dict[str, Tensor]
    u: dict[str, float]
    prior: Tensor
    vectors: dict[str, InputVectors] = field(default_factory=dict)
    pseudo: Tensor | None = None

    @classmethod
    def compute(
        cls,
        features: Features,
        task: Task,
        encoders: Mapping[str, Mapping[str, object]],
        assignment: Assignment,
        classes: int,
        arrays: Mapping[str, NDArray[np.float32]],
    ) -> list[InputAssignments]:
        """Compute, for every test fold, centroids of its training rows and phi(X) of every row.

        All folds share two passes over each modality: their class systems are concatenated to
        [n, folds * G, K], a fold's held-out rows being zero.

        Args:
            classes: number of pseudo-classes of one-class data.
            arrays: modality -> what `projected` yields, [n, R].
        """
        everything = torch.arange(len(features.ids))
        labels = features.everything().labels()
        trains, systems, results = [], [], []
        for run in range(max(features.meta["folds"], 1)):
            train = features.training(run).index
            vectors = {
                name: InputVectors.over(array, features.having(train, name))
                for name, array in arrays.items()
            }
            one_class = task.kind == "one_class"
            pseudo = pseudo_classes(vectors, train, classes) if one_class else None
            of_all = class_systems(task, labels, pseudo)
            learnt_from = np.isin(everything.numpy(), train)[:, None, None]
            trains.append(train)
            systems.append(of_all.numpy() * learnt_from)
            results.append(cls({}, {}, bounds.priors(of_all[train]), vectors, pseudo))
        side_by_side = np.concatenate(systems, axis=1)
        for name in features.modalities:
            vocabulary = vocabulary_of(encoders[name], features, name)
            space = InputSpace(assignment)
            chunks = stream(features, name, vocabulary)
            known = side_by_side
            if name in features.present:  # what is missing is no data
                known = known * features.present[name][:, None, None]
            space.fit((rows, known[place]) for place, rows in chunks)
            phi = np.concatenate(
                [space.phi(rows) for _, rows in stream(features, name, vocabulary)]
            )
            parts = np.split(phi, len(results), axis=1)
            for one, train, part in zip(results, trains, parts, strict=True):
                one.phi[name] = torch.from_numpy(part)
                kept = features.having(train, name)
                one.u[name] = float(bounds.u_term(one.phi[name][kept], one.prior).mean())
        return results

    def renewed(
        self,
        features: Features,
        run: int,
        task: Task,
        encoders: Mapping[str, Mapping[str, object]],
        assignment: Assignment,
    ) -> InputAssignments:
        """Compute the same of other features of the same rows, for one run's training split."""
        arrays = input_arrays(features, encoders)
        classes = 0 if self.pseudo is None else self.pseudo.shape[1]
        every = InputAssignments.compute(features, task, encoders, assignment, classes, arrays)
        return every[features.fold(run) or 0]

    def tables(self, device: torch.device, previous: Tensor | None = None) -> Tables:
        """Return what batches carry of each row, on a device.

        Args:
            previous: label of the utterance before each row, [n]; None without dialogues.
        """
        pseudo, before = (
            None if value is None else value.to(device) for value in (self.pseudo, previous)
        )
        return Tables(
            phi_x={name: value.to(device) for name, value in self.phi.items()},
            inputs={name: value.to(device) for name, value in self.vectors.items()},
            pseudo=pseudo,
            previous=before,
        )

    def write(self, path: Path) -> None:
        """Write everything but the vectors' array to one `.npz`."""
        arrays = {f"phi/{name}": phi.numpy() for name, phi in self.phi.items()}
        arrays |= {f"u/{name}": np.array(u) for name, u in self.u.items()}
        arrays |= {f"mean/{name}": value.mean.numpy() for name, value in self.vectors.items()}
        arrays |= {f"scale/{name}": value.scale.numpy() for name, value in self.vectors.items()}
        if self.pseudo is not None:
            arrays["pseudo"] = self.pseudo.numpy()
        with atomic_file(path) as file:
            np.savez(file, prior=self.prior.numpy(), **arrays)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path, features: str) -> InputAssignments:
        """Read what `write_all` wrote.

        Args:
            features: digest of the features that it was to be made of.

        Raises:
            IbmaError: a file is missing, or not the one that was written, or made of others.
        """
        _check(path.parent, features)
        with np.load(path) as file:
            parts: dict[str, dict[str, Tensor]] = {"phi": {}, "u": {}, "mean": {}, "scale": {}}
            for key in file:
                kind, _, name = key.partition("/")
                if name:
                    parts[kind][name] = torch.from_numpy(file[key])
            vectors = {
                name: InputVectors(
                    torch.from_numpy(vectors_file(path.parent, name)), mean, parts["scale"][name]
                )
                for name, mean in parts["mean"].items()
            }
            u = {name: float(value) for name, value in parts["u"].items()}
            pseudo = torch.from_numpy(file["pseudo"]) if "pseudo" in file else None
            return cls(parts["phi"], u, torch.from_numpy(file["prior"]), vectors, pseudo)


def _check(folder: Path, features: str) -> None:
    """Refuse what is not as `write_all` left it, or was made of other features."""
    remedy = f"run `dvc repro -f centroids@{folder.name}`"
    sums = read_json(folder / SUMS, {}, remedy)
    if sums.get("features") != features:
        state = "made of other features" if sums else "missing"
        raise IbmaError(f"{folder / SUMS}: {state}: {remedy}")
    for name, digest in sums["sha256"].items():
        required(folder / name, digest, remedy)


def class_systems(task: Task, y: Tensor, pseudo: Tensor | None) -> Tensor:
    """Return one-hot class systems [B, G, K] of some samples: their labels, or pseudo-classes.

    Args:
        y: their labels.
        pseudo: their one-hot pseudo-classes [B, K]; None where labels serve.
    """
    return task.systems(y) if pseudo is None else pseudo.unsqueeze(1)


def vectors_path(folder: Path, name: str) -> Path:
    """Return the file of a modality's input vectors, which all folds share."""
    return folder / f"inputs_{name}.npy"


def vectors_file(folder: Path, name: str) -> NDArray[np.float32]:
    """Open what `project` wrote as a memory map."""
    # copy-on-write, which torch takes without a copy; nothing ever writes
    array: NDArray[np.float32] = np.load(vectors_path(folder, name), mmap_mode="c")
    return array


def file_name(fold: int | None) -> str:
    """Return the name of the file for a test fold, or for a fixed split (None)."""
    return "split.npz" if fold is None else f"fold_{fold}.npz"


def write_all(
    features: Features,
    task: Task,
    encoders: Mapping[str, Mapping[str, object]],
    assignment: Assignment,
    classes: int,
    folder: Path,
) -> None:
    """Write what stage `centroids` computes for a task: input vectors, and a file per test fold.

    Args:
        classes: number of pseudo-classes of one-class data.
    """
    with atomic_folder(folder) as new:
        for name in features.modalities:
            vocabulary = vocabulary_of(encoders[name], features, name)
            project(features, name, vocabulary, vectors_path(new, name))
        arrays = {name: vectors_file(new, name) for name in features.modalities}
        every_fold = InputAssignments.compute(features, task, encoders, assignment, classes, arrays)
        for run, inputs in enumerate(every_fold):
            inputs.write(new / file_name(features.fold(run)))
        sums = {path.name: checksums.sha256(path) for path in sorted(new.iterdir())}
        write_json(new / SUMS, {"features": features.meta["digest"], "sha256": sums})
