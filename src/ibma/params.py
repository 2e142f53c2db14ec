"""Typed access to `params.yaml`. Unknown keys are refused with their place."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from ibma.errors import IbmaError

TASK_KEYS = ("dataset", "options", "on_bad", "features", "encoders")
DATASET_KEYS = ("source",)


@dataclass(frozen=True)
class Training:
    """How every network is trained.

    epochs; batch_size; width: embedding size D; heads: of the fusion block; beta and normalise: of
    the soft assignments (`centroids.Assignment`); pseudo_classes: clusters that stand in for the
    classes of one-class data. refresh: what centroids and Q of an epoch are made of, "epoch" or
    "pass" (`methods/ibma.py`). compile: run networks through torch.compile.
    """

    epochs: int
    batch_size: int
    width: int
    heads: int
    beta: float
    normalise: bool
    pseudo_classes: int
    refresh: str
    compile: bool


@dataclass(frozen=True)
class Tuning:
    """How lr, weight decay and eta are chosen inside the training split.

    folds: cross-validation folds. epochs: length of each trial. budget: number of grid points each
    method may try (the same for all). grid: lists of values of lr, weight_decay and eta.
    """

    folds: int
    epochs: int
    budget: int
    grid: dict[str, list[float]]


@dataclass(frozen=True)
class Timing:
    """How seconds per epoch are measured: on which task, over how many rounds (2 or more)."""

    task: str
    rounds: int


@dataclass(frozen=True)
class Sensitivity:
    """Runs of some variants at fixed etas on one task; all else as the tune stage chose.

    The first variant's are Table 8.
    """

    task: str
    variants: list[str]
    etas: list[float]

    def name(self, variant: str, eta: float) -> str:
        """What a variant's runs at an eta are called in the records."""
        return f"{variant}_eta_{eta:g}"

    def names(self) -> dict[str, tuple[str, float]]:
        """Name -> variant and eta of all these runs."""
        return {self.name(v, eta): (v, eta) for v in self.variants for eta in self.etas}


@dataclass(frozen=True)
class Probe:
    """Which trained encoders a linear classifier judges alone (Table 16)."""

    task: str
    methods: list[str]


@dataclass(frozen=True)
class GradCam:
    """Whose image encoders are explained (Figures 1, 3): tasks: task -> modality with pictures.

    examples: pictures shown per task; the numbers beside them are over the whole test split.
    """

    tasks: dict[str, str]
    methods: list[str]
    examples: int


@dataclass(frozen=True)
class Params:
    """One profile. See the comments in params.yaml."""

    profile: str
    eta: float | None
    seeds: int
    device: str
    threads: int | None
    workers: int | None
    processes: int
    datasets: dict[str, dict[str, Any]]
    tasks: dict[str, dict[str, Any]]
    methods: dict[str, dict[str, Any]]
    variants: dict[str, dict[str, Any]]
    training: Training
    tuning: Tuning
    timing: Timing
    sensitivity: Sensitivity
    probe: Probe
    gradcam: GradCam

    def cell(self, method: str) -> dict[str, Any]:
        """Parameters of a method or variant. Raises IbmaError for an unknown one."""
        known = {**self.methods, **self.variants}
        if method not in known:
            raise IbmaError(f"params.yaml: unknown method '{method}'{_hint(method, known)}")
        return dict(known[method] or {})

    def names(self) -> Iterator[tuple[str, str]]:
        """(task, name) of every folder of records: the grid, then the runs at fixed etas."""
        for task in self.tasks:
            yield from ((task, method) for method in (*self.methods, *self.variants))
        yield from ((self.sensitivity.task, name) for name in self.sensitivity.names())

    def task(self, name: str) -> dict[str, Any]:
        """Entry of a task. Raises IbmaError for an unknown one."""
        if name not in self.tasks:
            raise IbmaError(f"params.yaml: unknown task '{name}'{_hint(name, self.tasks)}")
        return self.tasks[name]


T = TypeVar("T")


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check a profile.

    Raises IbmaError naming the file and the key: missing file, broken YAML, unknown or missing key.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IbmaError(
            f"{path}: not found: run this in the repository, or `ibma profile twin`"
        ) from None
    except yaml.YAMLError as error:
        raise IbmaError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    values = dict(_mapping(raw, path, "the file"))
    for name in ("datasets", "tasks", "methods", "variants"):
        _mapping(values.get(name), path, name)
    parts: dict[str, type[Any]] = {
        "training": Training,
        "tuning": Tuning,
        "timing": Timing,
        "sensitivity": Sensitivity,
        "probe": Probe,
        "gradcam": GradCam,
    }
    for name, cls in parts.items():
        values[name] = _typed(cls, _mapping(values.get(name), path, name), path, f"{name}.")
    params = _typed(Params, values, path, "")
    _check(params, path)
    return params


