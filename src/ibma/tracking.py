"""MLflow mirror of the records: idempotent, rebuilt from disk at any time.

The record on disk is the truth. Cells that DVC restores from its cache never execute, so logging
from inside a cell would leave holes; one collector reads every record and brings the store in step.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ibma.files import write_json
from ibma.params import cores
from ibma.processes import pool
from ibma.training.record import Record, read

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

    from ibma.params import Params

TRACK = Path("data/track.json")
DIGEST = "record.sha256"  # set last, so that a run without it was cut off and is replaced
METRICS_PER_BATCH = 1000  # MLflow's limit for one log_batch

Cell = tuple[str, str, str]  # task, method, seed


@dataclass
class Collected:
    """How many runs a collection created, replaced and left alone; `down` says why it stopped."""

    new: int = 0
    replaced: int = 0
    kept: int = 0
    down: str | None = None
    runs: dict[str, str] = field(default_factory=dict)  # record path -> MLflow run id

    def __str__(self) -> str:
        """One line for the console."""
        return f"mlflow: {self.new} new, {self.replaced} replaced, {self.kept} kept"


def collect(params: Params, root: Path) -> Collected:
    """Bring the MLflow store in step with the records under `root/runs`.

    One run per (task, method, seed) in the experiment named after the profile. A run whose record
    is unchanged is kept, a changed record replaces its run, so a second call writes nothing. Writes
    `data/track.json` (record path -> run id). The store is MLFLOW_TRACKING_URI, else
    `sqlite:///mlflow.db` under `root`. A store that does not answer costs one warning, no error:
    the records stay and a later `ibma track` catches up.

    Raises:
        IbmaError: a file under `runs/` is not a record.
    """
    records = [(path, read(path)) for path in _paths(params, root)]
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"
    collected = Collected()
    _quiet()
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        _mirror(records, uri, params, root, collected)
    except (MlflowException, RequestException) as error:
        collected.down = _first_line(error)
        print(
            f"warning: MLflow at {uri} does not answer ({collected.down}); "
            "the records are safe, run `ibma track` when it is back",
            file=sys.stderr,
        )
    write_json(root / TRACK, dict(sorted(collected.runs.items())))
    return collected


def _mirror(
    records: list[tuple[Path, Record]],
    uri: str,
    params: Params,
    root: Path,
    collected: Collected,
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = _experiment(client, params.profile, uri, root)
    known = _known(client, experiment)
    changed = []
    for path, record in records:
        run = known.get((record.task, record.method, str(record.seed)))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if run is not None and run.data.tags.get(DIGEST) == digest:
            collected.kept += 1
            collected.runs[path.relative_to(root).as_posix()] = run.info.run_id
        else:
            changed.append((path, record, digest, run))
    bar = tqdm(changed, desc="mlflow", unit="run", disable=None)
    with draw([record for _, record, _, _ in changed]) as plots:
        for (path, record, digest, run), plot in zip(bar, plots, strict=True):
            if run is not None:
                client.delete_run(run.info.run_id)
            artefacts = (path, plot)
            run_id = _log(client, experiment, artefacts, record, _stage(params, record))
            client.set_tag(run_id, DIGEST, digest)
            collected.replaced += run is not None
            collected.new += run is None
            collected.runs[path.relative_to(root).as_posix()] = run_id


def _paths(params: Params, root: Path) -> Iterator[Path]:
    """Yield records of the cells and seeds the profile names; others belong to another profile."""
    for task, method in params.names():
        for seed in range(params.seeds):
            path = root / "runs" / task / method / f"seed_{seed}.json"
            if path.exists():
                yield path


def _experiment(client: MlflowClient, name: str, uri: str, root: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # A server decides where artefacts go; a local database keeps them beside itself.
    local = uri.startswith("sqlite:")
    place = (root / "mlartifacts" / name).resolve().as_uri() if local else None
    return str(client.create_experiment(name, artifact_location=place))


def _known(client: MlflowClient, experiment: str) -> dict[Cell, Run]:
    """Return the experiment's runs by cell; a second run of the same cell is deleted."""
    runs: dict[Cell, Run] = {}
    page: str | None = None
    while True:
        found = client.search_runs([experiment], max_results=1000, page_token=page)
        for run in found:
            tags = run.data.tags
            cell = (tags.get("task", ""), tags.get("method", ""), tags.get("seed", ""))
            if all(cell) and cell in runs:
                client.delete_run(run.info.run_id)
            elif all(cell):
                runs[cell] = run
        page = found.token
        if not page:
            return runs


