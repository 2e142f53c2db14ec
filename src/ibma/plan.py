"""Estimate what a profile costs before it runs: networks, hours, disk, what is missing.

Hours are rows x epochs x measured seconds of a row and epoch of the method. They assume that a row
costs the same on every task that was not measured and has other encoders than those that were, that
a fold of stage `tune` costs its share of the rows, and that a network has its device to itself.
Start-up, evaluation, features and reports are not in them.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ibma import datasets, fetch, paths, pretrained, tables
from ibma.errors import IbmaError
from ibma.features import media
from ibma.files import read_json
from ibma.params import (
    DURATION,
    FeatureParams,
    Params,
    PictureFeature,
    SoundFeature,
    TextFeature,
    Variant,
)

GB = 1e9
WEIGHT_BYTES = 4  # networks are stored in single precision
Shape = tuple[tuple[int, ...], str]  # of a stored row, and its dtype
Row = dict[str, Any]  # of the table, under its headings
DEFAULTS: Mapping[str, FeatureParams] = {  # kind of modality -> how it is stored unless told
    "audio": SoundFeature(),
    "frames": PictureFeature(),
    "image": PictureFeature(),
    "text": TextFeature(),
}


class Asked:
    """What a profile needs on one task. None means that it is not known yet."""

    def __init__(self, params: Params, root: Path, task: str) -> None:
        self.params, self.root, self.task = params, root, task
        self.entry = params.task(task)
        self.card = datasets.card(tables.dataset(params, self.entry.dataset), self.entry.options)
        self.source = tables.source(params, self.entry.dataset)
        meta = read_json(root / paths.meta(task), {})
        wanted = {"dataset": self.entry.dataset, "source": self.source}
        self.meta: Mapping[str, Any] = meta if wanted.items() <= meta.items() else {}

    @property
    def samples(self) -> tuple[int, int] | None:
        """Return training and test rows as extracted, else as published for real data."""
        if self.meta:
            counts: Mapping[str, int] = self.meta["counts"]
            test = counts.get("test", 0) + counts.get("valid", 0)
            return sum(counts.values()) - test, test
        for stated in (self.card.official, self.card.paper):
            if self.source == "real" and stated is not None and stated.train is not None:
                return stated.train, stated.test or 0
        return None

    @property
    def rows(self) -> int | None:
        """Return how many rows a run learns from."""
        if self.samples is None:
            return None
        folds = self.card.folds
        return round(sum(self.samples) * (1 - 1 / folds)) if folds else self.samples[0]

    def trials(self, method: str) -> int:
        """Return how many networks stage `tune` trains: settings x folds x test folds."""
        if self.card.kind == "one_class":  # train holds no anomaly to select by
            return 0
        from ibma import methods
        from ibma.experiments import tune

        grid, model = self.params.tune.grid, methods.find(self.params.method(method).file)
        points = tune.points(grid, model)
        settings = len(points) + len(tune.weights(grid, model, points[0]))
        return settings * self.params.tune.folds * max(self.card.folds, 1)

    def kind(self, modality: str) -> str:
        """Return the kind of a modality as it is stored."""
        given = self.entry.features.get(modality)
        kind = self.card.modalities[modality]
        return media.stored_kind(kind, {} if given is None else given.as_dict())

    @cached_property
    def shapes(self) -> dict[str, Shape] | None:
        """Return modality -> shape and dtype of a row: as stored, else as params.yaml says."""
        if self.meta:
            stored = self.meta["modalities"].items()
            return {name: (tuple(one["shape"]), one["dtype"]) for name, one in stored}
        planned = {name: self._shape(name) for name in self.card.modalities}
        known = {name: shape for name, shape in planned.items() if shape is not None}
        return known if len(known) == len(planned) else None

    def _shape(self, modality: str) -> Shape | None:
        """Return what `media.compute` makes of a modality; None for vectors of unknown length."""
        kind, given = self.kind(modality), self.entry.features.get(modality)
        if kind == "vector":
            return None
        feature = given if given is not None and given.model_fields_set else DEFAULTS.get(kind)
        if isinstance(feature, SoundFeature):
            ogm = feature.spectrogram == "ogm"
            bands = media.N_FFT // 2 + 1 if ogm else feature.n_mels
            return (bands, 1 + DURATION // feature.hop), "f4"
        if isinstance(feature, PictureFeature):
            picture = (3, feature.size, feature.size)
            return (feature.frames, *picture) if kind == "frames" else picture, "u1"
        if isinstance(feature, TextFeature):
            return (feature.max_length,), "i4"
        genes = self.entry.options.get("n_genes")
        return ((int(genes),), "f4") if genes else None

    @property
    def features_gb(self) -> float | None:
        """Return GB of the task's features."""
        if self.samples is None or self.shapes is None:
            return None
        row = sum(
            math.prod(shape) * np.dtype(kind).itemsize for shape, kind in self.shapes.values()
        )
        return sum(self.samples) * row / GB

    @property
    def network_gb(self) -> float | None:
        """Return GB of one network: its encoders, which are nearly all of it."""
        import torch

        from ibma.network import encoders

        if self.shapes is None or any(one.name == "auto" for one in self.entry.encoders.values()):
            return None
        size, width = 0, self.params.training.width
        for name, (shape, _) in self.shapes.items():
            # without sizes encoders are those of the base model, which pretrained weights are
            config = self.entry.encoders[name].as_dict()
            config.pop("pretrained", None)
            with torch.device("meta"):
                network = encoders.build(config, kind=self.kind(name), shape=shape, width=width)
            size += sum(weight.numel() for weight in network.parameters())
        return size * WEIGHT_BYTES / GB