def _check(params: Params, path: Path) -> None:
    for name, dataset in params.datasets.items():
        _known(_mapping(dataset, path, f"datasets.{name}"), DATASET_KEYS, path, f"datasets.{name}.")
        if dataset.get("source") not in ("twin", "real"):
            raise IbmaError(f"{path}: datasets.{name}.source: expected twin or real")
    for name, task in params.tasks.items():
        _known(_mapping(task, path, f"tasks.{name}"), TASK_KEYS, path, f"tasks.{name}.")
        if task.get("dataset") not in params.datasets:
            raise IbmaError(
                f"{path}: tasks.{name}.dataset: '{task.get('dataset')}' is not under datasets"
            )
        if task.get("on_bad", "stop") not in ("stop", "drop"):
            raise IbmaError(f"{path}: tasks.{name}.on_bad: expected stop or drop")
    for name in [*params.tasks, *params.methods, *params.variants]:
        if "-" in name:
            raise IbmaError(f"{path}: '{name}': use _ in names, DVC joins matrix axes with -")
    if params.eta is not None and not isinstance(params.eta, int | float):
        raise IbmaError(f"{path}: eta: expected a number or null, found {params.eta!r}")
    if params.device not in ("auto", "cpu", "cuda"):
        raise IbmaError(f"{path}: device: expected auto, cpu or cuda, found {params.device!r}")
    if not isinstance(params.seeds, int) or params.seeds < 1:
        raise IbmaError(f"{path}: seeds: expected a number of runs >= 1, found {params.seeds!r}")
    if not isinstance(params.processes, int) or params.processes < 1:
        raise IbmaError(f"{path}: processes: expected a number >= 1, found {params.processes!r}")
    if params.training.refresh not in ("epoch", "pass"):
        refresh = params.training.refresh
        raise IbmaError(f"{path}: training.refresh: expected epoch or pass, found {refresh!r}")
    _check_stages(params, path)
    if not isinstance(params.timing.rounds, int) or params.timing.rounds < 2:
        raise IbmaError(f"{path}: timing.rounds: expected a number >= 2")
    _known(params.tuning.grid, ("lr", "weight_decay", "eta"), path, "tuning.grid.")


def _check_stages(params: Params, path: Path) -> None:
    """Stages that run on one task, or on some methods, must name ones that there are."""
    named = {
        "timing.task": [params.timing.task],
        "sensitivity.task": [params.sensitivity.task],
        "probe.task": [params.probe.task],
        "gradcam.tasks": list(params.gradcam.tasks),
    }
    for where, tasks in named.items():
        for unknown in set(tasks) - set(params.tasks):
            raise IbmaError(f"{path}: {where}: '{unknown}' is not under tasks")
    for unknown in set(params.sensitivity.variants) - set(params.variants):
        raise IbmaError(f"{path}: sensitivity.variants: '{unknown}' is not under variants")
    for where, listed in (("probe", params.probe.methods), ("gradcam", params.gradcam.methods)):
        for unknown in set(listed) - {*params.methods, *params.variants}:
            raise IbmaError(f"{path}: {where}.methods: '{unknown}' is no method or variant")


def _typed(cls: type[T], values: Mapping[str, Any], path: Path, where: str) -> T:
    names = [field.name for field in fields(cast(Any, cls))]
    _known(values, names, path, where)
    missing = [name for name in names if name not in values]
    if missing:
        raise IbmaError(f"{path}: missing key '{where}{missing[0]}': add it, see profiles/")
    return cls(**values)


def _known(values: Mapping[str, Any], names: Iterable[str], path: Path, where: str) -> None:
    for key in values:
        if key not in names:
            raise IbmaError(f"{path}: unknown key '{where}{key}'{_hint(key, names)}")


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean '{close[0]}'?" if close else f": expected one of {', '.join(known)}"


def _mapping(value: object, path: Path, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise IbmaError(f"{path}: {where}: expected a mapping, found {type(value).__name__}")
    return value
