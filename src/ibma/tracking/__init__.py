"""Copy records into MLflow: one run each, below a parent run for every task and method.

Records on disk are authoritative. A training stage of over a minute copies its runs as they finish.
Then `ibma track` adds what is missing, replaces what changed, and rebuilds a lost or damaged
database. A store that fails costs one line on stderr and never an error, because the records are
safe.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ibma import paths
from ibma.errors import IbmaError, progress_bar, tell
from ibma.files import write_json
from ibma.tracking import artifacts, entities, models, store
from ibma.tracking.entities import DIGEST, FOLDER
from ibma.training.record import Record, RunId, read

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run, RunInfo

    from ibma.params import Params

LIVE = 60.0  # seconds after which a stage mirrors its runs as they finish
MOST = 1000  # metrics that MLflow takes at once


@dataclass
class Collected:
    """Count what became of the runs.

    failed: record -> why MLflow does not hold it. down: why the work stopped early. runs: record ->
    MLflow run id. models: networks that MLflow holds. address: the page that shows them.
    """

    new: int = 0
    replaced: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    down: str | None = None
    runs: dict[str, str] = field(default_factory=dict)
    models: int = 0
    address: str = ""

    def __str__(self) -> str:
        """Return one line for the console."""
        line = f"mlflow: {self.new} new, {self.replaced} replaced, {self.kept} kept"
        line += f", {self.models} models" if self.models else ""
        line += f", {len(self.failed)} failed" if self.failed else ""
        return f"{line}; {self.address}" if self.address else line


class Copy(NamedTuple):
    """One run in MLflow: the digest of what it copies ("" if cut off), its last metrics, its model.

    models: the ids of its models, of which there is at most one.
    """

    run_id: str
    digest: str
    parent: str
    end: int
    values: Mapping[str, float]
    models: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Run) -> Copy:
        """Read what MLflow says of a run."""
        tags, info = run.data.tags, run.info
        digest = tags.get(DIGEST, "") if info.status == "FINISHED" else ""
        parent = tags.get("mlflow.parentRunId", "")
        made = run.outputs.model_outputs if run.outputs else []
        models = tuple(one.model_id for one in made)
        return cls(info.run_id, digest, parent, info.end_time or 0, run.data.metrics, models)


@dataclass
class Group:
    """What MLflow holds of one method on one task: a parent run, and a run for every seed."""

    parent: Copy | None = None
    seeds: dict[int, Copy] = field(default_factory=dict)


def collect(params: Params, root: Path = Path()) -> Collected:
    """Copy the profile's records below `root` into MLflow; write `data/track.json`.

    A run whose record is unchanged is kept, so that a second call writes nothing.

    Raises:
        IbmaError: a file under `runs/` is not a record; all others were mirrored before.
    """
    records, broken = [], []
    for cell, seed in itertools.product(params.cells(), range(params.seeds)):
        path = root / RunId(*cell, seed).record
        try:
            records += [read(path)] if path.exists() else []
        except IbmaError as error:
            broken.append(error)
    mirror = Mirror(params, root)
    mirror.level([one for one in records if one.profile == params.profile])
    write_json(root / paths.TRACK, dict(sorted(mirror.done.runs.items())))
    if broken:
        raise broken[0]
    return mirror.done


class Mirror:
    """Write the records of a profile into its experiment in MLflow.

    Nothing of MLflow is loaded before the first record is written.

    Args:
        patience: seconds in which finished runs are only remembered. Loading MLflow takes longer
            than a short stage trains; `level` brings what was not written.
    """

    def __init__(self, params: Params, root: Path = Path(), patience: float = 0.0) -> None:
        self.params, self.root, self.done = params, root, Collected()
        self._groups: dict[str, Group] = {}
        self._begin = time.monotonic() + patience
        self._waiting: list[Record] = []
        self._shown: dict[RunId, int] = {}  # run that still trains -> epochs that MLflow holds

    def running(self, record: Record) -> None:
        """Mirror the epochs of a run that still trains; its whole record replaces them."""
        if self.done.down or time.monotonic() < self._begin:
            return
        with self._session(), store.locked(self.root):
            self._show(self._group(record), record)
        if self.done.down:
            self._warn("`ibma track` makes up for it")

    def _show(self, group: Group, record: Record) -> None:
        if record.id not in self._shown:
            parent, copy = self._parent(group, record), group.seeds.get(record.seed)
            if copy is not None:
                self._delete(copy)
            run_id = self._start(record, parent).run_id
            group.seeds[record.seed] = Copy(run_id, digest="", parent=parent, end=0, values={})
            self._client.log_batch(run_id, params=entities.params(record))
        seen, run_id = self._shown.get(record.id, 0), group.seeds[record.seed].run_id
        new = [metric for metric in entities.metrics(record) if metric.step > seen]
        for first in range(0, len(new), MOST):
            self._client.log_batch(run_id, metrics=new[first : first + MOST])
        self._shown[record.id] = max((metric.step for metric in new), default=seen)

    def failed(self, run_id: RunId) -> None:
        """Say of a run that it failed, if it was seen while it trained."""
        if self.done.down or run_id not in self._shown:
            return
        with self._session(), store.locked(self.root):
            copy = self._groups[entities.folder(run_id)].seeds[run_id.seed]
            self._client.set_terminated(copy.run_id, status="FAILED")
        if self.done.down:
            self._warn("the stage names the run")

    def finished(self, record: Record) -> None:
        """Mirror one run that has just finished; its method's mean follows with the last seed."""
        self._waiting.append(record)
        if time.monotonic() >= self._begin:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                self._log(one)

    def _log(self, record: Record) -> None:
        told = self.done.down or self.done.failed
        if self.done.down:
            return
        with self._session(), store.locked(self.root):
            group = self._group(record)
            self._write(group, [record])
            if sum(bool(copy.digest) for copy in group.seeds.values()) == self.params.seeds:
                self._summarise(group)
        if not told:
            self._warn("`ibma track` makes up for it")

    def _group(self, record: Record) -> Group:
        """Return what MLflow holds of a record's method on its task; it is asked once."""
        folder = entities.folder(record.id)
        if folder not in self._groups:
            self._groups[folder] = self._find(folder).get(folder, Group())
        return self._groups[folder]

    def level(self, records: list[Record]) -> None:
        """Mirror what MLflow does not hold as it is, and every mean."""
        folders: dict[str, list[Record]] = {}
        for one in records:
            folders.setdefault(entities.folder(one.id), []).append(one)
        with self._session(), store.locked(self.root):
            groups = self._find("%")
            for folder, own in progress_bar(
                folders.items(), desc="mlflow", unit="method", delay=1.0
            ):
                group, seeds = groups.get(folder, Group()), {one.seed for one in own}
                group.seeds = {k: copy for k, copy in group.seeds.items() if k in seeds}
                self._write(group, own)
                self._summarise(group)
                groups[folder] = group
            self._log_models(records, groups)
            self.done.address = store.address(self._experiment)
        left = len(records) - len(self.done.runs)
        self._warn(f"{left} of {len(records)} runs are missing there: run `ibma track` again")

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Keep what the store fails with as the reason for being down; the lock is part of it."""
        store.silence()
        try:
            yield
        except Exception as error:  # whatever MLflow fails with, training goes on
            verb = "does not answer" if store.is_silent(error) else "fails"
            self.done.down = f"{verb} ({store.reason(error)})"

    def _warn(self, remedy: str) -> None:
        """Say in one line why runs are not in MLflow, if any are not."""
        refused = [f"refuses {path} ({why})" for path, why in self.done.failed.items()]
        problem = next(filter(None, [self.done.down, *refused]), None)
        if problem:
            line = f"MLflow at {store.shown(self.root)} {problem}: the records are safe, {remedy}"
            tell(f"warning: {line}")

    @functools.cached_property
    def _client(self) -> MlflowClient:
        return store.client(self.root)

    @functools.cached_property
    def _experiment(self) -> str:
        return store.experiment(self._client, self.params.profile, self.root)

    def _find(self, folders: str) -> dict[str, Group]:
        """Return folder of records -> what MLflow holds of it; a second run of one is deleted."""
        groups: dict[str, Group] = {}
        for run in store.listed(self._client, self._experiment, f"tags.{FOLDER} LIKE '{folders}'"):
            tags, copy = run.data.tags, Copy.of(run)
            group, seed = groups.setdefault(tags[FOLDER], Group()), tags.get("seed")
            if (group.parent if seed is None else group.seeds.get(int(seed))) is not None:
                self._client.delete_run(copy.run_id)
            elif seed is None:
                group.parent = copy
            else:
                group.seeds[int(seed)] = copy
        return groups

    def _write(self, group: Group, records: list[Record]) -> None:
        """Write the runs of one method on one task that changed; a refused one fails alone."""
        for one in records:
            copy, path = group.seeds.get(one.seed), one.id.record.as_posix()
            try:
                parent = self._parent(group, one)
                if copy is None or (copy.digest, copy.parent) != (one.digest, parent):
                    group.seeds[one.seed] = self._replace(copy, one, parent)
            except Exception as error:
                if store.stops(error):
                    raise
                self.done.failed[path] = store.reason(error)
                group.seeds.pop(one.seed, None)
                continue
            self.done.runs[path] = group.seeds[one.seed].run_id
            self.done.new += copy is None
            self.done.kept += copy is group.seeds[one.seed]
            self.done.replaced += copy not in (None, group.seeds[one.seed])

    def _parent(self, group: Group, record: Record) -> str:
        """Return the id of a group's parent run, which is made where there is none."""
        if group.parent is None:
            run_id = self._start(record, parent=None).run_id
            self._client.log_inputs(run_id, [entities.dataset(record, self.root)])
            group.parent = Copy(run_id, digest="", parent="", end=0, values={})
        return group.parent.run_id

    def _start(self, record: Record, parent: str | None) -> RunInfo:
        """Create the run of a record; without a parent, the one of its task and method."""
        return self._client.create_run(
            self._experiment,
            start_time=entities.span(record)[0],
            tags=entities.tags(record, parent),
            run_name=entities.run_name(record, parent=parent is None),
        ).info

    def _replace(self, copy: Copy | None, record: Record, parent: str) -> Copy:
        """Write one run; its end comes last, so that one cut off is known as such."""
        if copy is not None:
            self._delete(copy)
        info, (_, end) = self._start(record, parent), entities.span(record)
        try:
            metrics = entities.metrics(record)
            self._fill(info, record, metrics)
        except Exception as error:
            if not store.stops(error):
                self._client.set_terminated(info.run_id, status="FAILED")
            raise
        self._client.set_terminated(info.run_id, end_time=end)
        last = {metric.key: metric.value for metric in metrics}
        return Copy(info.run_id, record.digest, parent, end, last)

    def _delete(self, copy: Copy) -> None:
        self._client.delete_run(copy.run_id)
        for model in copy.models:
            self._client.delete_logged_model(model)

    def _fill(self, info: RunInfo, record: Record, metrics: list[Metric]) -> None:
        """Write what a run holds."""
        client, run_id = self._client, info.run_id
        client.log_batch(run_id, metrics=metrics[:MOST], params=entities.params(record))
        for first in range(MOST, len(metrics), MOST):
            client.log_batch(run_id, metrics=metrics[first : first + MOST])
        client.log_inputs(run_id, [entities.dataset(record, self.root)])
        texts = {"record.json": json.dumps(vars(record), indent=1)}
        store.attach(info.artifact_uri, texts | artifacts.tables(record, self.root))

    def _log_models(self, records: list[Record], groups: Mapping[str, Group]) -> None:
        """Log the network of every run that keeps it, and register the best of each task."""
        tasks: dict[str, list[tuple[Record, str, str]]] = {}
        for one in records:
            copy = groups[entities.folder(one.id)].seeds.get(one.seed)
            if copy is None or not (copy.models or models.is_kept(one, self.params, self.root)):
                continue
            (model,) = copy.models or [
                models.log(self._client, self.params, self.root, one, copy.run_id)
            ]
            tasks.setdefault(one.task, []).append((one, copy.run_id, model))
            self.done.models += 1
        for task, kept in tasks.items():
            models.register(self._client, self.params.profile, task, kept)

    def _summarise(self, group: Group) -> None:
        """Write mean and standard deviation over seeds into the parent run, if they changed."""
        from mlflow.entities import Metric, RunTag

        runs, parent = [group.seeds[seed] for seed in sorted(group.seeds)], group.parent
        digest = hashlib.sha256(" ".join(run.digest for run in runs).encode()).hexdigest()
        if parent is None or not runs or parent.digest == digest:
            return
        now, metrics = int(time.time() * 1000), {"seeds": float(len(runs))}
        for name in dict.fromkeys(name for run in runs for name in run.values):
            values = [run.values[name] for run in runs if name in run.values]
            metrics[name] = float(np.mean(values))
            if len(values) > 1:
                metrics[f"sd/{name}"] = float(np.std(values, ddof=1))
        points = [Metric(name, value, now, 0) for name, value in metrics.items()][:MOST]
        self._client.log_batch(parent.run_id, metrics=points, tags=[RunTag(DIGEST, digest)])
        self._client.set_terminated(parent.run_id, end_time=max(run.end for run in runs))
