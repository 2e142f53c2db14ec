"""Let one estimator at a time draw random numbers: torch has one generator for all threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ibma.estimators.loss import BadArgument

_TURN = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Hold torch's generator for a fit, and hand it back as it was.

    Fits in threads of one process take turns: else each would seed the other's draws, and the same
    `random_state` would give other numbers. Fits in processes run side by side.

    Raises:
        BadArgument: torch makes numbers of another type than networks have.
    """
    refuse_other_type()
    with (
        _TURN,
        torch.random.fork_rng(),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


def refuse_other_type() -> None:
    """Raise an error unless torch makes float32, the type of every network and array here.

    Raises:
        BadArgument: it makes another one.
    """
    if (found := torch.get_default_dtype()) != torch.float32:
        raise BadArgument(
            f"torch's default type is {found}: call torch.set_default_dtype(torch.float32)"
        )
