"""Write files whole or not at all, by one process at a time, and read back what was written.

What a stage writes for another goes through `write_json`, with a digest of its content in the file;
`read_json` refuses a file whose content no longer fits. Other files are compared with a digest that
such a file holds (`verified`).
"""

from __future__ import annotations

import fcntl
import functools
import glob
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from ibma.errors import REMEDIES, IbmaError, one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AGAIN = "delete it and run `dvc repro`"  # what helps against damage to most files
UNPACKED, RATIO = 1 << 28, 200  # bytes that any file may unpack to; a larger one: times its size


# --- reading back --------------------------------------------------------------------------------


def regular(path: Path, remedy: str = AGAIN) -> Path:
    """Return the path of a file that is there; a pipe or device is refused, nothing waits for it.

    Raises:
        FileNotFoundError: There is nothing.
        IbmaError: It is a folder, pipe or device, or a link that leads nowhere.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise IbmaError(f"{path}: a link that leads nowhere: {remedy}") from None
        raise FileNotFoundError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:  # a NUL in its name, a circle of links
        raise IbmaError(f"{path}: cannot be read ({error}): {remedy}") from None
    if not stat.S_ISREG(mode):
        raise IbmaError(f"{path}: is a folder, pipe or device, expected a file: {remedy}")
    return path


def read_bytes(path: Path, remedy: str = AGAIN) -> bytes:
    """Return what a regular file holds.

    Raises:
        FileNotFoundError: There is nothing.
        IbmaError: It is a folder, pipe or device.
    """
    return regular(path, remedy).read_bytes()


def verified(path: Path, digest: str, remedy: str = AGAIN) -> Path:
    """Return the path of a file whose sha256 is as expected; an unchanged file is read once.

    Raises:
        FileNotFoundError: There is nothing.
        IbmaError: It is another file.
    """
    state = regular(path, remedy).stat()
    if _sha256(path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns) != digest:
        raise IbmaError(f"{path}: changed since it was written, its sha256 does not fit: {remedy}")
    return path


def required(path: Path, digest: str, remedy: str = AGAIN) -> Path:
    """Return the path of a file that must be there, with a sha256 as expected.

    Raises:
        IbmaError: It is missing, or another file.
    """
    try:
        return verified(path, digest, remedy)
    except FileNotFoundError:
        raise IbmaError(f"{path}: missing: {remedy}") from None


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, otherwise: Any, remedy: str = AGAIN) -> Any:
    """Return what `write_json` wrote, or `otherwise` where there is no such file.

    Raises:
        IbmaError: The file is damaged, or was changed since it was written.
    """
    try:
        content = read_bytes(path, remedy)
    except FileNotFoundError:
        return otherwise
    try:
        found = json.loads(content)
        whole = found.keys() == {"sha256", "content"} and found["sha256"] == seal(found["content"])
    except (ValueError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise IbmaError(
            f"{path}: damaged or changed since it was written, its sha256 does not fit: {remedy}"
        )
    return found["content"]


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says that anybody may have written.

    Raises:
        ValueError: It is none, has a key twice, of which readers take either, or a number that is
            not finite.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_each_once, parse_float=_finite, parse_constant=_finite
        )
    except RecursionError:
        raise ValueError("brackets in brackets, too deep to be read") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"key '{twice[:40]}' stands there twice")
    return found


def _finite(number: str) -> float:
    if not math.isfinite(found := float(number)):  # 1e400, too
        raise ValueError("a number in it is not finite")
    return found


def seal(content: object) -> str:
    """Return the sha256 of a JSON value, whatever the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_arrays(source: Path | IO[bytes], limit: int) -> dict[str, NDArray[np.generic]]:
    """Return name -> array of an .npz file, which may hold anything.

    Args:
        limit: bytes that it may unpack to.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is no such file, or a damaged or larger one.
        OSError: The machine is to blame.
    """
    import zipfile

    import numpy as np

    try:
        with zipfile.ZipFile(source) as package:
            total = sum(member.file_size for member in package.infolist())
        if total > limit:
            raise ValueError(f"it unpacks to {total:,} bytes, expected {limit:,} at most")
        if not isinstance(source, Path):
            source.seek(0)
        with np.load(source, allow_pickle=False) as stored:
            return dict(stored)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever zipfile, zlib and numpy make of damage
        if isinstance(error, OSError) and error.errno in REMEDIES:
            raise
        raise ValueError(one_line(error)[:200] or type(error).__name__) from None


def unpacked_limit(size: int) -> int:
    """Return how many bytes a packed file of a size may unpack to."""
    return max(UNPACKED, RATIO * size)


# --- writing -------------------------------------------------------------------------------------


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        IbmaError: the file system takes no folder there, as that of /proc.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        raise IbmaError(f"{folder}: no folder can be made there: name another place") from None


def write_json(path: Path, value: object) -> None:
    """Write JSON that `read_json` reads back: `content`, and the `sha256` of it.

    Raises:
        OSError: The disk is full; the old file is intact.
    """
    content = json.loads(json.dumps(value))  # as it will be read back: keys are text then
    write_plain_json(path, {"sha256": seal(content), "content": content})


def write_plain_json(path: Path, value: object) -> None:
    """Write JSON for readers outside of this project, and such as holds its own digest.

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


def copy_file(source: Path, path: Path) -> None:
    """Copy a file; an error names the copy, which is what cannot be written."""
    make_folder(path.parent)
    try:
        shutil.copyfile(source, path)
    except OSError as error:
        if error.filename2 or not error.filename:  # of a file that is open, shutil names the source
            error.filename, error.filename2 = str(path), None
        raise


def link_file(source: Path, path: Path) -> None:
    """Give a file a second name, in place of what has it; copy it where that cannot be."""
    make_folder(path.parent)
    path.unlink(missing_ok=True)
    try:
        os.link(source, path)
    except OSError:  # another file system, or one without links
        copy_file(source, path)


def remove(path: Path) -> None:
    """Delete whatever lies at a path, if anything does."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of an output folder while writing into it.

    The lock is a file beside the folder. It ends with the process that holds it, however that ends.

    Raises:
        IbmaError: Another process holds it.
    """
    from filelock import FileLock, Timeout

    make_folder(folder.parent)
    owner = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(owner, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        pid = owner.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
        raise IbmaError(
            f"{folder}: another process is writing it (pid {pid}): wait for it or stop it"
        ) from None
    try:
        with naming(owner):
            owner.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors of the file system name a file: a write that fails does not say which it was."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that replaces `path` when it is complete; until then `path` is intact."""
    make_folder(path.parent)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # as `_sweep` knows it
    try:
        with temporary.open("xb") as file:  # its mode is what the umask says
            fcntl.flock(file, fcntl.LOCK_SH)  # it ends with this process
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a write that fails does not say which file it was
        raise


def _sweep(path: Path) -> None:
    """Delete what killed processes left of earlier writes of a file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
            left.unlink()


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Fill a new folder that replaces `folder` when it is complete; until then that is intact.

    The new folder is called `.<name>.new` and lies beside the old one. Hold `folder` meanwhile.
    """
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    make_folder(folder.parent)
    new.mkdir()
    try:
        with naming(folder):
            yield new
            for path in new.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            _replace(folder, new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _replace(folder: Path, new: Path) -> None:
    """Put a new folder in the place of another; if that fails, the other stays."""
    old = folder.with_name(f".{folder.name}.old")
    remove(old)
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    remove(old)


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
