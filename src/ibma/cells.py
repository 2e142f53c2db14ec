"""From params.yaml to cells: the one place that knows folders and which entry feeds what."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ibma import (
    checksums,
    datasets,
    fetch,
    gradcam,
    media,
    methods,
    parallel,
    probe,
    record,
    store,
    tasks,
    timing,
    train,
    tune,
    twins,
)
from ibma import extract as extraction
from ibma.centroids import Assignment, write_all
from ibma.datasets import Sample
from ibma.errors import IbmaError
from ibma.jsonfile import write_json
from ibma.params import Params
from ibma.record import Record
from ibma.train import Cell, Setting

RAW, MANIFESTS = Path("data/raw"), Path("data/manifests")
FEATURES, CENTROIDS = Path("data/features"), Path("data/centroids")
TUNING, SCRATCH, RUNS, MODELS = (
    Path("data/tune"),
    Path("data/scratch"),
    Path("runs"),
    Path("models"),
)
TIMING, PROBE, GRADCAM = (Path(f"data/{name}.json") for name in ("timing", "probe", "gradcam"))
VARIANT_FILE = "ibma"  # every entry of `variants` is a parameter set of methods/ibma.py


def download(params: Params, name: str) -> None:
    """Stage `download`: fill data/raw/<name> and write its manifest.

    Raises IbmaError for a data set that params.yaml does not list.
    """
    if name not in params.datasets:
        listed = ", ".join(params.datasets)
        raise IbmaError(f"params.yaml: no data set '{name}': expected one of {listed}")
    manifest = fetch.dataset(name, params.datasets[name]["source"], RAW / name)
    if manifest["missing"]:
        print(f"{name}: {manifest['missing']}", file=sys.stderr)
    write_json(MANIFESTS / f"{name}.json", manifest)


def extract(params: Params, task: str) -> None:
    """Stage `extract`: data/raw/<dataset> -> data/features/<task>."""
    entry = params.task(task)
    name = entry["dataset"]
    path = MANIFESTS / f"{name}.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest["missing"]:
        return extraction.absent(task, entry, manifest["missing"], FEATURES / task)
    first = next((RAW / name / file for file, _, _ in manifest["files"]), RAW)
    if not first.exists():
        raise IbmaError(f"{first}: gone, but {path} lists it: run `dvc repro -f download@{name}`")
    extraction.extract(
        task,
        entry,
        datasets.load(name),
        RAW / name,
        FEATURES / task,
        media.compute,
        key=checksums.sha256(path),
        workers=params.workers,
    )


def _not_run(task: str, *folders: Path) -> bool:
    """Whether a task's data is not here; then its outputs are there, but empty."""
    meta = json.loads((FEATURES / task / "meta.json").read_text(encoding="utf-8"))
    if "missing" not in meta:
        return False
    print(f"{task}: not run: {meta['missing']}", file=sys.stderr)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return True


def centroids(params: Params, task: str) -> None:
    """Stage `centroids`: phi(X), U and X as vectors, per test fold (or the fixed split)."""
    if _not_run(task, CENTROIDS / task):
        return
    entry = params.task(task)
    features = store.Features(FEATURES / task)
    write_all(
        features,
        tasks.build(features.meta["kind"], features.meta["classes"]),
        entry["encoders"],
        assignment(params),
        params.training.pseudo_classes,
        CENTROIDS / task,
    )


def assignment(params: Params) -> Assignment:
    """How phi is computed in this profile."""
    return Assignment(params.training.beta, params.training.normalise)


def cell(params: Params, task: str, method: str) -> Cell:
    """One task x method. Raises IbmaError for unknown names."""
    hparams = params.cell(method)
    file = VARIANT_FILE if method in params.variants else method
    if file not in methods.names():
        raise IbmaError(f"params.yaml: method '{method}' has no file src/ibma/methods/{file}.py")
    return Cell(
        profile=params.profile,
        task_name=task,
        method=method,
        method_file=file,
        hparams=hparams,
        encoders=params.task(task)["encoders"],
        epochs=params.training.epochs,
        batch_size=params.training.batch_size,
        width=params.training.width,
        heads=params.training.heads,
        assignment=assignment(params),
        features=store.Features(FEATURES / task),
        centroids=CENTROIDS / task,
        device=_device(params),
        refresh=params.training.refresh,
        compile=params.training.compile,
    )


def tune_task(params: Params, task: str) -> None:
    """Stage `tune`: every method's choice for one task."""
    for method in [*params.methods, *params.variants]:
        tune_method(params, task, method)


def tune_method(params: Params, task: str, method: str) -> None:
    """One method's choice for one task; kept when it is already made."""
    if _not_run(task):
        return write_json(TUNING / task / f"{method}.json", {})  # stage `train` asks for one
    tune.tune(
        cell(params, task, method),
        params.tuning,
        TUNING / task,
        reads_eta=method in params.variants,
    )


