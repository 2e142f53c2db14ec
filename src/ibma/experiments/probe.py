"""Judge trained encoders by linear classifiers (Table 16); load trained networks again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from ibma import paths
from ibma.errors import IbmaError, progress_bar
from ibma.features.store import Rows
from ibma.files import read_bytes, write_json
from ibma.network.method import Method
from ibma.network.tasks import Task, per_class
from ibma.params import Params
from ibma.training import record
from ibma.training.cell import Cell, Setting, expected_key, skipped
from ibma.training.loop import EVALUATION_BATCH, autocast, configure_torch, select_device
from ibma.training.record import Record

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # C of the logistic regression (CHOICE: the paper names none)
HELD_OUT = 0.25  # share of train's groups that choose among them


def probe_encoders(params: Params) -> None:
    """Probe every run that params.yaml names and write the rows of `probe`.

    Raises:
        IbmaError: a run or its weights are missing, stale or damaged, or the task has one class.
    """
    task = params.probe.task
    if skipped(task):
        return write_json(paths.PROBE, [])
    configure_torch(params.threads, compiled=False)
    device = select_device(params.device)
    runs = current_runs(params, task, params.probe.methods, range(params.seeds))
    total = len(params.probe.methods) * params.seeds
    rows = []
    for cell, one in progress_bar(runs, desc="probe", total=total, unit="run"):
        rows += probe(cell, one, restore(cell, one, one.id.weights, device), device)
    write_json(paths.PROBE, rows)


def current_runs(
    params: Params, task: str, methods: Iterable[str], seeds: Iterable[int]
) -> Iterator[tuple[Cell, Record]]:
    """Yield cells and records of some methods' runs on a task.

    Raises:
        IbmaError: a record is missing, or not of the present parameters, data and code.
    """
    for method in methods:
        cell = Cell.of(params, task, method)
        for seed in seeds:
            path = paths.record(cell.stage, task, method, seed)
            if not path.exists():
                raise IbmaError(f"{path}: missing: run `dvc repro {cell.stage}@{task}`")
            one = record.read(path)
            if one.key != expected_key(params, one):
                raise IbmaError(
                    f"{path}: stale, parameters, data or code are others now: run `dvc repro "
                    f"{cell.stage}@{task}`"
                )
            yield cell, one


def restore(cell: Cell, one: Record, path: Path, device: torch.device) -> Method:
    """Load the network that left a record, in evaluation mode.

    Args:
        path: its weights.

    Raises:
        IbmaError: they are missing, damaged or another network's.
    """
    again = f"delete it and run `dvc repro -f {one.stage}@{one.task}`"
    try:
        content = read_bytes(path, again)
    except FileNotFoundError:
        raise IbmaError(
            f"{path}: missing: list {one.method} under keep_weights in params.yaml and run "
            f"`dvc repro {one.stage}@{one.task}`"
        ) from None
    if sha256(content).hexdigest() != one.weights:
        raise IbmaError(f"{path}: not the weights that the record of {one.id} names: {again}")
    setting = Setting.of(one.params)
    model = cell.build(one.seed, setting, cell.epochs, seed=one.seed, on=device)
    try:
        model.load_state_dict(load(content))
    except RuntimeError as error:
        raise IbmaError(
            f"{path}: holds another network ({str(error).splitlines()[0]}): delete it and its "
            f"record and run `dvc repro {one.stage}@{one.task}`"
        ) from None
    return model.eval()


def refuse_one_class(cell: Cell, key: str) -> None:
    """Refuse a task whose training rows have one class: there is nothing to tell it from.

    Args:
        key: names the task in params.yaml.

    Raises:
        IbmaError: the task is of kind one_class.
    """
    if cell.problem().kind == "one_class":
        raise IbmaError(
            f"params.yaml: {key}: the training rows of {cell.task} have one class: expected a task "
            "of several: name another"
        )


def probe(cell: Cell, one: Record, model: Method, device: torch.device) -> list[dict[str, Any]]:
    """Judge each frozen encoder of one run alone, by a linear classifier.

    The classifier is one logistic regression per class, fitted to the encoder's output [n, D] on
    the training rows. Its strength C is chosen on a hold-out of train that splits no group, then it
    is fitted again on all of train. Source: paper C.5, which does not say how its classifier was
    trained. CHOICE: all of that: logistic regression on standardised outputs, one against the rest,
    one hold-out of a quarter, no seeds of its own (the fit is deterministic).

    Args:
        model: the run's network, in evaluation mode.

    Returns:
        A row per modality: method, seed, modality, C and the task's metrics on test.

    Raises:
        IbmaError: the task has one class.
    """
    refuse_one_class(cell, "probe.task")
    problem = cell.problem()
    train, test = cell.open().training(one.seed), cell.open().test(one.seed)
    learn, judge = _encode(model, train, device), _encode(model, test, device)
    rows = []
    for name in model.names:
        strength = _choose(problem, learn[name], train)
        logits = _fit(problem, learn[name], train.labels(), strength, judge[name])
        metrics = problem.metrics(logits, test.labels(), test.groups())
        who = {"method": one.method, "seed": one.seed, "modality": name, "C": strength}
        rows.append(who | {"metrics": metrics})
    return rows


@torch.no_grad()
def _encode(model: Method, rows: Rows, device: torch.device) -> dict[str, NDArray[np.float64]]:
    """Return the encoders' outputs, [n, D] each, in the order of `rows`."""
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in model.names}
    for batch in rows.batches(EVALUATION_BATCH, device):
        with autocast(device):
            z = model.encode(batch.x)
        for name, value in z.items():
            parts[name].append(value.double().cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def _choose(problem: Task, z: NDArray[np.float64], train: Rows) -> float:
    """Return the strength with the best score on held-out groups; the first of equal ones."""
    from sklearn.model_selection import GroupShuffleSplit

    groups, y = train.groups(), train.labels()
    splitter = GroupShuffleSplit(1, test_size=HELD_OUT, random_state=0)
    learn, judge = next(splitter.split(z, groups=groups))

    def score(strength: float) -> float:
        logits = _fit(problem, z[learn], y[learn], strength, z[judge])
        metrics = problem.metrics(logits, y[judge], groups[judge])
        return metrics[str(problem.selection)] or 0.0

    return max(STRENGTHS, key=score)


def _fit(
    problem: Task, z: NDArray[np.float64], y: Tensor, strength: float, unseen: NDArray[np.float64]
) -> Tensor:
    """Return decision values [n, C] for unseen rows: one classifier per class, against the rest.

    A column with one value in train has nothing to learn and gets 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    targets = per_class(problem, problem.systems(y)).numpy()
    columns = []
    for target in targets.T:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        if len(set(target)) == 1:
            columns.append(np.zeros(len(unseen)))
        else:
            columns.append(model.fit(z, target).decision_function(unseen))
    return torch.from_numpy(np.stack(columns, axis=1))
