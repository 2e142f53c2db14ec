"""Meet every call of a program that writes: names, openings, bytes and databases.

Bytes that a library of another language writes itself are not met, SQLite's apart: `limited` of
`system` lets the system refuse those.
"""

import builtins
import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

Fault = Callable[[int], Exception]  # what a call fails with, given an errno
Meet = Callable[[str, str, Fault], None]  # name of a call, the file that it writes, and its fault

NAMES = ("mkdir", "rename", "replace", "link", "unlink", "remove", "rmdir")
NEEDLESS = ("mkdir",)  # where something is there; the others where nothing is
BYTES = ("fsync", "ftruncate", "truncate", "sendfile", "write")
FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
SAID = {  # by SQLite: its unixWrite, and what it says of a journal that it cannot open
    errno.ENOSPC: "database or disk is full",
    errno.EDQUOT: "disk I/O error",
    errno.EFBIG: "disk I/O error",
    errno.EIO: "disk I/O error",
    errno.EROFS: "attempt to write a readonly database",
    errno.EACCES: "attempt to write a readonly database",
    errno.EPERM: "attempt to write a readonly database",
    errno.EMFILE: "unable to open database file",
}


@contextmanager
def met(meet: Meet) -> Iterator[None]:
    """Call a function before every call that writes a file; what it raises is what that raises."""

    def before(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *more: Any, **named: Any) -> Any:
            file = _file(path, named.get("dir_fd"))
            if file is not None and os.path.lexists(file) != (name in NEEDLESS):
                meet(name, file, _error(path))
            return function(path, *more, **named)

        return call

    def os_open(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & FLAGS and (file := _file(path, named.get("dir_fd"))) is not None:
            meet("open", file, _error(path))
        return opening(path, flags, *more, **named)

    def io_open(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+") or _file(path) is None:
            return reading(path, mode, *more, **named)
        if not isinstance(path, int):
            meet("open", _file(path), _error(path))
        return _opened(meet, path, mode, *more, **named)

    class Cursor(sqlite3.Cursor):
        def execute(self, statement: str, *more: Any) -> Any:
            writes = not statement.lstrip().upper().startswith(("SELECT", "PRAGMA", "BEGIN"))
            if writes and not self.connection.in_transaction:
                meet("begin", _database(self.connection), _database_error)
            return super().execute(statement, *more)

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def commit(self) -> None:
            if self.in_transaction:
                meet("commit", _database(self), _database_error)
            super().commit()

    def connected(*given: Any, **named: Any) -> sqlite3.Connection:
        return connect(*given, **({"factory": Connection} | named))

    opening, reading, connect = os.open, io.open, sqlite3.connect
    with pytest.MonkeyPatch.context() as patch:
        for name in (*NAMES, *BYTES):
            patch.setattr(os, name, before(name, getattr(os, name)))
        patch.setattr(os, "open", os_open)
        for module in (io, builtins):
            patch.setattr(module, "open", io_open)
        for module in (sqlite3, sqlite3.dbapi2):
            patch.setattr(module, "connect", connected)
        yield


def _opened(
    meet: Meet,
    path: Any,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    """Open a file as `open` does; its bytes are met when they leave the buffer."""

    class Raw(io.FileIO):
        def write(self, content: Any) -> Any:
            if (file := _file(self.fileno())) is not None:
                meet("write", file, _error(0))
            return super().write(content)

    raw = Raw(path, mode.replace("b", "").replace("t", ""), closefd, opener)
    if buffering == 0:
        return raw
    buffer = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
    if "b" in mode:
        return buffer
    text = io.TextIOWrapper(buffer, encoding, errors, newline, buffering == 1)
    text.mode = mode
    return text


def _file(path: Any, folder: int | None = None) -> str | None:
    """Return which file a path or descriptor stands for; None for pipes, devices and the like."""
    if isinstance(path, int):
        whole = os.readlink(f"/proc/self/fd/{path}")
    else:
        where = os.getcwd() if folder is None else os.readlink(f"/proc/self/fd/{folder}")
        whole = os.path.join(where, os.fsdecode(path))
    if whole.startswith("/dev/shm/"):
        return whole
    return whole if whole[0] == "/" and not whole.startswith(("/dev", "/proc", "/sys")) else None


def _error(path: Any) -> Fault:
    """Return the fault of a call; the system names no file to one that was given a descriptor."""
    named = () if isinstance(path, int) else (os.fsdecode(path),)
    return lambda number: OSError(number, os.strerror(number), *named)


def _database(connection: sqlite3.Connection) -> str:
    return str(connection.execute("pragma database_list").fetchone()[2])


def _database_error(number: int) -> Exception:
    return sqlite3.OperationalError(SAID[number])
