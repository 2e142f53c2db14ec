"""Cells on other machines: deal them out, bring results home, try failed ones again.

The head stays the place where `dvc repro` is run. It deals a wave's stale cells out to workers
(`worker.run`, each in a clone of its own), takes each worker's entries of dvc.lock into its own and
checks the outputs out of the cache. DVC then finds these cells up to date.
"""

from __future__ import annotations

import heapq
import json
import os
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ruamel.yaml import YAML
from tqdm import tqdm

from ibma import cells, grid, params, plan, worker
from ibma.errors import IbmaError
from ibma.params import Params
from ibma.worker import LOCK, Order, Outcome

CODE = ("src", "stages", "dvc.yaml")  # what workers take from the commit


class Executor(Protocol):
    """An engine that starts `worker.run` somewhere."""

    @property
    def workers(self) -> Sequence[str]:
        """Names of those who can take an order now; a clone is called after its worker."""
        ...

    def run(self, orders: Mapping[str, Order]) -> Iterator[tuple[str, Outcome | None]]:
        """Hand each worker its order; yield who is done with what, None for who was lost."""
        ...


@dataclass(frozen=True)
class Crew:
    """Who works and where.

    clones: folder of the workers' clones. source: git repository that they clone. cache: folder of
    the head's DVC cache where workers see it; remote: else the name of a DVC remote.
    """

    executor: Executor
    clones: Path
    source: str
    cache: str | None = None
    remote: str | None = None


@dataclass
class Head:
    """The repository that cells are dealt out from. hours: what a unit is thought to cost."""

    root: Path
    crew: Crew
    hours: Callable[[str], float]
    retries: int
    places: set[str] = field(default_factory=set)

    def train(self, wanted: Sequence[str]) -> None:
        """Have the cells of one wave done. Raises IbmaError naming those that kept failing."""
        profile = params.load(self.root / "params.yaml")
        wanted = self._not_known(wanted)
        if not wanted:
            return
        if self.crew.remote:
            read = {str(path) for cell in wanted for path in cells.needs(profile, cell)}
            grid.dvc(self.root, "push", "--quiet", "--remote", self.crew.remote, *sorted(read))
        waiting = [unit for cell in wanted for unit in grid.units(profile, cell)]
        with tqdm(total=len(waiting), desc="cells on workers", unit="cell") as bar:
            for _ in range(1 + self.retries):
                if waiting:
                    waiting = self._round(waiting, bar)
        failed = {cell for cell in wanted if set(grid.units(profile, cell)) & set(waiting)}
        if tuned := [cell for cell in grid.of(wanted, ("tune",)) if cell not in failed]:
            grid.commit(self.root, tuned)
        if waiting:
            raise IbmaError(
                f"{len(waiting)} cells failed {1 + self.retries} times ({', '.join(waiting)}): "
                f"read the logs ({', '.join(sorted(self.places)) or 'no worker answered'}), mend "
                "the cause and run again, finished cells are kept"
            )

    def _round(self, units: Sequence[str], bar: Any) -> list[str]:
        """Deal units out once; return those that are not done."""
        order, workers = self._order(), self.crew.executor.workers
        if not workers:
            raise IbmaError("no worker is left: the lines above say why, mend it and run again")
        shares = zip(workers, deal(units, self.hours, len(workers)), strict=False)
        orders = {
            name: replace(order, clone=str(self.crew.clones / name), units=share)
            for name, share in shares
        }
        left: list[str] = []
        for name, outcome in self.crew.executor.run(orders):
            given = orders[name].units
            failed = list(given) if outcome is None else list(outcome.failed)
            if outcome is not None:
                self._take(outcome)
            left += failed
            bar.update(len(given) - len(failed))
        return left

    def _order(self) -> Order:
        here, remote = self.root.resolve(), self.crew.remote
        scratch = here / cells.SCRATCH
        scratch.mkdir(parents=True, exist_ok=True)
        return Order(
            clone="",
            source=self.crew.source,
            commit=commit_of(self.root),
            params=(here / "params.yaml").read_text(encoding="utf-8"),
            lock=(here / LOCK).read_text(encoding="utf-8"),
            cache=self.crew.cache,
            remote=remote and address(self.root, remote),
            scratch=str(scratch) if self.crew.cache else None,
            units=(),
        )

    def _take(self, outcome: Outcome) -> None:
        """Bring a worker's results home."""
        if outcome.failed:
            self.places.add(outcome.place)
        for path, text in outcome.choices.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text, encoding="utf-8")
        self._take_entries(outcome.locked)

    def _take_entries(self, entries: Mapping[str, Any]) -> None:
        if not entries:
            return
        yaml = YAML()
        lock = yaml.load(self.root / LOCK)
        lock["stages"].update(entries)
        part = self.root / f"{LOCK}.part"
        yaml.dump(lock, part)
        os.replace(part, self.root / LOCK)
        far = ("pull", "--remote", self.crew.remote) if self.crew.remote else ("checkout",)
        grid.dvc(self.root, *far, "--quiet", "--force", *entries)

    def _not_known(self, wanted: Sequence[str]) -> list[str]:
        """Leave out what an interrupted call had done: clones that lie here remember it."""
        order = self._order()
        found: dict[str, Any] = {}
        for lock in sorted(self.crew.clones.glob(f"*/{LOCK}")):
            same_params = (lock.parent / "params.yaml").read_text(encoding="utf-8") == order.params
            if same_params and commit_of(lock.parent) == order.commit:
                done = worker.finished(lock.parent)
                found |= {cell: done[cell] for cell in wanted if cell in done}
        self._take_entries(found)
        if not found:
            return list(wanted)
        left = grid.stale(self.root)
        return [cell for cell in wanted if cell in left]