@dataclass(frozen=True)
class Rates:
    """Measured seconds per row and epoch of each method; empty where nothing was measured."""

    seconds: Mapping[str, float]
    measured: str

    def hours(self, rows: int | None, epochs: Mapping[str, float]) -> float | None:
        """Return the hours of so many epochs of each method.

        A method that was not measured takes the median of the others.
        """
        if rows is None or not self.seconds:
            return None
        median = statistics.median(self.seconds.values())
        return rows * sum(n * self.seconds.get(m, median) for m, n in epochs.items()) / 3600


def rates(params: Params, root: Path, task: str | None = None) -> Rates:
    """Return what a row costs, as stage `timing` measured here, else as a GPU benchmark did.

    Args:
        task: whose own measures a benchmark may have, or those of a task like it; those of timing's
            task stand in for both.
    """
    asked = Asked(params, root, params.timing.task)
    timed, rows = read_json(root / paths.TIMING, {}), asked.rows
    if rows and (timed.get("task"), timed.get("source")) == (asked.task, asked.source):
        seconds = {method: one["median"] / rows for method, one in timed["methods"].items()}
        return Rates(seconds, f"measured on {timed['device']}, {rows:,} rows of {asked.task}")
    like = _alike(params, task) if task else ()
    own = next(filter(None, (_gpu_rates(Asked(params, root, name)) for name in like)), None)
    unknown = Rates({}, "not measured: `dvc repro timing`, then ask again")
    return own or _gpu_rates(asked) or unknown


def _alike(params: Params, task: str) -> list[str]:
    """List the tasks with the features and encoders of a task, itself first."""
    entry = params.task(task)
    parts = entry.features, entry.encoders
    like = [name for name, one in params.tasks.items() if (one.features, one.encoders) == parts]
    return sorted(like, key=lambda name: name != task)


