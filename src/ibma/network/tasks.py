"""Define what is predicted and how it is judged: head, loss, labels as class systems, metrics.

A class system is one partition of the samples into classes. Labels have shape [n, G, K]:
single-label data is one system (G=1) of K=C classes; multi-label data is G=C systems of K=2
classes, index 0 the negatives and index 1 the positives. All soft assignments use this one shape.

No method knows which kind it solves: a head comes from `Task.head`, its loss from `Task.loss`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.errors import IbmaError

Metrics = dict[str, float | None]
Scores = NDArray[np.float16] | NDArray[np.float32]
Confusion = list[list[int]]
LIKELY = 0.5  # probability from which a label of several is predicted


class Task(Protocol):
    """One kind of prediction over named classes."""

    classes: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Return the key of `KINDS`."""
        ...

    @property
    def selection(self) -> str | None:
        """Return the metric that tuning maximises; None where training data cannot show one."""
        ...

    @property
    def outputs(self) -> int:
        """Return the width C of a head's output: the number of classes or labels."""
        return len(self.classes)

    def head(self, width: int) -> nn.Linear:
        """Build a fresh last layer, [B, width] -> [B, C]."""
        return Head(width, self.outputs)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss of logits [B, C] and labels, averaged over the batch: a scalar."""
        return self.loss_per_sample(logits, y).mean()

    def loss_per_sample(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each sample, [B]."""
        ...

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Return ln p of every class system, [B, G, K], from logits [B, C]."""
        ...

    def average(self, logits: Tensor) -> Tensor:
        """Return logits of the mean prediction of S draws: [S, B, C] -> [B, C]."""
        ...

    def systems(self, y: Tensor) -> Tensor:
        """Return labels as one-hot class systems [n, G, K], float."""
        ...

    def scores(self, logits: Tensor) -> Scores:
        """Return what is kept of predictions, [n, S]: all that `judge` and `confusion` read."""
        ...

    def judge(self, scores: Scores, y: Tensor, groups: NDArray[np.str_]) -> Metrics:
        """Return metrics of scores, None where undefined.

        All are fractions, but `mae`, which has the unit of the labels, and `corr`.

        Args:
            groups: slice or speaker of each sample, [n].
        """
        ...

    def confusion(self, scores: Scores, y: Tensor) -> Confusion:
        """Count true class (row) against predicted class (column); empty without classes."""
        ...

    def metrics(self, logits: Tensor, y: Tensor, groups: NDArray[np.str_]) -> Metrics:
        """Return the metrics of logits [n, C]: those of the scores that are kept of them.

        Rounding comes first, so that stored predictions give the very same numbers.
        """
        return self.judge(self.scores(logits), y, groups)


class Head(nn.Linear):
    """A linear layer in float32, under autocast too: its output is what losses read."""

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, [..., width] -> [..., outputs]."""
        kind = features.device.type
        if not torch.is_autocast_enabled(kind):
            return super().forward(features)
        with torch.autocast(kind, enabled=False):
            return super().forward(features.float())


