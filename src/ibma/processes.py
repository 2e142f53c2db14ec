"""Processes that work side by side."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor


def pool(count: int, preload: Sequence[str]) -> ProcessPoolExecutor:
    """`count` processes that start with the modules `preload` imported.

    They are not forked from the caller's process: threads of torch do not survive a fork.
    """
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    context.set_forkserver_preload(list(preload))
    return ProcessPoolExecutor(count, context)
