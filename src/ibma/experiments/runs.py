"""From params.yaml to cells: the one place that knows folders and which entry feeds what.

Every stage starts a process that imports this module. What needs torch is imported inside the
functions, so that downloads and features do not wait for it, nor a training for Grad-CAM.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ibma import datasets, fetch, twins
from ibma.datasets import Sample
from ibma.errors import IbmaError
from ibma.features import extract as extraction
from ibma.features import media
from ibma.files import write_json
from ibma.formats import checksums
from ibma.params import Params, cores
from ibma.processes import pool
from ibma.training import record
from ibma.training.record import Record

if TYPE_CHECKING:
    import torch

    from ibma.network.centroids import Assignment
    from ibma.training.loop import Cell

RAW, MANIFESTS = Path("data/raw"), Path("data/manifests")
FEATURES, CENTROIDS = Path("data/features"), Path("data/centroids")
TUNING, SCRATCH, RUNS, MODELS = (
    Path("data/tune"),
    Path("data/scratch"),
    Path("runs"),
    Path("models"),
)
TIMING, PROBE, GRADCAM, SIGNIFICANCE, AUDIT = (
    Path(f"data/{name}.json") for name in ("timing", "probe", "gradcam", "significance", "audit")
)
VARIANT_FILE = "ibma"  # every entry of `variants` is a parameter set of methods/ibma.py


def needs(params: Params, unit: str) -> list[Path]:
    """Folders that a cell such as `train@crema_d-ce3` or `tune@crema_d` reads."""
    stage, task, _, _ = parts(params, unit)
    tuned = [] if stage == "tune" else [TUNING / task]
    return [FEATURES / task, CENTROIDS / task, *tuned]


def makes(params: Params, unit: str) -> list[Path]:
    """Folders that a cell writes."""
    stage, task, _, name = parts(params, unit)
    return [TUNING / task] if stage == "tune" else [RUNS / task / name, MODELS / task / name]


def parts(params: Params, unit: str) -> tuple[str, str, str, str]:
    """Stage, task, method, and the name under which the records of a cell stand."""
    stage, _, name = unit.partition("@")
    if stage == "sensitivity":
        at = params.sensitivity
        variant, _, eta = name.partition("-")
        return stage, at.task, variant, at.name(variant, float(eta))
    task, _, method = name.partition("-")
    return stage, task, method, method


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
    from ibma.features import store
    from ibma.network import tasks
    from ibma.network.centroids import write_all

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
    from ibma.network.centroids import Assignment

    return Assignment(params.training.beta, params.training.normalise)


def cell(params: Params, task: str, method: str) -> Cell:
    """One task x method. Raises IbmaError for unknown names."""
    from ibma import methods
    from ibma.features import store
    from ibma.training.loop import Cell

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


def tune_task(params: Params, task: str, method: str | None = None) -> None:
    """Stage `tune`: every method's choice for one task, or that of one method."""
    for each in [method] if method else [*params.methods, *params.variants]:
        tune_method(params, task, each)


def tune_method(params: Params, task: str, method: str) -> None:
    """One method's choice for one task; kept when it is already made."""
    if _not_run(task):
        return write_json(choices(task, method), {})  # stage `train` asks for one
    from ibma.experiments import tune

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


def train_at(params: Params, variant: str, eta: str) -> None:
    """Stage `sensitivity`: every seed of one variant at a fixed eta."""
    at = params.sensitivity
    if not _together(params, "sensitivity", variant, eta):
        _train(params, at.task, variant, at.name(variant, float(eta)), float(eta))


def _together(params: Params, stage: str, *names: str) -> bool:
    """Let `processes` processes go through a stage's door; False if this is one of them, or alone.

    Raises IbmaError when they failed; what went wrong stands above.
    """
    from ibma.network import distributed

    if params.processes == 1 or distributed.launched():
        distributed.begin()
        return False
    count = ("--standalone", "--nproc-per-node", str(params.processes))
    door = (f"stages/{stage}.py", *names)
    launcher = (sys.executable, "-m", "torch.distributed.run", *count)
    if subprocess.run([*launcher, *door]).returncode:
        raise IbmaError(f"{' '.join(door)}: failed in {params.processes} processes, see above")
    return True


def _train(params: Params, task: str, method: str, name: str, eta: float | None) -> None:
    """Train a method's unfinished seeds under a name; eta None: the tune stage's choice."""
    if _not_run(task, RUNS / task / name, MODELS / task / name):
        return
    train_runs = partial(_train_runs, params, task, method, name, eta)
    runs = _unfinished(params, task, method, name, eta)
    processes = min(_processes(params), len(runs))
    if processes < 2:
        return train_runs(runs)
    try:
        with pool(processes, ["ibma.training.loop", "ibma.experiments.tune"]) as at_once:
            list(at_once.map(train_runs, [[run] for run in runs]))
    except BrokenProcessPool:
        raise IbmaError(
            f"{task} {name}: a training process was killed, by want of memory in most cases: set "
            f"workers in params.yaml below {processes} and run again, finished seeds are kept"
        ) from None


