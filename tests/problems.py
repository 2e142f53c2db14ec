"""Tiny problems in memory: no file is read, and no library that a bare machine lacks."""

import numpy as np
import torch
from torch import Tensor

from ibma import methods
from ibma.features.store import Features, StoredModality, Tables, TrainingSet
from ibma.methods.ibma import bound_names
from ibma.network import tasks
from ibma.network.centroids import Assignment, InputVectors
from ibma.network.method import Method, Modality, Spec
from ibma.training.cell import Setting
from ibma.training.loop import Fit

METHODS = [*methods.names(), *(f"ibma_{bound}" for bound in bound_names() if bound != "ibb")]
CLASSES = {"one_class": ("normal", "anomalous")}
ROWS, TRAIN, LENGTH, BATCH = 60, 44, 24, 8
MLP = {"name": "mlp", "hidden": [16]}
VECTORS = {"left": ("vector", (3,), MLP), "right": ("vector", (3,), MLP)}
RESNET = {"name": "resnet", "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]}
VIT = {"name": "vit", "patch_size": 8, "hidden_size": 16, "layers": 1, "heads": 2}
BERT = {"name": "bert", "vocab_size": 32, "max_length": LENGTH, "hidden_size": 16}
BERT |= {"layers": 1, "heads": 2, "dropout": 0.0}
MEDIA = {
    "audio": ("audio", (8, 12), RESNET),
    "image": ("image", (3, 16, 16), VIT),
    "text": ("text", (LENGTH,), BERT),
}


class Problem:
    """One kind of task on vectors, or on sounds, pictures and texts."""

    def __init__(self, kind: str = "classify", views=VECTORS, **encoder: object) -> None:
        self.random = np.random.default_rng(0)
        self.views = {
            name: (what, shape, config | (encoder if config["name"] == "bert" else {}))
            for name, (what, shape, config) in views.items()
        }
        classes = CLASSES.get(kind, ("a", "b", "c"))
        self.task, code = tasks.build(kind, classes), np.arange(ROWS) % 3
        labels = {
            "multilabel": np.stack([code == 0, code != 1, code == 2], 1),
            "sentiment": 0.8 * (code[:, None] - 1.0),
            "one_class": (np.arange(ROWS)[:, None] >= TRAIN) & (code[:, None] > 0),
        }.get(kind, code[:, None])
        self.one_hot = torch.eye(3)[torch.from_numpy(code)]
        self.features = Features(
            meta={"kind": kind, "classes": classes, "folds": 0, "source": "twin"},
            modalities={n: StoredModality(v[0], v[1], "") for n, v in self.views.items()},
            arrays={
                name: self._array(what, shape, code)
                for name, (what, shape, _) in self.views.items()
            },
            labels=np.asarray(labels, dtype=float),
            ids=[str(row) for row in range(ROWS)],
            groups=np.array(["g"] * ROWS),
            splits=np.where(np.arange(ROWS) < TRAIN, "train", "test"),
            dialogues=np.array([f"d{row // 5}" for row in range(ROWS)]),
        )
        self.systems = (3, 2) if kind == "multilabel" else (1, 3)
        self.pseudo = self.one_hot if kind == "one_class" else None

    def _array(self, what: str, shape: tuple[int, ...], code: np.ndarray) -> np.ndarray:
        if what == "vector":
            return (np.eye(3)[code] + 0.4 * self.random.normal(size=(ROWS, 3))).astype(np.float32)
        if what == "audio":
            sound = self.random.normal(size=(ROWS, 8, 12)) + code[:, None, None]
            return sound.astype(np.float16)
        if what == "image":
            pixels = self.random.integers(0, 100, (ROWS, *shape))
            return (pixels + 50 * code[:, None, None, None]).astype(np.uint8)
        (length,) = shape
        ids = self.random.integers(1, 32, (ROWS, length)).astype(np.int32)
        lengths = self.random.integers(0, length + 1, ROWS)
        return np.where(np.arange(length) < lengths[:, None], ids, 0)

    def spec(self, epochs: int) -> Spec:
        return Spec(
            modalities={name: Modality(*view) for name, view in self.views.items()},
            task=self.task,
            width=16,
            heads=2,
            epochs=epochs,
            systems=self.systems,
            assignment=Assignment(),
            eta=0.5,
            u=dict.fromkeys(self.views, 0.1),
            input_widths=dict.fromkeys(self.views, 6),
        )

    def rows(self, device: torch.device) -> TrainingSet:
        draw = np.random.default_rng(1)
        rows = self.features.training(0)

        def phi() -> Tensor:
            logits = draw.normal(size=(ROWS, *self.systems)).astype(np.float32)
            return torch.from_numpy(logits).softmax(-1).to(device)

        def vectors() -> InputVectors:
            array = draw.normal(size=(ROWS, 6)).astype(np.float32)
            return InputVectors.over(array, rows.index).to(device)

        return rows.joined(
            Tables(
                phi_x={name: phi() for name in self.views},
                inputs={name: vectors() for name in self.views},
                pseudo=None if self.pseudo is None else self.pseudo.to(device),
                previous=rows.previous_labels().to(device),
            )
        )

    def network(self, method: str, epochs: int) -> Method:
        """A method by file name, or IBMA with another bound as `ibma_<bound>`."""
        torch.manual_seed(0)
        file, _, bound = method.partition("_")
        if file != "ibma" or not bound:
            return methods.build(method, self.spec(epochs))
        return methods.build(file, self.spec(epochs), bound=bound)

    def fit(
        self, method: str, device: torch.device, *, lr: float = 1e-4, epochs: int = 2, **options
    ) -> Fit:
        """Of many small steps at a low rate: histories differ by rounding, not by chance."""
        fixed = {"seed": 0, "epochs": epochs, "batch_size": BATCH, "device": device, "quiet": True}
        model, setting = self.network(method, epochs).to(device), Setting(lr, 1e-5, 0.5)
        return Fit(model, self.rows(device), setting, **(fixed | options))

    def history(self, method: str, device: torch.device, **options) -> dict[str, list[float]]:
        fit = self.fit(method, device, **options)
        fit.run("test")
        return fit.history


def one_percent(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> float:
    """Largest difference in hundredths; terms near zero, differences of larger ones, get 1e-3."""
    assert ours.keys() == theirs.keys()
    a, b = (np.array(list(one.values())) for one in (ours, theirs))
    return float((np.abs(a - b) / (0.01 * np.abs(b) + 1e-3)).max())
