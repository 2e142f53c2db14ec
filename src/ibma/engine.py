"""Run independent calls side by side: in processes of this machine, as Slurm jobs, or on Ray.

A call is an importable function with arguments that can be pickled. Its result comes back by value,
so that workers need to see the project's folder and nothing else. A stage's own process makes no
call itself, not even a single one: it answers signals at once, and it lives on to say so when the
kernel kills a worker for want of memory.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ibma import params, paths
from ibma.errors import STOPS, IbmaError, follow

if TYPE_CHECKING:
    from ibma.params import Engine, Params

# Libraries choose their code by processor, and rounding with it. These switches hold them to what
# every x86-64 processor since 2015 has, so that results have the same bytes on all of them.
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "FAISS_SIMD_LEVEL": "AVX2",
}
VARIABLES = ("PYTHONPATH", *PORTABLE)  # what workers elsewhere need of a stage's environment


def prepare() -> Params:
    """Load params.yaml and hold this process to its instructions; call it before torch loads."""
    loaded = params.load()
    hold_to(loaded.instructions)
    return loaded


def hold_to(instructions: str) -> None:
    """Hold the libraries that this process loads from now on to portable or native instructions."""
    if instructions == "portable" and platform.machine() in ("x86_64", "AMD64"):
        # some machines set this one: other kernels of OpenBLAS fail there
        kept = {"OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE", "Haswell")}
        os.environ.update(PORTABLE | kept)


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
        room = (gpus or params.cores() // threads) // engine.processes
        workers = max(1, min(engine.workers or room, calls))
        return Processes(workers, threads, gpus, engine.processes)
    # the head of a cluster may have no GPU: there `device: cuda` says that its workers have
    gpus_each = engine.processes if gpus or device == "cuda" else 0
    start = slurm if engine.name == "slurm" else ray
    try:
        return start(engine, calls, threads * engine.processes, gpus_each)
    except ImportError:
        needs = f"`pip install 'ibma[{engine.name}]'`"
        raise IbmaError(f"params.yaml: engine {engine.name} is not installed: {needs}") from None
    except Exception as error:  # whatever a library says of its options or of its cluster
        raise IbmaError(f"params.yaml: engine {engine.name}: {_one_line(error)}") from error


class Processes(ProcessPoolExecutor):
    """Processes of this machine.

    On a CPU they are forked: they inherit every module that the stage has imported. Threads do not
    survive a fork, so that the stage must not have used more than one of torch's before.

    Args:
        threads: of torch in each process.
        gpus: how many this machine has; each process sees the next `gpus_each` of them.
    """

    def __init__(self, workers: int, threads: int = 1, gpus: int = 0, gpus_each: int = 1) -> None:
        forked = sys.platform == "linux" and not gpus
        context = multiprocessing.get_context("fork" if forked else "spawn")
        given = os.getpid(), threads, gpus, gpus_each, context.Value("i", 0)
        super().__init__(workers, context, _begin, given)
        self._lower = f"engine.workers below {workers}" if workers > 1 else "batch_size lower"

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Queue a call."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # in new workers until `follow`
        try:
            return super().submit(function, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

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
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(
            names[(first + i) % gpus] for i in range(gpus_each)
        )


class Call(NamedTuple):
    """A call as a worker elsewhere makes it, in the project's folder."""

    root: Path
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
    """Calls that are made elsewhere; a thread waits for each.

    Args:
        make: makes a call there and returns what came out.
        stop: ends all that are not finished.
    """

    def __init__(self, calls: int, make: Callable[[Call], Any], stop: Callable[[], object]) -> None:
        super().__init__(calls)
        self._make, self._stop = make, stop

    def submit(self, function: Callable[..., Any], /, *args: Any, **_: Any) -> Any:
        """Queue a call."""
        return super().submit(self._result, Call(Path.cwd(), function, args))

    def _result(self, call: Call) -> Any:
        try:
            result, error = self._make(call)
        except Exception as lost:  # whatever a library says of a worker's death
            raise IbmaError(f"a worker was lost: {_one_line(lost)}") from lost
        if error:
            raise error
        return result

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for all calls; after an exception stop them."""
        self.shutdown(wait=not kind, cancel_futures=bool(kind))
        self._stop()


def slurm(engine: Engine, calls: int, cpus: int, gpus: int) -> Executor:
    """Make calls as Slurm jobs; options are those of submitit.AutoExecutor.

    `cluster: local` makes them processes of this machine, to try it.
    """
    submitit, lock, begun = importlib.import_module("submitit"), threading.Lock(), []
    options = {"cluster": "slurm", "name": "ibma", "timeout_min": 24 * 60, "cpus_per_task": cpus}
    options |= {"gpus_per_node": gpus or None, **engine.options}
    cluster = options.pop("cluster")
    jobs = submitit.AutoExecutor(paths.LOGS / "slurm", cluster=cluster)
    jobs.update_parameters(**options)

    def make(call: Call) -> Any:
        with lock:
            begun.append(job := jobs.submit(call))
        return job.result()

    def stop() -> None:
        going = [job for job in begun if not job.paths.result_pickle.exists()]
        if cluster == "local":
            for job in going:
                job.cancel()
        elif going:  # by one command that is not waited for: a busy cluster takes its time
            command = ["scancel", *(job.job_id for job in going)]
            subprocess.Popen(command, start_new_session=True)

    return Elsewhere(calls, make, stop)


def ray(engine: Engine, calls: int, cpus: int, gpus: int) -> Executor:
    """Make calls as tasks of Ray; options are those of ray.remote, and the cluster's `address`.

    Without it, and without RAY_ADDRESS, a cluster of `workers` processes is started on this
    machine. A call whose worker dies is made again, 3 times at most.
    """
    library = importlib.import_module("ray")
    options = {"num_cpus": cpus, "num_gpus": gpus, **engine.options}
    address = options.pop("address", os.environ.get("RAY_ADDRESS", "local"))
    own = {"num_cpus": (engine.workers or params.cores()) * cpus, "_node_ip_address": "127.0.0.1"}
    handlers = {number: signal.getsignal(number) for number in STOPS}
    library.init(
        address,
        runtime_env={"env_vars": {k: os.environ[k] for k in VARIABLES if k in os.environ}},
        log_to_driver=False,
        logging_level="error",
        include_dashboard=False,
        **(own if address == "local" else {}),
    )
    for number, handler in handlers.items():  # Ray takes SIGTERM for itself
        signal.signal(number, handler)
    make = library.remote(**options)(Call.__call__)
    return Elsewhere(calls, lambda call: library.get(make.remote(call)), library.shutdown)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
