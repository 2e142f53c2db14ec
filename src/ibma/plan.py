"""What a profile asks for: cells, hours, disk, and what this machine lacks. Nothing is changed.

Hours are rows x epochs x seconds per row and epoch of the method, the last from the timing stage's
table, measured on one task. They assume that a row costs the same on every task, that a fold of
the tuning stage costs its share of the rows, and that one cell has the device to itself; start-up,
evaluation, features and reports are not in them.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ibma import datasets, fetch, pretrained
from ibma.datasets import Card
from ibma.errors import IbmaError
from ibma.experiments import runs
from ibma.features import media
from ibma.files import read_json
from ibma.paper import published
from ibma.params import Params

GB = 1e9
TIMED = "minutes_per_epoch"
# Raw files in GB where nothing is placed yet: from the publishers' pages, see docs/datasets.md.
# meld and iemocap: the archive and what is unpacked from it.
RAW_GB = {
    "crema_d": 3.0,
    "meld": 22.0,
    "iemocap": 24.0,
    "mimic_cxr": 570.0,
    "chexpert": 11.0,
    "ravdess": 0.2,
    "mosi_features": 0.005,
    "split_digits": 0.0,
}
WEIGHT_BYTES = 4  # networks are stored in single precision


@dataclass(frozen=True)
class Rates:
    """Seconds per training row and epoch of each method, and who says so.

    A method that was not measured takes the median. seconds is empty where nothing was measured.
    """

    seconds: Mapping[str, float]
    source: str

    def of(self, method: str) -> float | None:
        """Seconds of a row and epoch; None where nothing was measured."""
        if not self.seconds:
            return None
        return self.seconds.get(method, statistics.median(self.seconds.values()))


def rates(profile: Params, root: Path) -> Rates:
    """What an epoch costs: measured here on this profile's task, else the paper's own word."""
    task = profile.timing.task
    timed = read_json(root / runs.TIMING, {})
    source = profile.datasets[profile.task(task)["dataset"]]["source"]
    rows = training_rows(profile, root, task)
    if rows and timed.get("task") == task and timed.get("source") == source:
        found = {name: entry["median"] / rows for name, entry in timed["methods"].items()}
        return Rates(found, f"measured on {timed['device']}, {rows:,} rows of {task}")
    if source == "real" and (minutes := _published_minutes(task)) and rows:
        found = {name: 60 * value / rows for name, value in minutes.items()}
        return Rates(found, "not measured here: the paper's Tables 6 and 9, an A100")
    return Rates({}, "not measured: `dvc repro timing`, then ask again")


def _published_minutes(task: str) -> dict[str, float]:
    """Method -> minutes per epoch as the paper prints them."""
    found = {}
    for table in published.load().tables.values():
        for row in table.rows:
            for column, cell in row.cells.items():
                target = table.target(row.key, column)
                if target.metric == TIMED and target.task == task and target.method:
                    found[target.method] = cell.value
    return found


# --- work ----------------------------------------------------------------------------------------


def hours(profile: Params, root: Path) -> Callable[[str], float]:
    """A function from a unit (`grid.units`) to its hours; in arbitrary units where unmeasured."""
    found = rates(profile, root)
    rows = {task: training_rows(profile, root, task) or 1 for task in profile.tasks}

    def of(unit: str) -> float:
        _, task, method, _ = runs.parts(profile, unit)
        seconds = found.of(method) if found.seconds else 1.0
        return row_epochs(profile, unit, rows[task]) * float(seconds or 0.0) / 3600

    return of


def row_epochs(profile: Params, unit: str, rows: float) -> float:
    """Rows that a unit trains on, counted once an epoch."""
    stage, task, method, _ = runs.parts(profile, unit)
    if stage != "tune":
        return rows * profile.seeds * profile.training.epochs
    share = 1 - 1 / profile.tuning.folds  # of the training rows that a fold learns from
    return rows * trials(profile, task, method) * share * profile.tuning.epochs


def trials(profile: Params, task: str, method: str) -> int:
    """Networks that the tuning stage trains: grid points x folds x test folds."""
    card = _card(profile, task)
    if card.kind == "one_class":  # train holds no anomaly to select by: `tune.tune`
        return 0
    from ibma.experiments import tune

    points = tune.grid(profile.tuning, reads_eta=method in profile.variants)
    return len(points) * profile.tuning.folds * max(card.folds, 1)


def training_rows(profile: Params, root: Path, task: str) -> int | None:
    """Rows one run learns from; before extraction what is stated of the real set, else None."""
    card = _card(profile, task)
    counts = samples(profile, root, task)
    if counts is None:
        return None
    train, test = counts
    return round((train + test) * (1 - 1 / card.folds)) if card.folds else train


def samples(profile: Params, root: Path, task: str) -> tuple[int, int] | None:
    """(train, test) rows, counted in the features, or as published for real data."""
    entry = profile.task(task)
    meta = read_json(root / runs.FEATURES / task / "meta.json", {})
    same = meta.get("source") == profile.datasets[entry["dataset"]]["source"]
    if same and meta.get("dataset") == entry["dataset"]:
        counts: Mapping[str, int] = meta["counts"]
        test = counts.get("test", 0) + counts.get("valid", 0)
        return sum(counts.values()) - test, test
    if profile.datasets[entry["dataset"]]["source"] != "real":
        return None
    card = _card(profile, task)
    for stated in (card.official, card.paper):
        if stated is not None and stated.train is not None:
            return stated.train, stated.test or 0
    return None


def _card(profile: Params, task: str) -> Card:
    entry = profile.task(task)
    return datasets.card(datasets.load(entry["dataset"]), entry.get("options", {}))


# --- disk ----------------------------------------------------------------------------------------


def raw_gb(root: Path, name: str, source: str) -> float | None:
    """GB of a data set's raw files: as placed, else as published; None where nobody says."""
    manifest = read_json(root / runs.MANIFESTS / f"{name}.json", {})
    if manifest.get("source") == source and manifest["files"]:
        return float(sum(size for _, size, _ in manifest["files"]) / GB)
    return RAW_GB.get(name) if source == "real" else 0.0


