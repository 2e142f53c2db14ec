"""Define the tasks that estimators solve besides the pipeline's: weighted classes, regression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ibma.network.tasks import Classify, MultiLabel


@cache
def _on(weights: tuple[Any, ...], device: torch.device) -> Tensor:
    """Return weights as a tensor on a device, copied there once: a copy in a step would wait."""
    return torch.tensor(weights, device=device)


@dataclass(frozen=True)
class WeightedClassify(Classify):
    """One of C classes, the loss of a sample weighted by its class.

    Args:
        weights: one per class.
    """

    weights: tuple[float, ...] = ()

    def loss_per_sample(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the weighted cross-entropy [B] of logits [B, C] for labels [B]."""
        return super().loss_per_sample(logits, y) * _on(self.weights, logits.device)[y]


@dataclass(frozen=True)
class KnownLabels(MultiLabel):
    """C independent labels, some of which may be unknown: values other than 0 and 1."""

    def loss_per_sample(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy [B], a mean over labels to which unknown ones add nothing."""
        unknown = (y != 0) & (y != 1)
        each = binary_cross_entropy_with_logits(
            logits, y.masked_fill(unknown, 0.0), reduction="none"
        )
        return each.masked_fill(unknown, 0.0).mean(1)


@dataclass(frozen=True)
class WeightedMultiLabel(MultiLabel):
    """C independent labels, the loss of each value weighted by the label and the value.

    Args:
        weights: of value 0 and value 1, a pair per label.
    """

    weights: tuple[tuple[float, float], ...] = ()

    def loss_per_sample(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the weighted cross-entropy [B] of logits [B, C] for labels 0/1 [B, C]."""
        weights = _on(self.weights, logits.device)
        each = binary_cross_entropy_with_logits(logits, y, reduction="none")
        return (each * torch.where(y > 0, weights[:, 1], weights[:, 0])).mean(1)


@dataclass(frozen=True)
class Bins:
    """Cut a real target into classes, and predict a number from their probabilities.

    CHOICE: regression by classification, as for sentiment (`network.tasks.Sentiment`), because IBB
    needs classes. Bins hold equally many training samples; the prediction is the expected mean of
    its bin.

    Args:
        edges: between bins, ascending.
        means: of the training targets of each bin.
    """

    edges: tuple[float, ...]
    means: tuple[float, ...]

    @classmethod
    def fit(cls, y: NDArray[np.float64], count: int) -> Bins:
        """Cut targets [n] into at most `count` bins, fewer where values repeat."""
        inner = np.quantile(y, np.linspace(0.0, 1.0, count + 1)[1:-1])
        edges = np.unique(inner[inner > y.min()])
        places = np.digitize(y, edges)
        used = np.unique(places)
        means = [float(y[places == place].mean()) for place in used]
        kept = [float(edges[place - 1]) for place in used if place > 0]
        return cls(tuple(kept), tuple(means))

    def place(self, y: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the bin of each target."""
        return np.digitize(y, self.edges)

    def expected(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the expected target [n] under probabilities [n, bins]."""
        found: NDArray[np.float64] = probabilities @ np.array(self.means)
        return found