def train_cell(params: Params, task: str, method: str) -> None:
    """Stages `train` and `train_ibma`: every seed of one cell that is not finished yet."""
    is_variant = method in params.variants
    if not _together(params, "train_ibma" if is_variant else "train", task, method):
        _train(params, task, method, method, params.eta if is_variant else None)


def train_at(params: Params, variant: str, eta: float) -> None:
    """Stage `sensitivity`: every seed of one variant at a fixed eta."""
    at = params.sensitivity
    if not _together(params, "sensitivity", variant, f"{eta:g}"):
        _train(params, at.task, variant, at.name(variant, eta), eta)


def _together(params: Params, stage: str, *names: str) -> bool:
    """Let `processes` processes go through a stage's door; False if this is one of them, or alone.

    Raises IbmaError when they failed; what went wrong stands above.
    """
    if params.processes == 1 or parallel.launched():
        parallel.begin()
        return False
    count = ("--standalone", "--nproc-per-node", str(params.processes))
    door = (f"stages/{stage}.py", *names)
    launcher = (sys.executable, "-m", "torch.distributed.run", *count)
    if subprocess.run([*launcher, *door]).returncode:
        raise IbmaError(f"{' '.join(door)}: failed in {params.processes} processes, see above")
    return True


def _train(params: Params, task: str, method: str, name: str, eta: float | None) -> None:
    """Train a method's unfinished seeds under a name; eta None: the tune stage's choice."""
    folder = Path(task) / name
    if _not_run(task, RUNS / folder, MODELS / folder):
        return
    here = replace(cell(params, task, method), method=name)
    for run in range(params.seeds):
        setting = tune.chosen(TUNING / task / f"{method}.json", here.features.fold(run), eta)
        train.run_seed(here, run, setting, RUNS / folder, MODELS / folder, SCRATCH / folder)


def probe_encoders(params: Params) -> None:
    """Stage `probe`: every run's encoders under a linear classifier."""
    task = params.probe.task
    if _not_run(task):
        return write_json(PROBE, [])
    runs = _trained(params, task, params.probe.methods, range(params.seeds))
    write_json(PROBE, [row for run in runs for row in probe.probe(*run)])


def _trained(
    params: Params, task: str, methods_: Sequence[str], runs: Iterable[int]
) -> Iterator[tuple[Cell, Record, Path]]:
    """Cells, records and weights of some methods' runs on a task."""
    for method in methods_:
        here = cell(params, task, method)
        for run in runs:
            one = record.read(RUNS / task / method / f"seed_{run}.json")
            yield here, one, MODELS / task / method


def explain(params: Params) -> None:
    """Stage `gradcam`: maps, numbers and examples of every task's first run."""
    found = {}
    for task, modality in params.gradcam.tasks.items():
        if _not_run(task):
            continue
        name = params.task(task)["dataset"]
        looked = {
            one.method: gradcam.look(
                here, one.seed, probe.restore(here, one, models), modality, twins.region(name)
            )
            for here, one, models in _trained(params, task, params.gradcam.methods, [0])
        }
        features = store.Features(FEATURES / task)
        shown = gradcam.examples(features, modality, looked, params.gradcam.examples)
        texts = _texts(params, task, [example["id"] for example in shown])
        for example in shown:
            example["text"] = texts[example["id"]]
        found[task] = gradcam.summary(features, looked) | {"examples": shown}
    write_json(GRADCAM, found)


def _texts(params: Params, task: str, ids: Sequence[str]) -> dict[str, str]:
    """The words of some samples; features hold their token ids only."""
    entry = params.task(task)
    name = entry["dataset"]
    samples = extraction.samples(datasets.load(name), RAW / name, task, entry)
    return {
        one.id: str(one.parts.get("text") or "")
        for one in samples
        if isinstance(one, Sample) and one.id in ids
    }


def time_methods(params: Params) -> None:
    """Stage `timing`: every method and variant on one task, side by side."""
    if _not_run(params.timing.task):
        return write_json(TIMING, {})
    lr, weight_decay = params.tuning.grid["lr"][0], params.tuning.grid["weight_decay"][0]
    eta = params.tuning.grid["eta"][0]
    methods_ = [*params.methods, *params.variants]
    timing.write(
        {method: cell(params, params.timing.task, method) for method in methods_},
        {m: Setting(lr, weight_decay, eta if m in params.variants else None) for m in methods_},
        params.timing.rounds,
        TIMING,
    )


def _device(params: Params) -> torch.device:
    if params.threads is not None:
        torch.set_num_threads(params.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return train.device(params.device)
