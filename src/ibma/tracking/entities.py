"""Translate a record into MLflow's terms: names, tags, parameters, metrics, data set."""

from __future__ import annotations

import getpass
import hashlib
import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ibma import paths
from ibma.files import read_json
from ibma.results import claims

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Param

    from ibma.training.record import Record, RunId

FOLDER, DIGEST = "records", "record.sha256"  # tags by which a later call knows a run again
SHARED = ("profile", "source", "stage", "task", "method")  # fields of a record that its parent has
LONGEST_NAME, LONGEST_DIGEST = 200, 36  # MLflow takes 250 and 36 characters


def run_name(record: Record, *, parent: bool = False) -> str:
    """Return what people call a run: `IBMA · CREMA-D · seed 2`, its parent `IBMA · CREMA-D`.

    A run of a study says its setting, too: `IBMA · eta 0.3 · CREMA-D`.
    """
    method, setting = _parts(record)
    shown = [name for name in (method, setting, claims.task_name(record.task)) if name]
    return " · ".join(shown if parent else [*shown, f"seed {record.seed}"])


def _parts(record: Record) -> tuple[str, str]:
    """Take a name apart: the printed name of its method, the longest that is known, and the rest.

    A study calls IBMA with noise 2 in both splits `ibma_train_2_test_2`.
    """
    words = record.method.split("_")
    for end in range(len(words), 0, -1):
        known = "_".join(words[:end])
        if (name := claims.method_name(known)) != known:
            rest = ["noise", *words[end:]] if record.stage == "noise" else words[end:]
            return name, " ".join(rest)
    return record.method, ""


def folder(run: RunId) -> str:
    """Return the folder of a run's record: the runs of one method on one task share it."""
    return run.record.parent.as_posix()


def tags(record: Record, parent: str | None) -> dict[str, str]:
    """Return the tags of a record's run; without a parent, those that all seeds share."""
    commit, *dirty = str(record.provenance.get("git_commit") or "none").split("-dirty")
    shared = {name: getattr(record, name) for name in SHARED} | {
        FOLDER: folder(record.id),
        "mlflow.user": _user(),
        "mlflow.note.content": _description(record, parent),
        "mlflow.source.name": f"stages/{record.stage}.py {record.task}",
        "mlflow.source.type": "LOCAL",
    }
    own = {
        "seed": record.seed,
        "device": record.provenance.get("device"),
        "record.key": record.key,
        DIGEST: record.digest,
        "mlflow.parentRunId": parent,
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.dirty": "true" if dirty else "false",
    }
    return {
        key: _text(value) for key, value in (shared if parent is None else shared | own).items()
    }


def _description(record: Record, parent: str | None) -> str:
    """Say what a run is, on its page."""
    twin = "generated data (twin), which says nothing about the paper"
    data = twin if record.source == "twin" else "real data"
    what = (
        "Metrics are means over seeds, `sd/...` their standard deviations."
        if parent is None
        else "`record.json` among the artifacts is the whole record."
    )
    return f"{run_name(record, parent=parent is None)}, stage `{record.stage}`, {data}. {what}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        return "unknown"


def span(record: Record) -> tuple[int, int]:
    """Return start and end in ms since 1970; the record notes both in whole seconds only."""
    moments = (record.provenance.get(key) for key in ("started", "finished"))
    start, end = (int(datetime.fromisoformat(t).timestamp() * 1000) if t else 0 for t in moments)
    trained = 1000 * sum(record.provenance.get("seconds_per_epoch") or [])
    return start, max(end, start + int(trained))


def params(record: Record) -> list[Param]:
    """Return the settings of a run."""
    from mlflow.entities import Param

    values = {key: getattr(record, key) for key in ("seed", "fold", "n_train", "n_test")}
    values |= record.params
    return [Param(name, _text(values[key])) for key, name in names(values).items()]


def metrics(record: Record) -> list[Metric]:
    """Return test metrics, IB losses (nats) and curves per epoch, without undefined values."""
    from mlflow.entities import Metric

    final = record.metrics | {f"ib/{name}": value for name, value in record.ib.items()}
    final["system/peak_memory_bytes"] = record.provenance.get("peak_memory_bytes")
    series = {f"loss/{term}": values for term, values in record.history.items()}
    series |= {f"regime/{name}": values for name, values in record.regime.items()}
    series["seconds_per_epoch"] = record.provenance.get("seconds_per_epoch") or []
    points = [(key, value, 0) for key, value in final.items()]
    points += [(key, v, step) for key, values in series.items() for step, v in enumerate(values, 1)]
    named, when = names([*final, *series]), span(record)[1]
    return [Metric(named[key], float(v), when, step) for key, v, step in points if v is not None]


def dataset(record: Record, root: Path) -> DatasetInput:
    """Describe the features that a run was trained and tested on."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    place = paths.FEATURES / record.task
    digest = read_json(root / paths.meta(record.task), {}).get("digest", "unknown")
    data = Dataset(
        name=claims.task_name(record.task),
        digest=str(digest)[:LONGEST_DIGEST],
        source_type=record.source,
        source=json.dumps({"uri": place.as_posix()}),
        profile=json.dumps({"num_rows": record.n_train + record.n_test}),
    )
    return DatasetInput(data, [InputTag("mlflow.data.context", "training and test")])


def names(keys: Iterable[str]) -> dict[str, str]:
    """Map each key to a name that MLflow takes, no two of them to the same."""
    named: dict[str, str] = {}
    for key in keys:
        text = key.replace("|", " given ").replace("%", " percent")
        parts = (part.strip() for part in re.sub(r"[^/\w.\- ]", "_", text).split("/"))
        # MLflow reads a name as a path: no part may be empty, `.` or `..`
        name = "/".join(part if part.strip(".") else f"_{part}" for part in parts)[:LONGEST_NAME]
        if name.casefold() in (taken.casefold() for taken in named.values()):
            name += " " + hashlib.sha256(key.encode(errors="replace")).hexdigest()[:8]
        named[key] = name
    return named


def _text(value: object) -> str:
    """Return a value as text that every store can hold."""
    return str(value).encode(errors="replace").decode()
