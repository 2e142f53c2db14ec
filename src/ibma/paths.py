"""Name every folder and file of a project once. No other module spells one out."""

from __future__ import annotations

import os
from pathlib import Path

from ibma.errors import IbmaError

PARAMS, PROFILES = Path("params.yaml"), Path("profiles")
RAW, MANIFESTS = Path("data/raw"), Path("data/manifests")
FEATURES, CENTROIDS = Path("data/features"), Path("data/centroids")
TUNING, LOGISTIC, SCRATCH = Path("data/tune"), Path("data/logistic"), Path("data/scratch")
TIMING, PROBE, GRADCAM, SIGNIFICANCE, AUDIT, TRACK = (
    Path(f"data/{name}.json")
    for name in ("timing", "probe", "gradcam", "significance", "audit", "track")
)
RUNS, MODELS, REPORTS, LOGS = Path("runs"), Path("models"), Path("reports"), Path("logs")
META = "meta.json"  # of a folder of features
GPU_MEASURES = Path("benchmarks/gpu")  # committed records of `python -m benchmarks.gpu`
PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
STAGES, CODE = Path("stages"), Path("src/ibma")  # scripts, and the package that they run
SCHEMA = Path("params.schema.json")
DVC = Path(".dvc")
EXPERIMENTS = DVC / "tmp/exps"  # DVC runs an experiment in a copy of the project below it


def store() -> Path:
    """Return the folder of finished runs, one for a checkout and all its experiments.

    DVC runs `dvc exp run --temp` and `--queue` in a copy below `.dvc/tmp/exps` of the checkout.
    `IBMA_STORE` names another folder, for example one that several checkouts share; it is made.

    Raises:
        IbmaError: No folder can be made where `IBMA_STORE` says.
    """
    if named := os.environ.get("IBMA_STORE"):
        try:
            Path(named).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IbmaError(
                f"IBMA_STORE: {named}: expected a folder, none can be made here "
                f"({error.strerror}): name another or unset it"
            ) from None
        return Path(named)
    return (checkout() / "data/store").absolute()


def kept(key: str) -> Path:
    """Return where the store holds what was made under a key: a record, or scores of trials."""
    return store() / key[:2] / f"{key}.json"


def checkout() -> Path:
    """Return the folder of the project: this one, unless this is an experiment's copy of it."""
    here = Path.cwd()
    return next((p for p in here.parents if (p / EXPERIMENTS) in here.parents), Path())


def manifest(dataset: str) -> Path:
    """Return the list of a data set's raw files, written by stage `download`."""
    return MANIFESTS / f"{dataset}.json"


def choice(task: str, method: str) -> Path:
    """Return the file that holds what stage `tune` chose for a method."""
    return TUNING / task / f"{method}.json"


def meta(task: str) -> Path:
    """Return the file that says what a task's features are; `features.meta` reads it."""
    return FEATURES / task / META


def logistic(task: str) -> Path:
    """Return the file that holds what logistic regression gives on a task."""
    return LOGISTIC / f"{task}.json"


def record(stage: str, task: str, method: str, seed: int) -> Path:
    """Return the file of one run's record."""
    return RUNS / stage / task / method / f"seed_{seed}.json"


def weights(stage: str, task: str, method: str, seed: int) -> Path:
    """Return the file of one run's trained network."""
    return MODELS / stage / task / method / f"seed_{seed}.safetensors"


def evidence(profile: str) -> Path:
    """Return the folder of committed records of a profile."""
    return REPORTS / profile / "evidence"
