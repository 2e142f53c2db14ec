"""Let several processes train one network, as `torchrun` starts them; in one nothing happens.

Every process walks the same global batches and takes each `world()`-th row of them. What is summed
over samples (gradients, centroids, Q, logged losses) is reduced exactly, so that the record is that
of one process up to the order of floating-point sums, wherever a loss is a mean over samples.
"""

from __future__ import annotations

import atexit
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from ibma.errors import IbmaError, follow

CALL, END = "call", ".end"  # files that pass a call to the processes and its result back
PARENT = "IBMA_PARENT"
LOST = 2


def together(processes: int, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in several processes of `torchrun`, in this one if it is one.

    Args:
        function: importable; it calls `begin` before any training. What it returns in process 0
            comes back.

    Raises:
        IbmaError: one of the processes was killed.
    """
    if processes == 1:
        return function(*args)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / CALL).write_bytes(pickle.dumps((function, args)))
        subprocess.run(
            [sys.executable, "-m", "ibma.network.distributed", name, str(processes)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the parent's business
        )
        ends = [pickle.loads(path.read_bytes()) for path in sorted(folder.glob(f"*{END}"))]
    failures = sorted((error for _, error in ends if error is not None), key=_rank_of_cause)
    if failures and _rank_of_cause(failures[0]) < LOST:
        raise failures[0]
    if failures or not ends:
        raise IbmaError(
            f"one of {processes} processes that train together was killed, by want of memory in "
            "most cases: set batch_size lower in params.yaml and run again"
        ) from (failures or [None])[0]
    return ends[0][0]


def _rank_of_cause(error: Exception) -> int:
    """Return how little an error says of what went wrong first."""
    if isinstance(error, IbmaError):
        return 0
    # the others only lose their connection
    return LOST if isinstance(error, distributed.DistError) or "gloo" in str(error) else 1


def _launch(folder: str, processes: str) -> None:
    """Become `torchrun`: start the processes and end with the first that fails."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    follow(int(os.environ[PARENT]))
    os.environ[PARENT] = str(os.getpid())
    logging.disable()  # what went wrong comes back by file
    module = ("-m", "ibma.network.distributed", folder)
    try:
        main(["--standalone", "--nproc-per-node", processes, *module])
    except ChildFailedError:
        sys.exit(1)


def _take_part(folder: Path) -> None:
    """Make the call in one of the processes; leave its result, or what went wrong."""
    follow(int(os.environ.pop(PARENT)))  # `torchrun` may be gone by now, and another the parent
    function, args = pickle.loads((folder / CALL).read_bytes())
    result, failure = None, None
    try:
        result = function(*args)
    except Exception as error:
        error.add_note(traceback.format_exc())
        failure = error
    if failure is not None or int(os.environ["RANK"]) == 0:
        end = folder / f"{os.environ['RANK']}{END}"
        end.write_bytes(pickle.dumps((result, failure)))
    if failure is not None:
        sys.exit(1)


def launched() -> bool:
    """Tell whether `torchrun` started this process."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def begin() -> None:
    """Join the other processes, before any training; in a single process do nothing."""
    if not launched() or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("cpu:gloo,cuda:nccl")
    else:
        distributed.init_process_group("gloo")
    atexit.register(distributed.destroy_process_group)


def world() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0; process 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def mine(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return this process's share of some rows: every `world()`-th."""
    return rows[rank() :: world()]


def share(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
    """Return this process's rows of a global batch, and the weight of their mean loss.

    The mean over processes of weight times local mean is the mean over the batch, however unequal
    the shares. Where a batch has fewer rows than processes, one row stands in with weight 0.
    """
    own = mine(rows)
    return (own, len(own) * world() / len(rows)) if len(own) else (rows[:1], 0.0)


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the processes."""
    if world() > 1:
        for tensor in tensors:
            distributed.all_reduce(tensor)


def gather(value: Tensor) -> Tensor:
    """Join the rows [n_rank, ...] of all processes in the order that `mine` took them from."""
    if world() == 1:
        return value
    parts: list[Tensor | None] = [None] * world()
    distributed.all_gather_object(parts, value)
    held = [part for part in parts if part is not None]
    whole = value.new_empty((sum(map(len, held)), *value.shape[1:]))
    for first, part in enumerate(held):
        whole[first :: world()] = part
    return whole


if __name__ == "__main__":
    _take_part(Path(sys.argv[1])) if launched() else _launch(*sys.argv[1:])
