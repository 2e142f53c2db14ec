"""Linear probes of trained encoders (Table 16), and networks brought back from their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibma.errors import IbmaError
from ibma.features.store import Rows
from ibma.network.method import Method
from ibma.training.loop import EVALUATION_BATCH, Cell, Setting, autocast
from ibma.training.record import Record

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # C of the logistic regression (CHOICE: the paper names none)
HELD_OUT = 0.25  # share of train's groups that choose among them


def restore(cell: Cell, one: Record, models: Path) -> Method:
    """The network that left a record, in evaluation mode.

    models: the cell's folder of weights. Raises IbmaError when they are missing or of another
    network.
    """
    path = models / f"seed_{one.seed}.pt"
    if not path.exists():
        raise IbmaError(f"{path}: missing, but its record is there: `dvc checkout` or delete both")
    setting = Setting(one.params["lr"], one.params["weight_decay"], one.params["eta"])
    model = cell.build(one.seed, setting, cell.epochs, seed=one.seed)
    try:
        model.load_state_dict(torch.load(path, map_location=cell.device, weights_only=True))
    except RuntimeError as error:
        raise IbmaError(
            f"{path}: holds another network ({str(error).splitlines()[0]}): delete it and its "
            "record, then `dvc repro`"
        ) from None
    return model.eval()


def probe(cell: Cell, one: Record, models: Path) -> list[dict[str, Any]]:
    """How well a linear classifier does on each frozen encoder of one run, alone.

    Per modality: logistic regressions, one against the rest, on the encoder's output [n, D] for the
    training rows; C is chosen on a hold-out of train that splits no group, and the classifier is
    fitted again on all of train. Rows: method, seed, modality, C and the task's metrics on test.
    Source: paper C.5, which does not say how the classifier was trained.
    """
    model = restore(cell, one, models)
    train, test = cell.features.training(one.seed), cell.features.test(one.seed)
    learn, judge = _encoded(cell, model, train), _encoded(cell, model, test)
    found = []
    for name in model.names:
        strength = _choose(cell, learn[name], train)
        logits = _fit(cell, learn[name], train.labels(), strength, judge[name])
        metrics = cell.task.metrics(logits, test.labels(), test.groups())
        who = {"method": one.method, "seed": one.seed, "modality": name, "C": strength}
        found.append(who | {"metrics": metrics})
    return found


def per_class(systems: Tensor) -> Tensor:
    """Class systems [n, G, K] as a column per class: [n, K] of the one system, [n, G] of labels."""
    return systems[:, 0] if systems.shape[1] == 1 else systems[..., 1]


@torch.no_grad()
def _encoded(cell: Cell, model: Method, rows: Rows) -> dict[str, NDArray[np.float64]]:
    """Outputs of the modality-specific encoders, [n, D] each, in the order of `rows`."""
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in model.names}
    for batch in rows.batches(EVALUATION_BATCH, cell.device):
        with autocast(cell.device):
            z = model.encode(batch.x)
        for name, value in z.items():
            parts[name].append(value.double().cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def _choose(cell: Cell, z: NDArray[np.float64], train: Rows) -> float:
    """The strength with the best score on held-out groups of train; the first of equal ones."""
    from sklearn.model_selection import GroupShuffleSplit

    groups, y = train.groups(), train.labels()
    splitter = GroupShuffleSplit(1, test_size=HELD_OUT, random_state=0)
    learn, judge = next(splitter.split(z, groups=groups))

    def score(strength: float) -> float:
        logits = _fit(cell, z[learn], y[learn], strength, z[judge])
        metrics = cell.task.metrics(logits, y[judge], groups[judge])
        return metrics[str(cell.task.selection)] or 0.0

    return max(STRENGTHS, key=score)


def _fit(
    cell: Cell, z: NDArray[np.float64], y: Tensor, strength: float, unseen: NDArray[np.float64]
) -> Tensor:
    """Decision values [n, C] for unseen rows: one classifier per label, or class against the rest.

    A column with one value in train has nothing to learn: 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    targets = per_class(cell.task.systems(y)).numpy()
    columns = []
    for target in targets.T:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        if len(set(target)) == 1:
            columns.append(np.zeros(len(unseen)))
        else:
            columns.append(model.fit(z, target).decision_function(unseen))
    return torch.from_numpy(np.stack(columns, axis=1))
