"""Open MLflow's store safely: one writer, an undamaged database, errors in one line."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ibma.errors import redact, tell
from ibma.results import claims

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DATABASE, ARTIFACTS = Path("mlflow.db"), Path("mlartifacts")
PAGE = 1000  # runs that MLflow lists at once
VIEW = "ibma"  # name of the saved view of an experiment's runs
WAIT = 10  # seconds for a server's answer, and for a database that another program has locked
NOTE = """Reproduction of the IBMA paper, profile `{profile}`. These runs are copies of the records
under `runs/`; `ibma track` makes them again. All tables: `reports/{profile}/index.html`.

A parent run is one method on one task: its metrics are means over seeds, `sd/...` their standard
deviations, and its children the seeds. Metrics are fractions on the test split; `ib/...` are IB
losses of the trained network (nats); `loss/...` are training losses per epoch. Tags to search by:
`source` (`twin` is generated data, `real` is not), `stage`, `task`, `method`, `seed`."""


def silence() -> None:
    """Keep MLflow from telemetry, log lines and minutes of retries."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(WAIT))
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="mlflow")


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Wait until no other process of this project writes to MLflow."""
    with (root / f"{DATABASE}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def client(root: Path) -> MlflowClient:
    """Connect to MLFLOW_TRACKING_URI, else to `mlflow.db` in the project."""
    from mlflow import MlflowClient
    from sqlalchemy import Engine, event

    if not _named():
        event.listen(Engine, "connect", _unsynced)
        _prepare(root / DATABASE)
    return MlflowClient(_named() or url(root / DATABASE))


def _unsynced(connection: object, _: object) -> None:
    """Spare waiting for the disk: what a power cut damages is found and made anew."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("pragma synchronous = off")


def shown(root: Path) -> str:
    """Return where the store is, fit to be printed."""
    return redact(_named()) or str(root / DATABASE)


def address(experiment: str) -> str:
    """Say where a browser finds an experiment."""
    view = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    page = f"/#/experiments/{experiment}/runs?{view}"
    if _named().startswith("http"):
        return redact(_named()).rstrip("/") + page
    return f"`make ui`, then http://127.0.0.1:{os.environ.get('PORT', '5000')}{page}"


def _named() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", "")


def experiment(client: MlflowClient, profile: str, root: Path) -> str:
    """Return the id of a profile's experiment; it is made, restored or described where needed."""
    name = f"ibma-{profile}"
    tags = {
        "mlflow.note.content": NOTE.format(profile=profile),
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps({"selectedColumns": _columns()}),
    }
    # A server decides where artifacts go; a local database keeps them beside itself.
    local = _named().startswith("sqlite:") or not _named()
    place = (root / ARTIFACTS / name).resolve().as_uri() if local else None
    found = client.get_experiment_by_name(name)
    if found and not _named() and found.artifact_location != place:  # the project was moved
        client.rename_experiment(found.experiment_id, f"{name} until {found.experiment_id}")
        found = None
    if found is None:
        return str(client.create_experiment(name, artifact_location=place, tags=tags))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    for key, value in tags.items():
        if found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def attach(artifacts: str, texts: Mapping[str, str]) -> None:
    """Put texts, name -> content, among the artifacts of a run.

    `MlflowClient.log_text` asks the store for the whole run first, which doubles its cost.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        repository = get_artifact_repository(artifacts, _named() or None)
        repository.log_artifacts(folder)  # type: ignore[no-untyped-call]


def _columns() -> list[str]:
    """List the columns of the table of runs, in the terms of MLflow's page."""
    means = [f"metrics.`{kind}{name}`" for name in claims.JUDGED_BY for kind in ("", "sd/")]
    return [*means, *(f"tags.`{name}`" for name in ("task", "method", "source"))]


def listed(client: MlflowClient, experiment: str, which: str) -> Iterator[Run]:
    """Yield the runs of an experiment that a filter lets through."""
    page: str | None = None
    while True:
        found = client.search_runs([experiment], which, max_results=PAGE, page_token=page)
        yield from found
        if not (page := found.token):
            return


# --- a local database ----------------------------------------------------------------------------


def _prepare(database: Path) -> None:
    """Make a database where there is none; put a damaged one aside.

    MLflow's tables are made under another name: when that is cut off, MLflow cannot mend it.
    """
    from mlflow import MlflowClient

    if damage := _damage(database):
        aside = database.with_name(f"{database.name}.damaged")
        database.replace(aside)
        line = f"{database} was damaged ({damage}): kept as {aside.name} and made anew"
        tell(f"warning: {line}")
    if not database.exists():
        fresh = database.with_name(f"{database.name}.new")
        for ending in ("-journal", "-wal", "-shm", ".new", ".new-journal"):
            database.with_name(database.name + ending).unlink(missing_ok=True)
        MlflowClient(url(fresh)).search_experiments(max_results=1)
        fresh.replace(database)


def _damage(database: Path) -> str | None:
    """Return what is wrong with an SQLite file, None for a whole one or none.

    Raises:
        sqlite3.OperationalError: another program has locked it for longer than `WAIT`.
    """
    if not database.exists():
        return None
    place = f"{database.resolve().as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(place, timeout=WAIT, uri=True)) as opened:
            found = str(opened.execute("pragma quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else found


def url(database: Path) -> str:
    """Return the URL of an SQLite file.

    MLflow makes the folder that a URL spells, escapes and all. Where the path needs escapes, the
    URL starts from the working folder.
    """
    from sqlalchemy.engine import URL

    def spell(path: str) -> str:
        return URL.create("sqlite", database=path).render_as_string(hide_password=False)

    whole = str(database.resolve())
    return spell(whole) if spell(whole) == f"sqlite:///{whole}" else spell(os.path.relpath(whole))


# --- failures ------------------------------------------------------------------------------------


def stops(error: BaseException) -> bool:
    """Tell a store that cannot go on (silent, closed to us, full, broken) from one refused run."""
    from sqlalchemy.exc import SQLAlchemyError

    status = error.get_http_status_code() if hasattr(error, "get_http_status_code") else 0
    broken = any(isinstance(one, OSError | SQLAlchemyError) for one in _causes(error))
    return broken or status >= 500 or status in (401, 403, 429)


def is_silent(error: BaseException) -> bool:
    """Tell a server that does not answer from one that answers with an error."""
    from requests import ConnectionError, Timeout

    return any(isinstance(one, ConnectionError | Timeout) for one in _causes(error))


def reason(error: BaseException) -> str:
    """Say in one line what the store said, or why it said nothing."""
    causes = list(_causes(error))
    # what the system said of a silent server; of a database, not the statement that it was given
    drivers = [driver for one in causes if (driver := getattr(one, "orig", None))]
    chosen = causes[-1] if is_silent(error) else next(iter(drivers), error)
    kind = f"{type(chosen).__name__}: " if isinstance(chosen, LookupError | ImportError) else ""
    lines = str(chosen).strip().splitlines() or [type(chosen).__name__]
    return redact(kind + lines[0])[:200]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
