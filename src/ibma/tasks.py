"""What is predicted and how it is judged: loss, labels as class systems, metrics.

A class system is one soft-assignable partition of the samples. Labels have shape [n, G, K]:
single-label data is one system (G=1) of K=C classes; multi-label data is G=C systems of K=2
classes, index 0 the negatives and index 1 the positives. Everything that assigns softly uses this
one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ibma.errors import IbmaError

Metrics = dict[str, float | None]


class Task(Protocol):
    """One kind of prediction over named classes."""

    @property
    def kind(self) -> str:
        """Key of `KINDS`."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes or labels."""
        ...

    @property
    def selection(self) -> str:
        """The metric that tuning maximises."""
        ...

    @property
    def outputs(self) -> int:
        """Number of logits C."""
        ...

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """logits: [B, C]; y: labels of a batch -> scalar."""
        ...

    def systems(self, y: Tensor) -> Tensor:
        """y: labels -> one-hot class systems [n, G, K], float."""
        ...

    def metrics(self, logits: Tensor, y: Tensor) -> Metrics:
        """Metrics as fractions; None where undefined."""
        ...


@dataclass(frozen=True)
class Classify:
    """One of C classes: cross-entropy (nats, batch mean) and accuracy."""

    classes: tuple[str, ...]
    kind: str = "classify"
    selection: str = "accuracy"

    @property
    def outputs(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """logits: [B, C]; y: int64 [B]."""
        return F.cross_entropy(logits, y)

    def systems(self, y: Tensor) -> Tensor:
        """y: int64 [n] -> [n, 1, C]."""
        return F.one_hot(y, self.outputs).unsqueeze(1).float()

    def metrics(self, logits: Tensor, y: Tensor) -> Metrics:
        """Top-1 accuracy."""
        from sklearn.metrics import accuracy_score

        return {"accuracy": float(accuracy_score(y.numpy(), logits.argmax(1).numpy()))}


@dataclass(frozen=True)
class MultiLabel:
    """C independent labels: BCE with logits and mean AUROC.

    CHOICE: BCE is a mean over batch and labels, not a sum over labels, so that the weights of
    other terms keep their meaning when C changes. A label with one class in the test split has no
    AUROC: it is None, left out of the mean, and `mauc_defined` says how many remain.
    """

    classes: tuple[str, ...]
    kind: str = "multilabel"
    selection: str = "mauc"

    @property
    def outputs(self) -> int:
        """Number of labels."""
        return len(self.classes)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """logits: [B, C]; y: float 0/1 [B, C]."""
        return F.binary_cross_entropy_with_logits(logits, y)

    def systems(self, y: Tensor) -> Tensor:
        """y: [n, C] -> [n, C, 2]; a value other than 0 or 1 is in neither class."""
        return torch.stack([y == 0, y == 1], dim=-1).float()

    def metrics(self, logits: Tensor, y: Tensor) -> Metrics:
        """Per-label AUROC and their arithmetic mean (paper 4.4)."""
        from sklearn.metrics import roc_auc_score

        result: Metrics = {}
        defined = []
        for column, name in enumerate(self.classes):
            truth, score = y[:, column].numpy(), logits[:, column].numpy()
            both = 0 < truth.sum() < len(truth)
            auc = float(roc_auc_score(truth, score)) if both else None
            result[f"auc/{name}"] = auc
            if auc is not None:
                defined.append(auc)
        result["mauc"] = float(np.mean(defined)) if defined else None
        result["mauc_defined"] = float(len(defined))
        return result


KINDS: dict[str, Callable[[tuple[str, ...]], Task]] = {
    "classify": Classify,
    "multilabel": MultiLabel,
}


def build(kind: str, classes: Sequence[str]) -> Task:
    """Return the task of that kind over those classes.

    Raises IbmaError for an unknown kind.
    """
    if kind not in KINDS:
        raise IbmaError(f"unknown task kind '{kind}': expected one of {', '.join(sorted(KINDS))}")
    return KINDS[kind](tuple(classes))
