"""Run independent calls side by side: in processes of this machine, as Slurm jobs, or on Ray.

A call is an importable function and arguments that can be pickled. Its result comes back by value,
so that workers need the project's folder only. A stage's own process makes no call: it answers
signals at once, and lives on to report a worker that was killed.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from ibma import paths
from ibma.errors import IbmaError, blocking_signals, follow, installing, keeping_handlers, one_line
from ibma.machine import PORTABLE, cores
from ibma.params import Engine


def executor(engine: Engine, device: str, calls: int, threads: int = 1) -> Executor:
    """Return an executor for some calls: a context that stops them all on an exception.

    Args:
        device: auto, cpu or cuda.
        calls: how many there will be; no more workers are started.
        threads: of torch in each process, unless a call sets its own.

    Raises:
        IbmaError: the engine is not installed, cannot be reached, or does not know an option.
    """
    gpus = 0 if device == "cpu" else importlib.import_module("torch").cuda.device_count()
    if engine.name == "processes":
        room = (gpus or cores() // threads) // engine.processes
        workers = max(1, min(engine.workers or room, calls))
        return Processes(workers, threads, gpus, engine.processes)
    gpus_each = engine.processes if gpus or device == "cuda" else 0  # a head may have no GPU
    start = slurm if engine.name == "slurm" else ray
    try:
        return start(engine, calls, threads * engine.processes, gpus_each)
    except Exception as error:  # whatever a library says of its options or of its cluster
        remedy = f": {installing(engine.name)}" if isinstance(error, ImportError) else ""
        said = f"{engine.name} {dict(engine.options)}: {one_line(error)}{remedy}"
        raise IbmaError(f"params.yaml: engine {said}") from error


class Processes(ProcessPoolExecutor):
    """Processes of this machine.

    On a CPU they are forked: they inherit every module that the stage has imported. Threads do not
    survive a fork, so that the stage must not have used more than one of torch's before.

    Args:
        threads: of torch in each process.
        gpus: how many this machine has; each process sees the next `gpus_each` of them.
        fresh: start them without what this process has imported.
    """

    def __init__(
        self,
        workers: int,
        threads: int = 1,
        gpus: int = 0,
        gpus_each: int = 1,
        *,
        fresh: bool = False,
    ) -> None:
        forked = sys.platform == "linux" and not gpus and not fresh
        context = multiprocessing.get_context("fork" if forked else "spawn")
        given = os.getpid(), threads, gpus, gpus_each, context.Value("i", 0) if gpus else None
        super().__init__(workers, context, _begin, given)
        self._lower = f"engine.workers below {workers}" if workers > 1 else "batch_size lower"

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Queue a call."""
        with blocking_signals():  # of workers that this starts
            return super().submit(function, *args, **kwargs)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for all calls; after an exception kill the workers."""
        if kind:
            for process in list((self._processes or {}).values()):
                process.kill()
        self.shutdown(wait=True, cancel_futures=bool(kind))
        if isinstance(error, BrokenProcessPool):
            raise IbmaError(
                "a worker process was killed, by want of memory in most cases: set "
                f"{self._lower} in params.yaml and run again, finished runs are kept"
            ) from None


def _begin(parent: int, threads: int, gpus: int, gpus_each: int, started: Any) -> None:
    """Set up a new worker process."""
    follow(parent)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if gpus:
        with started.get_lock():
            first, started.value = started.value, started.value + gpus_each
        names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join((names * 2)[first % gpus :][:gpus_each])


class Call(NamedTuple):
    """A call as a worker elsewhere makes it, in the project's folder."""

    root: str
    function: Callable[..., Any]
    args: tuple[Any, ...]

    def __call__(self) -> tuple[Any, Exception | None]:
        """Return the result, or the exception with its traceback as a note."""
        os.chdir(self.root)
        try:
            return self.function(*self.args), None
        except Exception as error:
            error.add_note(traceback.format_exc())
            return None, error

    def checkpoint(self) -> Any:
        """Tell submitit what to submit when Slurm takes the node away: the same call."""
        return importlib.import_module("submitit.helpers").DelayedSubmission(self)


class Elsewhere(ThreadPoolExecutor):
    """Calls that are made elsewhere by `make`; a thread waits for each. `stop` ends them all."""

    def __init__(self, calls: int, make: Callable[[Call], Any], stop: Callable[[], Any]) -> None:
        super().__init__(calls)
        self._make, self._stop = make, stop

    def submit(self, function: Callable[..., Any], /, *args: Any, **_: Any) -> Any:
        """Queue a call."""
        return super().submit(self._result, Call(os.getcwd(), function, args))

    def _result(self, call: Call) -> Any:
        try:
            result, error = self._make(call)
        except Exception as lost:  # whatever a library says of a worker's death
            raise IbmaError(f"a worker was lost: {one_line(lost)}") from lost
        if error:
            raise error
        return result

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for all calls; after an exception stop them."""
        self.shutdown(wait=not kind, cancel_futures=bool(kind))
        self._stop()


def slurm(engine: Engine, calls: int, cpus: int, gpus: int) -> Executor:
    """Make calls as Slurm jobs, or with `cluster: local` here; options: submitit.AutoExecutor's."""
    submitit = importlib.import_module("submitit")
    lock, stopped, begun = threading.Lock(), threading.Event(), []
    options = {"cluster": "slurm", "name": "ibma", "timeout_min": 24 * 60, "cpus_per_task": cpus}
    options |= {"gpus_per_node": gpus or None, **engine.options}
    cancel = ["scancel"] if (cluster := options.pop("cluster")) == "slurm" else ["kill", "-INT"]
    jobs = submitit.AutoExecutor(paths.LOGS / "slurm", cluster=cluster)
    jobs.update_parameters(**options)

    def make(call: Call) -> Any:
        with lock:  # one submission at a time, and none after the end
            if stopped.is_set():
                raise InterruptedError("stopped")
            begun.append(job := jobs.submit(call))
        while not job.done():
            if stopped.wait(1.0):
                raise InterruptedError("stopped")
        return job.result()

    def stop() -> None:
        stopped.set()
        with lock:
            ids = [job.job_id for job in begun if not job.paths.result_pickle.exists()]
        if ids:
            subprocess.Popen([*cancel, *ids], start_new_session=True)  # a busy cluster takes time

    return Elsewhere(calls, make, stop)


def ray(engine: Engine, calls: int, cpus: int, gpus: int) -> Executor:
    """Make calls as tasks of Ray; options are those of ray.remote, and `address`: the cluster's.

    Without address and RAY_ADDRESS a cluster of `workers` processes is started on this machine.
    """
    library = importlib.import_module("ray")
    options = {"num_cpus": cpus, "num_gpus": gpus, **engine.options}
    address = str(options.pop("address", os.environ.get("RAY_ADDRESS", "local")))
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():  # Ray would try for minutes
        socket.create_connection((host, int(port)), timeout=10).close()
    cpus_here = (engine.workers or cores()) * cpus
    own = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "num_cpus": cpus_here}
    variables = {k: v for k, v in os.environ.items() if k in ("PYTHONPATH", *PORTABLE)}
    given = own if address == "local" else {"runtime_env": {"env_vars": variables}}
    with keeping_handlers():
        library.init(address, log_to_driver=False, logging_level="error", **given)
    make = library.remote(**options)(Call.__call__)
    return Elsewhere(calls, lambda call: library.get(make.remote(call)), library.shutdown)