def launch(root: Path, crew: Crew, hours: Callable[[str], float], retries: int, jobs: int) -> None:
    """Bring the pipeline up to date, trials and trainings by the crew, the rest by this machine.

    Raises IbmaError for sources that are not committed, and as `grid.repro` does.
    """
    check_committed(root)
    grid.repro(root, jobs, Head(root, crew, hours, retries).train)


def forecast(root: Path, profile: Params, workers: Sequence[str]) -> str:
    """Who would get what of the cells that are stale now, and for how long."""
    known, hours = plan.rates(profile, root), plan.hours(profile, root)
    stale = grid.stale(root)
    lines = []
    for wave in grid.WAVES:
        wanted = grid.of(stale, wave)
        units = [unit for cell in wanted for unit in grid.units(profile, cell)]
        lines.append(f"{', '.join(wave)}: {len(units)} to do, {_hours(known, hours, units)}")
        for name, share in zip(workers, deal(units, hours, len(workers)), strict=False):
            head = f"  worker {name}: {len(share)}, {_hours(known, hours, share)}: "
            lines.append(textwrap.fill(head + " ".join(share), 100, subsequent_indent="    "))
    lines.append(f"Hours: {known.source}; `ibma plan` says what they assume.")
    lines.append("Trainings whose trials are still to be made may become stale after them.")
    return "\n".join(lines)


def _hours(known: plan.Rates, hours: Callable[[str], float], units: Sequence[str]) -> str:
    return f"{sum(map(hours, units)):,.2f} h" if known.seconds else "? h"


def deal(units: Sequence[str], hours: Callable[[str], float], workers: int) -> list[list[str]]:
    """Deal units out, the longest first, each to the worker with the least so far."""
    heap = [(0.0, 0, i) for i in range(min(workers, len(units)))]
    shares: list[list[str]] = [[] for _ in heap]
    for unit in sorted(units, key=hours, reverse=True):
        load, count, i = heapq.heappop(heap)
        shares[i].append(unit)
        heapq.heappush(heap, (load + hours(unit), count + 1, i))
    return shares


def cache(root: Path) -> str:
    """The folder of this repository's DVC cache."""
    return grid.asked(root, "cache", "dir").strip()


def commit_of(root: Path) -> str:
    """The commit that is checked out. Raises IbmaError outside git."""
    return _git(root, "rev-parse", "HEAD")


def check_committed(root: Path) -> None:
    """Workers run what is committed. Raises IbmaError for sources that differ from it."""
    if changed := _git(root, "status", "--porcelain", "--", *CODE):
        first = changed.splitlines()[0].split()[-1]
        raise IbmaError(f"{first}: not committed, but workers clone the commit: commit it first")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise IbmaError(f"{root.resolve()}: workers clone a git repository, and {said}")
    return done.stdout.strip()