def _stage(params: Params, record: Record) -> str:
    """Return the DVC stage that writes this record; only variants of IBMA read eta."""
    if found := params.sensitivity.names().get(record.method):
        return f"sensitivity@{found[0]}-{found[1]:g}"
    matrix = "train_ibma" if record.method in params.variants else "train"
    return f"{matrix}@{record.task}-{record.method}"


def _log(
    client: MlflowClient, experiment: str, artefacts: Iterable[Path], record: Record, stage: str
) -> str:
    """Create one finished run and return its id."""
    from mlflow.entities import Param

    started, finished = (_milliseconds(record.volatile.get(key)) for key in ("started", "finished"))
    tags = _tags(record, stage)
    name = f"{record.task}/{record.method}/{record.seed}"
    run = client.create_run(experiment, start_time=started, tags=tags, run_name=name)
    run_id = str(run.info.run_id)
    params = {key: getattr(record, key) for key in ("seed", "fold", "n_train", "n_test")}
    params |= record.params
    metrics = _metrics(record, finished or 0)
    client.log_batch(
        run_id,
        metrics=metrics[:METRICS_PER_BATCH],
        params=[Param(key, str(value)) for key, value in params.items()],
    )
    for start in range(METRICS_PER_BATCH, len(metrics), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_BATCH])
    for path in artefacts:
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, end_time=finished)
    return run_id


def _tags(record: Record, stage: str) -> dict[str, str]:
    tags = {
        key: str(getattr(record, key)) for key in ("profile", "source", "task", "method", "seed")
    }
    return tags | {
        "record.key": record.key,
        "dvc.stage": stage,
        "git.commit": str(record.volatile.get("git_commit") or "none"),
        "device": str(record.volatile.get("device")),
    }


def _metrics(record: Record, when: int) -> list[Metric]:
    """Return final metrics, plug-in IB (nats) and losses per epoch, without undefined values."""
    from mlflow.entities import Metric

    final = record.metrics | {f"ib/{name}": value for name, value in record.ib.items()}
    final["peak_memory_bytes"] = record.volatile.get("peak_memory_bytes")
    series = {f"loss/{term}": values for term, values in record.history.items()}
    series["seconds_per_epoch"] = record.volatile.get("seconds_per_epoch") or []
    points = [(key, value, 0) for key, value in final.items()]
    points += [(key, v, step) for key, values in series.items() for step, v in enumerate(values, 1)]
    return [Metric(_name(key), float(v), when, step) for key, v, step in points if v is not None]


def _name(key: str) -> str:
    """A metric's name without the bar of `ibb/<j>|<j'>`, which MLflow refuses."""
    return key.replace("|", " given ")


@contextmanager
def draw(records: Sequence[Record]) -> Iterator[Iterator[Path]]:
    """Plots of the losses of some records, as files; every core draws ahead of the caller."""
    with tempfile.TemporaryDirectory() as folder, pool(cores(), ["ibma.report.figures"]) as at_once:
        paths = [Path(folder) / str(i) / "history.png" for i in range(len(records))]
        yield at_once.map(_plot, map(asdict, records), paths)


def _plot(record: Mapping[str, Any], path: Path) -> Path:
    from ibma.report.figures import history_plot

    path.parent.mkdir()
    history_plot(record, path)
    return path


def _milliseconds(moment: str | None) -> int | None:
    return int(datetime.fromisoformat(moment).timestamp() * 1000) if moment else None


def _quiet() -> None:
    """Keep MLflow to itself: no telemetry, no migration log, no minutes of retries."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]
