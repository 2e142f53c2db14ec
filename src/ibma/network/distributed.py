"""Several processes that train one network, as `torchrun` starts them; no-ops in a single one.

Every process walks the same global batches and takes each `world()`-th row of them. What is summed
over samples (gradients, centroids, Q, logged losses) is reduced exactly, so that the record is that
of one process up to the order of floating-point sums, wherever a loss is a mean over samples.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed


def launched() -> bool:
    """Whether `torchrun` started this process."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def begin() -> None:
    """Join the other processes; nothing to do in a single one. Call once, before any training."""
    if not launched() or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("cpu:gloo,cuda:nccl")
    else:
        distributed.init_process_group("gloo")
    atexit.register(distributed.destroy_process_group)


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; process 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def mine(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """This process's rows of some: every `world()`-th."""
    return rows[rank() :: world()]


def share(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
    """This process's rows of a global batch, and the weight of their mean loss.

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
    """The rows of all processes in the order that `mine` took them from. value: [n_rank, ...]."""
    if world() == 1:
        return value
    parts: list[Tensor | None] = [None] * world()
    distributed.all_gather_object(parts, value)
    held = [part for part in parts if part is not None]
    whole = value.new_empty((sum(map(len, held)), *value.shape[1:]))
    for first, part in enumerate(held):
        whole[first :: world()] = part
    return whole