def feature_gb(profile: Params, root: Path, task: str) -> float | None:
    """GB of a task's features: rows x bytes of a row; None where either is not known yet."""
    counts, shapes = samples(profile, root, task), feature_shapes(profile, root, task)
    if counts is None or shapes is None:
        return None
    row = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())
    return sum(counts) * row / GB


def feature_shapes(
    profile: Params, root: Path, task: str
) -> dict[str, tuple[tuple[int, ...], str]] | None:
    """Modality -> shape and dtype of a row: as stored, else as the parameters say."""
    entry = profile.task(task)
    meta = read_json(root / runs.FEATURES / task / "meta.json", {})
    if "modalities" in meta and meta["dataset"] == entry["dataset"]:
        stored = meta["modalities"].items()
        return {name: (tuple(m["shape"]), m["dtype"]) for name, m in stored}
    found = {}
    for name, kind in _kinds(profile, task).items():
        shape = _shape(kind, entry["features"].get(name) or {}, entry.get("options", {}))
        if shape is None:
            return None
        found[name] = shape
    return found


def _kinds(profile: Params, task: str) -> dict[str, str]:
    """Modality -> kind of its features."""
    features, found = profile.task(task)["features"], _card(profile, task).modalities
    return {n: media.stored_kind(kind, features.get(n) or {}) for n, kind in found.items()}


