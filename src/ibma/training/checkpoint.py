"""Keep the state of an unfinished run on disk, written while training goes on.

A file holds a digest of its content. One that is damaged or belongs to another run is as good as
none: it costs time, never the run. A small file beside it tells others how far the run is.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibma.errors import IbmaError
from ibma.files import read_bytes, read_json, remove, write_json

DIGEST = 32  # bytes of sha256


class Checkpoint:
    """The file of one run's state.

    Args:
        key: the run's; a file under another key is not read.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def read(self) -> dict[str, Any] | None:
        """Return the state on the CPU; None where there is no whole file of this run."""
        try:
            content = read_bytes(self.path)
            if sha256(content[DIGEST:]).digest() != content[:DIGEST]:
                return None
            state = torch.load(io.BytesIO(content[DIGEST:]), "cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, IbmaError):
            remove(self.path)
            return None
        return dict(state["state"]) if state["key"] == self.key else None

    def tell(self, progress: dict[str, Any]) -> None:
        """Let others know how far the run is, as JSON values."""
        write_json(_told(self.path), progress | {"key": self.key})

    def told(self) -> dict[str, Any] | None:
        """Return how far the run is; None where nobody has told, or of another run."""
        try:
            progress = read_json(_told(self.path), {})
        except IbmaError:  # damaged; the run itself goes on from the other file
            return None
        return progress if progress.get("key") == self.key else None

    def write(self, state: dict[str, Any]) -> None:
        """Take a copy of a state and let a thread write it, once it has written the last one.

        Raises:
            IbmaError: the last one could not be written.
        """
        copied = {"key": self.key, "state": _copy(state)}
        if self._writing is not None:
            self._writing.result()
        self._writing = self._writer.submit(_write, copied, self.path)

    def close(self) -> None:
        """Wait for the thread. What it failed to write is not needed any more."""
        self._writer.shutdown()

    def forget(self) -> None:
        """Delete both files and what a killed process left of another one."""
        for path in (self.path, _unfinished(self.path), _told(self.path)):
            remove(path)


def _copy(value: Any) -> Any:
    """Copy a nest of containers; its tensors become the CPU's."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value


def _write(state: dict[str, Any], path: Path) -> None:
    """Write a state so that the file before it stays whole until it is complete."""
    buffer, temporary = io.BytesIO(), _unfinished(path)
    torch.save(state, buffer)
    content = buffer.getbuffer()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(sha256(content).digest())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise IbmaError(
            f"{path}: cannot be written ({error}): free disk space and run again, what was "
            "finished is kept"
        ) from None


def _told(path: Path) -> Path:
    return path.with_suffix(".json")


def _unfinished(path: Path) -> Path:
    return path.with_suffix(".part")
