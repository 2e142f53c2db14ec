"""Write files and folders whole or not at all, by one process at a time."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ibma.errors import IbmaError


def read_json(path: Path, otherwise: Any) -> Any:
    """Return what a JSON file holds, or `otherwise` where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it.

    Raises:
        OSError: The disk is full; the old file is intact.
    """
    write_bytes(path, f"{json.dumps(value, indent=1)}\n".encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it.

    Raises:
        OSError: The disk is full; the old file is intact.
    """
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of an output folder while writing into it.

    The lock is a file beside the folder. It ends with the process that holds it, however that ends.

    Raises:
        IbmaError: Another process holds it.
    """
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    owner = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(owner, timeout=0)
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
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that replaces `path` when it is complete; until then `path` is intact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            error.filename = str(path)  # a write that fails does not say which file it was
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Fill a new folder that replaces `folder` when it is complete; until then that is intact.

    The new folder is called `.<name>.new` and lies beside the old one. Hold `folder` meanwhile.
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


def inside(root: Path, name: str) -> Path:
    """Join a path that comes from data to a folder, and refuse to leave the folder.

    Links that lie in the folder are followed: only the user can have put them there, since no
    archive is unpacked that holds one.

    Raises:
        IbmaError: The path is absolute, leads upwards, or is none.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts:
        raise IbmaError(f"{root}: the path {name[:200]!r} leads out of this folder: refused")
    return root / path