def _shape(
    kind: str, features: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[tuple[int, ...], str] | None:
    """See `media.compute`. None for vectors, whose length only the files tell."""
    size = features.get("size", 224)
    if kind == "audio":
        steps = 1 + media.SAMPLE_RATE * media.SECONDS // features.get("hop", media.HOP)
        mels = features.get("n_mels", 128)
        return (media.N_FFT // 2 + 1 if features.get("spectrogram") == "ogm" else mels, steps), "f4"
    if kind == "frames":
        return (features.get("frames", 3), 3, size, size), "u1"
    if kind == "image":
        return (3, size, size), "u1"
    if kind == "text":
        return (features["max_length"],), "i4"
    return ((options["n_genes"],), "f4") if "n_genes" in options else None


def network_gb(profile: Params, root: Path, task: str) -> float | None:
    """GB of one network's weights: its encoders', which is nearly all; heads come on top."""
    import torch

    from ibma.network import encoders

    shapes = feature_shapes(profile, root, task)
    if shapes is None:
        return None
    kinds, entry = _kinds(profile, task), profile.task(task)
    numbers = 0
    for name, (shape, _) in shapes.items():
        # sizes of pretrained networks are the base model's, which are the defaults
        config = {k: v for k, v in entry["encoders"][name].items() if k != "pretrained"}
        with torch.device("meta"):
            network = encoders.build(
                config, kind=kinds[name], shape=shape, width=profile.training.width
            )
        numbers += sum(weight.numel() for weight in network.parameters())
    return float(numbers * WEIGHT_BYTES / GB)


# --- what is missing -----------------------------------------------------------------------------


def missing(profile: Params, root: Path, needed_gb: float) -> list[str]:
    """One line for each thing that this machine lacks."""
    import torch

    found = []
    for name, entry in profile.datasets.items():
        raw = root / runs.RAW / name
        if entry["source"] == "real" and fetch.missing(name, datasets.load(name), raw):
            found.append(f"data set {name}: not placed, docs/datasets.md says how to get it")
    found += [f"weights {name}: {why}" for name, why in _absent_weights(profile)]
    if not torch.cuda.is_available():
        found.append("GPU: none found, training would run on the CPU")
    free = shutil.disk_usage(root).free / GB
    if free < needed_gb:
        found.append(f"disk: {needed_gb:,.0f} GB to write, {free:,.0f} GB free")
    return found


# where params.yaml names pretrained weights
_NAMES = (("encoders", "pretrained"), ("features", "tokenizer"), ("features", "embedding"))


def _absent_weights(profile: Params) -> Iterable[tuple[str, str]]:
    """Pretrained networks and tokenizers that lie neither in a package nor in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    named = {
        str(config[key])
        for task in profile.tasks.values()
        for part, key in _NAMES
        for config in task[part].values()
        if config and config.get(key)
    }
    for name in sorted(named):
        try:
            place = pretrained.locate(name)
        except IbmaError as error:
            yield name, str(error)
            continue
        if not Path(place).exists() and not try_to_load_from_cache(name, "config.json"):
            yield name, "not in the cache of the Hugging Face hub, fetched at first use"


# --- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One task's share of the plan; None: not known, or not measured."""

    task: str
    data: str
    rows: int | None
    cells: int
    networks: int
    trials: int
    train_hours: float | None
    tune_hours: float | None
    features_gb: float | None
    models_gb: float | None


def lines(profile: Params, root: Path) -> list[Line]:
    """The plan, a line per task, and one for the runs at fixed etas."""
    measured, of = bool(rates(profile, root).seconds), hours(profile, root)
    methods = [*profile.methods, *profile.variants]

    def spent(task: str, units: Iterable[str]) -> float | None:
        known = measured and training_rows(profile, root, task) is not None
        return sum(map(of, units)) if known else None

    found = []
    for task, entry in profile.tasks.items():
        weight, networks = network_gb(profile, root, task), len(methods) * profile.seeds
        found.append(
            Line(
                task,
                profile.datasets[entry["dataset"]]["source"],
                training_rows(profile, root, task),
                len(methods),
                networks,
                sum(trials(profile, task, method) for method in methods),
                spent(task, [f"train@{task}-{method}" for method in methods]),
                spent(task, [f"tune@{task}-{method}" for method in methods]),
                feature_gb(profile, root, task),
                None if weight is None else weight * networks,
            )
        )
    at = profile.sensitivity
    there = next(line for line in found if line.task == at.task)
    units = [f"sensitivity@{v}-{eta:g}" for v, eta in at.names().values()]
    networks = len(units) * profile.seeds
    models = None if there.models_gb is None else there.models_gb * networks / there.networks
    return [
        *found,
        replace(
            there,
            task=f"{at.task} at fixed etas",
            cells=len(units),
            networks=networks,
            trials=0,
            train_hours=spent(at.task, units),
            tune_hours=0.0,
            features_gb=0.0,
            models_gb=models,
        ),
    ]


HEADER = (
    *("task", "data", "rows", "cells", "networks", "trials"),
    *("train h", "tune h", "features GB", "models GB"),
)


def _shown(value: object) -> str:
    if value is None:
        return "?"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def text(profile: Params, root: Path) -> str:
    """The plan to read: a table, what it assumes, disk, what is missing here."""
    from tabulate import tabulate

    found = lines(profile, root)
    columns = list(zip(*map(astuple, found), strict=True))[3:]
    sums = [sum(value for value in column if value is not None) for column in columns]
    rows = [*map(astuple, found), ("sum of what is known", "", "", *sums)]
    table = [[_shown(value) for value in row] for row in rows]
    raws = {n: raw_gb(root, n, entry["source"]) for n, entry in profile.datasets.items()}
    disk = sum(size or 0.0 for size in raws.values()) + 2 * (sums[-2] + sums[-1])
    lacking = missing(profile, root, disk)
    return "\n".join(
        [
            f"Profile {profile.profile}: {profile.seeds} seeds of {profile.training.epochs} epochs",
            "",
            tabulate(table, HEADER, disable_numparse=True, colalign=["left"] * 2 + ["right"] * 8),
            "",
            f"Hours: {rates(profile, root).source}.",
            "Assumed: a row costs the same on every task, and a cell has its device to itself.",
            "Left out: start-up, evaluation, features, probes, reports.",
            "",
            "Raw data, GB: "
            + ", ".join(f"{n} {'?' if s is None else f'{s:,.1f}'}" for n, s in raws.items()),
            f"Disk for all of it: {disk:,.1f} GB, features and models twice: DVC keeps a copy.",
            "",
            "Missing here:" if lacking else "Missing here: nothing.",
            *(f"- {line}" for line in lacking),
        ]
    )