class Sphere(Head):
    """A head without bias whose output is the offset o - c from a fixed centre.

    Source: lukasruff/Deep-SVDD-PyTorch@1901612, src/optim/deepSVDD_trainer.py. Without a bias the
    layer cannot move onto its centre whatever it reads (Ruff et al. 2018, section 3.3).
    """

    MARGIN = 0.1  # a centre this close to 0 could be reached by zero weights

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(width, outputs, bias=False)
        self.register_buffer("centre", torch.zeros(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return offsets from the centre, [B, width] -> [B, outputs]."""
        return super().forward(features) - self.get_buffer("centre")

    def centre_on(self, mean: Tensor) -> None:
        """Fix the centre at the mean output of the untrained network, pushed away from 0."""
        near = mean.abs() < self.MARGIN
        self.get_buffer("centre").copy_(torch.where(near, self.MARGIN * mean.sign(), mean))


@dataclass(frozen=True)
class Classify(Task):
    """One of C classes: cross-entropy (nats, batch mean) and accuracy."""

    classes: tuple[str, ...]
    kind: str = "classify"
    selection: str | None = "accuracy"

    def target(self, y: Tensor) -> Tensor:
        """Return labels as class indices, int64 [n]."""
        return y

    def loss_per_sample(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy of each sample, [B]."""
        return F.cross_entropy(logits, self.target(y), reduction="none")

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Return ln p of the classes: [B, C] -> [B, 1, C]."""
        return F.log_softmax(logits, dim=1).unsqueeze(1)

    def average(self, logits: Tensor) -> Tensor:
        """Return the logarithm of the mean softmax: [S, B, C] -> [B, C]."""
        return F.log_softmax(logits, dim=2).logsumexp(0) - math.log(len(logits))

    def systems(self, y: Tensor) -> Tensor:
        """Return one-hot labels: [n] -> [n, 1, C]."""
        return F.one_hot(self.target(y), self.outputs).unsqueeze(1).float()

    def scores(self, logits: Tensor) -> Scores:
        """Return logits minus the largest of their row, [n, C].

        The largest is 0 and keeps its place: differences close to 0 are exact in float16.
        """
        return kept(logits - logits.max(1, keepdim=True).values)

    def judge(self, scores: Scores, y: Tensor, groups: NDArray[np.str_]) -> Metrics:
        """Return accuracy, its mean over classes, macro F1 and macro AUROC.

        CHOICE: means are over the classes that the rows have. The AUROC is that of each class
        against the rest; of two classes it is `auc`, that of the second.
        """
        truth, predicted = self.target(y).numpy(), scores.argmax(1)
        result: Metrics = {"accuracy": accuracy(truth, predicted)}
        result |= averaged(truth, predicted)
        exact = scores.astype(np.float64)
        if self.outputs == 2:
            return result | {"auc": auc(truth, exact[:, 1] - exact[:, 0])}
        weights = np.exp(exact)
        shares = weights / weights.sum(1, keepdims=True)
        each = [auc(truth == place, shares[:, place]) for place in range(self.outputs)]
        return result | {"macro_auc": mean_defined(each)}

    def confusion(self, scores: Scores, y: Tensor) -> Confusion:
        """Count true class against the class of the highest score, [C, C]."""
        return counts(self.target(y).numpy(), scores.argmax(1), self.outputs)


@dataclass(frozen=True)
class Sentiment(Classify):
    """Sentiment scores in [-s, s], learnt as C = 2 s + 1 classes, judged as scores too.

    y is the real score; its class is the nearest integer (half to even, as numpy and the
    literature round) after clipping. CHOICE: classes rather than a regression, because IBB needs
    classes (the literature behind the paper's Table 3 regresses).

    Metrics: `acc<C>` of the arg-max class; Acc-2 and F1 (weighted over the two sides, truth first)
    of the expected score sum_c p_c (c - s), >= 0 counted as positive. `acc2` and `f1` drop the rows
    whose true score is 0 (TmacMai/Multimodal-Information-Bottleneck@f6d006b); `acc2_has0` and
    `f1_has0` keep them as positive (thuiar/MMSA@a94e65d). `mae` and `corr` are of all rows, as in
    the latter (the former leaves out true scores of 0).
    """

    kind: str = "sentiment"
    selection: str | None = "acc2"

    @property
    def bound(self) -> int:
        """Return s, the largest score."""
        return (self.outputs - 1) // 2

    def target(self, y: Tensor) -> Tensor:
        """Return scores as class indices."""
        return torch.round(y.clamp(-self.bound, self.bound)).long() + self.bound

    def score(self, logits: Tensor) -> Tensor:
        """Return the expected score [B] of logits [B, C]."""
        values = torch.arange(-self.bound, self.bound + 1).to(logits)
        return logits.softmax(1) @ values

    def scores(self, logits: Tensor) -> Scores:
        """Return the arg-max class and the expected score, [n, 2]."""
        return kept(torch.stack([logits.argmax(1).to(logits), self.score(logits)], dim=1))

    def judge(self, scores: Scores, y: Tensor, groups: NDArray[np.str_]) -> Metrics:
        """Return the class accuracy, both readings of Acc-2 and F1, MAE and correlation."""
        from sklearn.metrics import f1_score, mean_absolute_error

        truth, expected = y.double().numpy(), scores[:, 1].astype(np.float64)
        right = accuracy(self.target(y).numpy(), scores[:, 0].astype(np.int64))
        result: Metrics = {f"acc{self.outputs}": right}
        for suffix, rows in (("", truth != 0), ("_has0", np.ones(len(truth), dtype=bool))):
            sides = truth[rows] >= 0, expected[rows] >= 0
            result[f"acc2{suffix}"] = accuracy(*sides)
            result[f"f1{suffix}"] = (
                float(f1_score(*sides, average="weighted")) if rows.any() else None
            )
        result["mae"] = float(mean_absolute_error(truth, expected)) if len(truth) else None
        return result | {"corr": correlation(truth, expected)}

    def confusion(self, scores: Scores, y: Tensor) -> Confusion:
        """Count true class against the arg-max class, [C, C]."""
        return counts(self.target(y).numpy(), scores[:, 0].astype(np.int64), self.outputs)


@dataclass(frozen=True)
class MultiLabel(Task):
    """C independent labels: BCE with logits and mean AUROC.

    CHOICE: BCE is a mean over batch and labels, not a sum over labels, so that the weights of
    other terms keep their meaning when C changes. A label with one class in the test split has no
    AUROC: it is None, left out of the mean, and `mauc_defined` says how many remain.
    """

    classes: tuple[str, ...]
    kind: str = "multilabel"
    selection: str | None = "mauc"

    def loss_per_sample(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return BCE with labels, float 0/1 [B, C], averaged over labels: [B]."""
        return F.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(1)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Return ln p of negative and positive, [B, C] -> [B, C, 2]: sigmoid(l) = softmax(0, l).

        CHOICE: labels are independent given the logits.
        """
        return torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=-1)

    def average(self, logits: Tensor) -> Tensor:
        """Return the logit of the mean sigmoid: [S, B, C] -> [B, C]."""
        return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)

    def systems(self, y: Tensor) -> Tensor:
        """Return [n, C] as [n, C, 2]; a value other than 0 or 1 is in neither class."""
        return torch.stack([y == 0, y == 1], dim=-1).float()

    def scores(self, logits: Tensor) -> Scores:
        """Return the logits, [n, C]."""
        return kept(logits)

    def judge(self, scores: Scores, y: Tensor, groups: NDArray[np.str_]) -> Metrics:
        """Return the AUROC of each label and their arithmetic mean (paper 4.4).

        Balanced accuracy and macro F1 are means over labels, each at probability .5.
        """
        truth, result = y.numpy(), Metrics()
        for column, name in enumerate(self.classes):
            result[f"auc/{name}"] = auc(truth[:, column], scores[:, column])
        defined = [value for value in result.values() if value is not None]
        result |= {"mauc": mean_defined(defined), "mauc_defined": float(len(defined))}
        each = [averaged(*pair) for pair in zip(truth.T, scores.T > 0, strict=True)]
        return result | {name: mean_defined([one[name] for one in each]) for name in AVERAGED}

    def confusion(self, scores: Scores, y: Tensor) -> Confusion:
        """Count of each label true and false negatives and positives: [tn, fp, fn, tp], [C, 4]."""
        pairs = zip(y.numpy().T, scores.T > 0, strict=True)
        return [[n for row in counts(*pair, 2) for n in row] for pair in pairs]


@dataclass(frozen=True)
class OneClass(Task):
    """Detect anomalies from normal samples only: Deep SVDD's one-class objective (Ruff 2018).

    y: 0 normal, 1 anomalous; a training split holds 0 only. loss: batch mean of ||o - c||^2, which
    is also the anomaly score. `systems` has one class; methods that need classes take the
    pseudo-classes of the centroid stage (`centroids.class_systems`). Nothing in a training split
    tells a good detector from a bad one, so there is no metric to select by.

    CHOICE: this form and not the soft boundary, c fixed, and o a linear projection of a head's
    input; the paper says "compact hypersphere" and no more.
    """

    classes: tuple[str, ...]
    kind: str = "one_class"
    selection: str | None = None
    outputs: int = 32  # CHOICE: Ruff's CIFAR network ends in 128, the MNIST one in 32

    def head(self, width: int) -> nn.Linear:
        """Build a layer without bias that gives the offset from its centre."""
        return Sphere(width, self.outputs)

    def loss_per_sample(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return squared distances [B] of offsets [B, outputs]; all labels are normal."""
        return logits.square().sum(1)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Return zeros [B, 1, 1]: the one class is certain."""
        return torch.zeros_like(logits[:, :1, None])

    def average(self, logits: Tensor) -> Tensor:
        """Return the mean offset: [S, B, outputs] -> [B, outputs]."""
        return logits.mean(0)

    def systems(self, y: Tensor) -> Tensor:
        """Return ones [n, 1, 1]."""
        return torch.ones(len(y), 1, 1, device=y.device)

    def scores(self, logits: Tensor) -> Scores:
        """Return squared distances, [n, 1], in float32: float16 would tie those of near ranks."""
        distance = logits.double().square().sum(1, keepdim=True)
        return distance.detach().cpu().float().numpy()

    def confusion(self, scores: Scores, y: Tensor) -> Confusion:
        """Return nothing: no threshold is learnt, so that no class is predicted."""
        return []

    def judge(self, scores: Scores, y: Tensor, groups: NDArray[np.str_]) -> Metrics:
        """Return `auc/<slice>`, `f1/<slice>` and their unweighted means over slices (Table 7)."""
        score, truth = scores[:, 0].astype(np.float64), y.numpy()
        names = sorted(set(groups))
        result: Metrics = {}
        for metric, compute in (("auc", auc), ("f1", f1_at_true_rate)):
            values = [compute(truth[groups == name], score[groups == name]) for name in names]
            result |= {f"{metric}/{n}": v for n, v in zip(names, values, strict=True)}
            result[f"{metric}/mean"] = mean_defined(values)
        return result


def kept(values: Tensor) -> Scores:
    """Return values as they are stored; those beyond float16 become its largest."""
    largest = float(np.finfo(np.float16).max)
    return values.detach().cpu().double().clamp(-largest, largest).numpy().astype(np.float16)


def accuracy(truth: NDArray[Any], predicted: NDArray[Any]) -> float | None:
    """Return the share of equal entries; None without any."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(truth, predicted)) if len(truth) else None


AVERAGED = ("balanced_accuracy", "macro_f1")


def averaged(truth: NDArray[Any], predicted: NDArray[Any]) -> Metrics:
    """Return recall and F1 as means over the classes that `truth` has; None without any."""
    from sklearn.metrics import precision_recall_fscore_support

    if not len(truth):
        return dict.fromkeys(AVERAGED)
    _, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, labels=np.unique(truth), average="macro", zero_division=0.0
    )
    return {"balanced_accuracy": float(recall), "macro_f1": float(f1)}


def counts(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> Confusion:
    """Count rows by true and by predicted class, [classes, classes]."""
    from sklearn.metrics import confusion_matrix

    matrix: Confusion = confusion_matrix(truth, predicted, labels=range(classes)).tolist()
    return matrix


def correlation(truth: NDArray[Any], predicted: NDArray[Any]) -> float | None:
    """Return Pearson's correlation; None where either side is constant."""
    if min(np.ptp(side) if len(side) else 0 for side in (truth, predicted)) == 0:
        return None
    return float(np.corrcoef(truth, predicted)[0, 1])


def mean_defined(values: Sequence[float | None]) -> float | None:
    """Return the arithmetic mean of the values that are defined; None without any."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def auc(truth: NDArray[Any], score: NDArray[Any]) -> float | None:
    """Compute the AUROC of scores [n] for truth 0/1 [n]; None where one class is absent."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, score)) if 0 < np.sum(truth) < len(truth) else None


def f1_at_true_rate(truth: NDArray[Any], score: NDArray[Any]) -> float | None:
    """Compute F1 of the anomalies at the threshold that flags their TRUE share; None without both.

    The literature's rule (wqlzuel/MEATRD@9f8eee2, utils.py): threshold = percentile of the scores
    at the share of normals, anomalous where score >= threshold. It reads the test labels, so a
    useless score still gets the share of anomalies.
    """
    from sklearn.metrics import f1_score

    if not 0 < np.sum(truth) < len(truth):
        return None
    threshold = np.percentile(score, 100.0 * float(np.mean(truth == 0)))
    return float(f1_score(truth, score >= threshold))


KINDS: dict[str, Callable[[tuple[str, ...]], Task]] = {
    "classify": Classify,
    "multilabel": MultiLabel,
    "one_class": OneClass,
    "sentiment": Sentiment,
}


def build(kind: str, classes: Sequence[str]) -> Task:
    """Build the task of a kind over some classes.

    Raises:
        IbmaError: there is no such kind.
    """
    if kind not in KINDS:
        raise IbmaError(f"unknown task kind '{kind}': expected one of {', '.join(sorted(KINDS))}")
    return KINDS[kind](tuple(classes))


def per_class(task: Task, systems: Tensor) -> Tensor:
    """Return class systems [n, G, K] as a column for each class or label of a task, [n, C]."""
    return systems[..., 1] if task.kind == "multilabel" else systems[:, 0]
