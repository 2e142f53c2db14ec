"""Run many calls in parallel and show their progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, TypeVar

from ibma.engine import executor
from ibma.errors import progress_bar
from ibma.network.distributed import together

if TYPE_CHECKING:
    from ibma.params import Engine

K = TypeVar("K")
BEAT_SECONDS = 30.0  # between two looks at calls that still run


def run_all(
    engine: Engine,
    device: str,
    label: str,
    calls: Mapping[K, tuple[Any, ...]],
    describe: Callable[[K, Any], str] = lambda key, _: str(key),
    on_beat: Callable[[], float] = lambda: 0.0,
    *,
    threads: int = 1,
) -> Iterator[tuple[K, Future[Any]]]:
    """Make calls side by side; yield each as it ends, and show how far they are.

    Leaving the loop before its end stops all that are not finished.

    Args:
        device: auto, cpu or cuda.
        label: what progress calls them all.
        calls: key -> function and its arguments.
        describe: says of a key and its result what progress shows.
        on_beat: called every `BEAT_SECONDS` while calls still run; returns how many calls' worth of
            them is done.
        threads: that each call uses; fewer calls run at once if it is more than one.

    Raises:
        IbmaError: a worker process was killed.
    """
    if not calls:
        return
    with (
        executor(engine, device, len(calls), threads) as pool,
        progress_bar(total=len(calls), desc=label, smoothing=0) as bar,
    ):
        keys = {pool.submit(together, engine.processes, *call): key for key, call in calls.items()}
        done = 0

        def beat() -> None:
            bar.update(max(0.0, round(done + on_beat(), 1) - bar.n))

        for future in _as_ended(list(keys), beat):
            key, error = keys.pop(future), future.exception()
            if isinstance(error, BrokenProcessPool):
                raise error
            yield key, future
            done += 1
            last = f"{key}: failed" if error else describe(key, future.result())
            bar.set_postfix_str(last, refresh=False)
            bar.update(max(0, done - bar.n))


def _as_ended(
    futures: Collection[Future[Any]], on_beat: Callable[[], None]
) -> Iterator[Future[Any]]:
    """Yield each future when it ends, and call `on_beat` now and then in between."""
    left, beat = set(futures), time.monotonic() + BEAT_SECONDS
    while left:
        ended, left = wait(left, max(0.0, beat - time.monotonic()), FIRST_COMPLETED)
        yield from ended
        if left and time.monotonic() >= beat:
            on_beat()
            beat = time.monotonic() + BEAT_SECONDS
