"""Files written whole or not at all, and one writer at a time for a folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ibma.errors import IbmaError


def read_json(path: Path, otherwise: Any) -> Any:
    """Return what a stage wrote; `otherwise` where it has not run."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it.

    Raises:
        OSError: it cannot be written (disk full, no right); the old file is intact.
    """
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it.

    Raises:
        OSError: it cannot be written (disk full, no right); the old file is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        error.filename = str(path)  # a failed write does not say which file
        raise
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other process from writing a folder; the lock ends with this process.

    The lock is a file beside the folder, so that DVC does not hash it with the content.

    Raises:
        IbmaError: another process holds the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    owner = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(owner, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        pid = owner.read_text(encoding="utf-8").strip() or "unknown"
        raise IbmaError(
            f"{folder}: another process is writing it (pid {pid}): wait for it or stop it"
        ) from None
    try:
        owner.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Fill a new folder that replaces `folder` when it is complete; until then that is intact.

    The new folder lies beside the old one and is called `.<name>.new`. Hold `folder` meanwhile.
    """
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        for path in new.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