def address(root: Path, remote: str) -> str:
    """Where a DVC remote is. Raises IbmaError for a name that `dvc remote list` does not have."""
    listed = dict(line.split()[:2] for line in grid.asked(root, "remote", "list").splitlines())
    if remote not in listed:
        known = ", ".join(listed) or "none, see `dvc remote add --local`"
        raise IbmaError(f"--remote {remote}: no such DVC remote (known: {known})")
    return listed[remote]


# --- executors -----------------------------------------------------------------------------------


class Job:
    """An order as submitit runs it: Slurm's time limit or preemption only interrupts it."""

    def __call__(self, order: Order) -> Outcome:
        """Run it; cells go on from their checkpoints."""
        return worker.run(order)

    def checkpoint(self, order: Order) -> Any:
        """What to submit when Slurm takes the node away."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, order)


def settings(cluster: str, profile: Params, given: Sequence[str]) -> dict[str, Any]:
    """What submitit is told: a day for each job and, on Slurm, a GPU unless params.yaml says cpu.

    given: `key=value`, values as YAML. Raises IbmaError for text without =.
    """
    found: dict[str, Any] = {"timeout_min": 24 * 60}
    if cluster == "slurm" and profile.device != "cpu":
        found["gpus_per_node"] = 1
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise IbmaError(f"--setting {text}: expected key=value")
        found[key] = YAML(typ="safe").load(value)
    return found


class Submitit:
    """Workers as jobs of submitit: of a Slurm cluster, or processes of this machine.

    cluster: `slurm` or `local`. settings: what submitit's AutoExecutor knows, such as timeout_min
    or slurm_partition. Raises IbmaError where submitit or Slurm is missing, and for a setting that
    is unknown.
    """

    def __init__(self, cluster: str, jobs: int, logs: Path, settings: Mapping[str, Any]) -> None:
        try:
            from submitit import AutoExecutor
        except ImportError:
            raise IbmaError(
                f"--executor {cluster} needs submitit: `pip install ibma[slurm]`"
            ) from None
        self.workers = [str(i) for i in range(jobs)]
        try:
            self._executor = AutoExecutor(folder=logs, cluster=cluster)
            self._executor.update_parameters(name="ibma", **settings)
        except (RuntimeError, AssertionError, NameError, TypeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise IbmaError(f"--executor {cluster}: {said}") from None

    def run(self, orders: Mapping[str, Order]) -> Iterator[tuple[str, Outcome | None]]:
        """One job an order; all are cancelled when this call is interrupted."""
        from submitit.helpers import as_completed

        jobs = self._executor.map_array(Job(), list(orders.values()))
        names = dict(zip((job.job_id for job in jobs), orders, strict=True))
        try:
            for job in as_completed(jobs, poll_frequency=1):
                try:
                    yield names[job.job_id], job.result()
                except Exception as error:  # whatever ended the job: its cells are tried again
                    _lost(f"job {job.job_id} ({job.paths.stderr})", error)
                    yield names[job.job_id], None
        finally:
            for job in jobs:
                if not job.done():
                    job.cancel()


class Hosts:
    """Workers on machines that `ssh` reaches without a question, one on each.

    python: the interpreter over there that has this package. A host that is lost gets no more
    orders.
    """

    def __init__(self, hosts: Sequence[str], python: str) -> None:
        self.workers = list(hosts)
        self._python = python

    def run(self, orders: Mapping[str, Order]) -> Iterator[tuple[str, Outcome | None]]:
        """All hosts at once."""
        with ThreadPoolExecutor(len(orders)) as pool:
            doing = {
                pool.submit(_order_over_ssh, host, self._python, order): host
                for host, order in orders.items()
            }
            for future in as_completed(doing):
                host = doing[future]
                try:
                    yield host, future.result()
                except (OSError, IbmaError, ValueError, IndexError) as error:
                    _lost(host, error)
                    self.workers.remove(host)
                    yield host, None


def _order_over_ssh(host: str, python: str, order: Order) -> Outcome:
    command = ["ssh", "-o", "BatchMode=yes", host, f"{shlex.quote(python)} -m ibma.worker"]
    text = json.dumps(asdict(order))
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise IbmaError(" ".join(done.stderr.split()[-60:]))
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def _lost(who: str, error: Exception) -> None:
    """A worker that is lost is told of at once; its cells go to others."""
    lines = [type(error).__name__, *filter(None, map(str.strip, str(error).splitlines()))]
    told = next((line for line in reversed(lines) if "Error:" in line), lines[-1])
    tqdm.write(f"{who}: lost: {told}", file=sys.stderr)