def _unfinished(params: Params, task: str, method: str, name: str, eta: float | None) -> list[int]:
    """The runs without weights or without a record under their present key."""
    from ibma.experiments import tune

    here = replace(cell(params, task, method), method=name)
    missing = []
    for run in range(params.seeds):
        setting = tune.chosen(choices(task, method), here.features.fold(run), eta)
        weights = MODELS / task / name / f"seed_{run}.pt"
        kept = record.finished(RUNS / task / name, run, here.key(run, setting))
        if not (kept and weights.exists()):
            missing.append(run)
    return missing


def _train_runs(
    params: Params, task: str, method: str, name: str, eta: float | None, runs: Iterable[int]
) -> None:
    """Train some runs one after the other, in whichever process this is."""
    from ibma.experiments import tune
    from ibma.training import loop

    here = replace(cell(params, task, method), method=name)
    folder = Path(task) / name
    for run in runs:
        setting = tune.chosen(choices(task, method), here.features.fold(run), eta)
        loop.run_seed(here, run, setting, RUNS / folder, MODELS / folder, SCRATCH / folder)


def choices(task: str, method: str) -> Path:
    """Where the tune stage leaves its choice."""
    return TUNING / task / f"{method}.json"


def _processes(params: Params) -> int:
    """How many seeds train side by side; on CUDA one, unless params.yaml says more.

    One too where several processes train one network.
    """
    from ibma.network import distributed

    if distributed.launched():
        return 1
    if params.workers is None and _device(params).type == "cuda":
        return 1
    return params.workers or cores()


def sharing_gpu(params: Params) -> int | None:
    """How many processes may train on the GPU at once; None where the CPU trains."""
    return (params.workers or 1) if _device(params).type == "cuda" else None


def probe_encoders(params: Params) -> None:
    """Stage `probe`: every run's encoders under a linear classifier."""
    from ibma.experiments import probe

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
    from ibma.experiments import gradcam, probe
    from ibma.features import store

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
    from ibma.experiments import timing
    from ibma.training.loop import Setting

    lr, weight_decay = params.tuning.grid["lr"][0], params.tuning.grid["weight_decay"][0]
    eta = params.tuning.grid["eta"][0]
    methods_ = [*params.methods, *params.variants]
    timing.write(
        {method: cell(params, params.timing.task, method) for method in methods_},
        {m: Setting(lr, weight_decay, eta if m in params.variants else None) for m in methods_},
        params.timing.rounds,
        TIMING,
    )


def compare_methods(params: Params) -> None:
    """Stage `significance`: IBMA against best baseline, ablation and control, paired by seed."""
    from ibma.paper import published
    from ibma.results import records, significance

    here = records.cells(params, Path())
    write_json(SIGNIFICANCE, significance.run(params, here, published.load()))


def check_paper(_: Params) -> None:
    """Stage `audit`: do the paper's printed numbers agree with each other?"""
    from ibma.paper import audit, published

    checks = audit.run(published.load())
    write_json(AUDIT, [asdict(check) for check in checks])
    print(audit.summary(checks))


def mirror(params: Params) -> None:
    """Stage `track`: bring MLflow in step with the records."""
    from ibma import tracking

    print(tracking.collect(params, Path()))


def write_report(params: Params) -> None:
    """Stage `report`: tables, figures and the page of the profile."""
    from ibma.report import page

    print(f"report: {page.write(params, Path())}")


DOORS: Mapping[str, Callable[..., None]] = {
    "download": download,
    "extract": extract,
    "centroids": centroids,
    "tune": tune_task,
    "train": train_cell,
    "train_ibma": train_cell,
    "sensitivity": train_at,
    "probe": probe_encoders,
    "gradcam": explain,
    "timing": time_methods,
    "significance": compare_methods,
    "audit": check_paper,
    "track": mirror,
    "report": write_report,
}


def run(params: Params, unit: str) -> None:
    """Go through a stage's door: `train@crema_d-ce3`, `probe`; of a method, `tune@crema_d-ce3`."""
    stage, _, name = unit.partition("@")
    DOORS[stage](params, *(name.split("-", 1) if name else ()))


def _device(params: Params) -> torch.device:
    import torch

    from ibma.training import loop

    if params.threads is not None:
        torch.set_num_threads(params.threads)
    if params.training.compile:
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:  # the same, without importing the compiler to tell it
        torch.set_deterministic_debug_mode("warn")
    return loop.device(params.device)
