"""Log kept networks as MLflow models, and register the best of each task.

A model is the folder of `ibma.estimators.trained`, which `mlflow.pyfunc.load_model` reads. On this
machine its weights are a second name of the file under `models/`, so that none are stored twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ibma import datasets, tables
from ibma.files import link_file
from ibma.results import claims, records
from ibma.training.cell import Cell

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from ibma.estimators.trained import Read
    from ibma.params import Params
    from ibma.training.record import Record

NAME = "model"  # `runs:/<run id>/model`
DATA = "data"  # its folder inside a model
LOADER = "ibma.estimators.trained"
BEST = "best"  # alias of the registered version


def is_kept(one: Record, params: Params, root: Path) -> bool:
    """Return whether a run's network lies here and fits the present parameters, data and code."""
    here = bool(one.weights) and (root / one.id.weights).exists()
    current = here and records.is_current(params, root, one)
    return current and tables.reads_alike(params, one.task, root)


def log(client: MlflowClient, params: Params, root: Path, one: Record, run_id: str) -> str:
    """Log the network of a run as its model; return the model's id.

    Raises:
        IbmaError: the features or centroids that it was built for are gone.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    tags = {"task": one.task, "method": one.method, "seed": str(one.seed)}
    made = client.create_logged_model(
        experiment, name=NAME, source_run_id=run_id, tags=tags, model_type="ibma"
    )
    place = urlsplit(made.artifact_location)
    if place.scheme == "file":
        _write(Path(url2pathname(place.path)), made.model_id, params, root, one, run_id)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), made.model_id, params, root, one, run_id)
            client.log_model_artifacts(made.model_id, folder)
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return str(made.model_id)


def _write(
    folder: Path, model_id: str, params: Params, root: Path, one: Record, run_id: str
) -> None:
    """Write the folder that `mlflow.pyfunc` reads."""
    from mlflow import pyfunc
    from mlflow.models import Model

    from ibma.estimators import trained

    cell = Cell.named(params, one.stage, one.task, one.method, root)
    given = partial(link_file, root / one.id.weights)
    said: dict[str, Any] = {}
    if table := params.tables.get(params.task(one.task).dataset):
        said = {"scale": table.range, "separator": table.separator or trained.SEPARATOR}
    trained.write(folder / DATA, cell, one, _read(params, one.task), given, **said)
    model = Model(run_id=run_id, model_id=model_id)
    pyfunc.add_to_model(model, loader_module=LOADER, data=DATA)
    model.save(str(folder / "MLmodel"))


def _read(params: Params, task: str) -> dict[str, Read]:
    """Return how each modality of a task becomes features."""
    entry = params.task(task)
    card = datasets.card(tables.dataset(params, entry.dataset), entry.options)
    given = {name: one.as_dict() for name, one in entry.features.items()}
    return {name: (kind, given.get(name, {})) for name, kind in card.modalities.items()}


def register(
    client: MlflowClient, profile: str, task: str, kept: Iterable[tuple[Record, str, str]]
) -> None:
    """Let the alias `best` of a task's registered model be its best run.

    Args:
        kept: record, run and model of every network that MLflow holds.
    """
    scored = [(*score, *each) for each in kept if (score := _score(each[0]))]
    if not scored:
        return
    value, metric, one, run_id, model_id = max(scored, key=lambda each: each[0])
    name = f"ibma-{profile}-{task}"
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=_about(task))
    versions = client.search_model_versions(f"name = '{name}'")
    if any(version.run_id == run_id and BEST in (version.aliases or ()) for version in versions):
        return
    who = f"{claims.method_name(one.method)}, seed {one.seed}"
    said = f"{who}: {metric} {value:.4f} on test, the highest of {len(scored)} kept networks"
    made = client.create_model_version(
        name, f"models:/{model_id}", run_id=run_id, description=said, model_id=model_id
    )
    client.set_registered_model_alias(name, BEST, made.version)
    for old in versions:
        client.delete_model_version(name, old.version)


def _score(one: Record) -> tuple[float, str] | None:
    """Return what a run is judged by, and its name; None where that is undefined."""
    metric = next((name for name in claims.JUDGED_BY if name in one.metrics), "")
    value = one.metrics.get(metric)
    return None if value is None else (value, claims.metric_name(metric))


def _about(task: str) -> str:
    return (
        f"Networks of the reproduction of IBMA on {claims.task_name(task)}. Alias `{BEST}` is the "
        "kept network with the highest score on test: chosen by the test, its score says too much."
    )