def _gpu_rates(asked: Asked) -> Rates | None:
    """Return what a row of a real task costs by the records of the GPU benchmark; None without.

    Some methods are timed on all rows, every one on a part of them ("short epoch"). The lines on
    most rows count, of these the latest record's.
    """
    if asked.source != "real":
        return None
    files = sorted((asked.root / paths.GPU_MEASURES).glob("*.jsonl"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    measures = [json.loads(line) for line in lines]
    kinds = {("epoch", asked.task), ("short epoch", asked.task)}
    epochs = [m for m in measures if (m.get("measure"), m.get("task")) in kinds]
    if not epochs:
        return None
    epochs.sort(key=lambda one: int(one["rows"]))
    seconds = {one["method"]: one["seconds"] / one["rows"] for one in epochs}
    return Rates(seconds, f"measured on {epochs[-1]['device']}, {epochs[-1]['rows']:,} rows")


def raw_gb(params: Params, root: Path, dataset: str) -> float | None:
    """Return GB of raw files: as they lie there, else as the card states; None for unknown."""
    wanted = tables.source(params, dataset)
    manifest = read_json(root / paths.manifest(dataset), {})
    if manifest.get("source") == wanted and manifest["files"]:
        return float(sum(size for _, size, _ in manifest["files"]) / GB)
    return tables.dataset(params, dataset).CARD.raw_gb if wanted == "real" else 0.0


def missing(params: Params, root: Path, needed_gb: float) -> list[str]:
    """Return one line for each thing that this machine lacks."""
    import torch

    ready = {e.dataset for task, e in params.tasks.items() if Asked(params, root, task).meta}
    lacking = [
        f"data set {name}: not placed, docs/datasets.md says how to get it"
        for name, entry in params.datasets.items()
        if entry.source == "real" and name not in ready
        if fetch.missing(name, datasets.load(name), root / paths.RAW / name)
    ]
    lacking += [
        f"table {name}: {place} is not there"
        for name in params.tables
        if not (place := tables.raw(params, name)).exists()
    ]
    lacking += [f"weights {name}: {why}" for name, why in _absent_weights(params)]
    if not torch.cuda.is_available():
        lacking.append("GPU: none found, training would run on the CPU")
    free = shutil.disk_usage(root).free / GB
    if free < needed_gb:
        lacking.append(f"disk: {needed_gb:,.0f} GB to write, {free:,.0f} GB free")
    return lacking


def _absent_weights(params: Params) -> Iterator[tuple[str, str]]:
    """Yield pretrained networks and tokenizers that this machine does not have, and why."""
    from huggingface_hub import try_to_load_from_cache

    parts = [p for e in params.tasks.values() for p in (*e.encoders.values(), *e.features.values())]
    keys = ("pretrained", "tokenizer", "embedding")
    for name in sorted({n for part in parts for key in keys if (n := getattr(part, key, None))}):
        try:
            place = pretrained.locate(name)
        except IbmaError as error:
            yield name, str(error)
            continue
        if not Path(place).exists() and not try_to_load_from_cache(name, "config.json"):
            yield name, "not in the cache of the Hugging Face hub, fetched at first use"


def table(params: Params, root: Path) -> list[Row]:
    """Return the plan: a row for each task, one for each task of a study, and sums."""
    rows = [_row(Asked(params, root, task)) for task in params.tasks]
    for stage, tasks in params.studies().items():
        for task, named in tasks.items():
            rows.append(_study_row(Asked(params, root, task), stage, named))
    total: Row = {"task": "sum of the known", "source": "", "rows": ""}
    for heading in rows[0].keys() - total.keys():
        known = [row[heading] for row in rows if row[heading] is not None]
        total[heading] = sum(known) if known else None
    return [*rows, total]


def _row(asked: Asked) -> Row:
    params, network = asked.params, asked.network_gb
    methods, rate = params.methods_of(asked.task), rates(params, asked.root, asked.task)
    trials = {method: asked.trials(method) for method in methods}
    share = 1 - 1 / params.tune.folds  # of the training rows that a fold learns from
    tuned = {method: number * share * params.tune.epochs for method, number in trials.items()}
    trained = dict.fromkeys(methods, params.seeds * params.training.epochs)
    kept = params.seeds * len(params.keep_weights)
    return {
        "task": asked.task,
        "source": asked.source,
        "rows": asked.rows,
        "methods": len(methods),
        "networks": len(methods) * params.seeds,
        "trials": sum(trials.values()),
        "train h": rate.hours(asked.rows, trained),
        "tune h": rate.hours(asked.rows, tuned),
        "features GB": asked.features_gb,
        "weights GB": None if network is None else network * kept,
    }


def _study_row(asked: Asked, stage: str, named: Mapping[str, Variant]) -> Row:
    """Return the row of a study on a task; nothing is tuned, stored or kept for it."""
    times, epochs = Counter(one.method for one in named.values()), asked.params.training.epochs
    trained = {m: count * asked.params.seeds * epochs for m, count in times.items()}
    rate = rates(asked.params, asked.root, asked.task)
    row = _row(asked) | {
        "task": f"{stage}@{asked.task}",
        "methods": len(named),
        "networks": len(named) * asked.params.seeds,
        "train h": rate.hours(asked.rows, trained),
    }
    for heading in ("trials", "tune h", "features GB", "weights GB"):
        row[heading] = row[heading] and 0
    return row


def text(params: Params, root: Path) -> str:
    """Return the plan as people read it."""
    from tabulate import tabulate

    rows = table(params, root)
    shown = [{heading: _shown(value) for heading, value in row.items()} for row in rows]
    kept = sum(rows[-1][heading] or 0 for heading in ("features GB", "weights GB"))
    raws = {name: raw_gb(params, root, name) for name in (*params.datasets, *params.tables)}
    disk = sum(gb or 0 for gb in raws.values()) + 2 * kept
    lacking = missing(params, root, disk)
    align = ["left"] * 2 + ["right"] * (len(rows[0]) - 2)
    return "\n".join(
        [
            f"Profile {params.profile}: {params.seeds} seeds of {params.training.epochs} epochs",
            "",
            tabulate(shown, "keys", disable_numparse=True, colalign=align),
            "",
            f"Hours: {rates(params, root).measured}.",
            "Assumed: a row of a task that was not measured costs what one of a measured task with",
            f"the same encoders costs, else what one of {params.timing.task} costs; and a network "
            "has its device to itself.",
            "Left out: start-up, evaluation, features, probes, reports.",
            "",
            f"Raw data, GB: {', '.join(f'{name} {_shown(gb)}' for name, gb in raws.items())}",
            f"Disk for all of it: {_shown(disk)} GB, features and weights twice: DVC keeps a copy.",
            "",
            "Missing:" if lacking else "Missing: nothing.",
            *(f"- {line}" for line in lacking),
        ]
    )


def _shown(value: object) -> str:
    if value is None:
        return "?"
    if isinstance(value, float):
        return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
