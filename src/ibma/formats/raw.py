"""Check what every reader of a raw file checks first, and set the limits of what it reads.

Raw files come from strangers. A small file may claim to hold a huge picture, name another file
outside its folder, or be no file at all. What exceeds a limit is refused by name, before memory or
time is spent on it. The limits lie far above what the data sets hold.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ibma.errors import REMEDIES, IbmaError, one_line
from ibma.files import unpacked_limit as limit_of

PICTURE_PIXELS = 100_000_000  # of one picture; a whole slide of her2st has 92 million
FILM_PIXELS = 40_000_000  # of one picture of a film: 8K
FILM_PICTURES = 100_000  # an hour at 28 a second
SOUND_RATES = (1_000, 768_000)  # Hz
LINE = 10_000_000  # characters of a line of text
ROWS = 20_000_000  # of a table
MEMBERS = 2_000_000  # files of an archive

LFS_STUB = b"version https://git-lfs"


class Unreadable(IbmaError):
    """A file that is there but cannot be read as what it should be."""


def present(path: Path, advice: str = "fetch it again or take it off the list") -> Path:
    """Return the path of a regular file that is there.

    Args:
        path: Any path; a pipe or a device is refused before anything waits for it.
        advice: How a user gets the file.

    Raises:
        Unreadable: There is no such file, it is no file, or a git-lfs pointer in a file's place.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise Unreadable(f"{path}: missing: {advice}") from None
    except (ValueError, OSError) as error:  # a NUL in its name, or a name that is too long
        raise unreadable(path, error) from None
    if not stat.S_ISREG(mode):
        raise Unreadable(f"{path}: is a folder, pipe or device, expected a file: {advice}")
    with path.open("rb") as file:
        if file.read(len(LFS_STUB)) == LFS_STUB:
            raise Unreadable(f"{path}: a git-lfs pointer, not the file: run `git lfs pull` there")
    return path


def given(path: Path) -> bool:
    """Return whether anything lies at a path where another file would do in its place.

    A link that leads nowhere does, too: `present` refuses it, where the other file would hide it.
    """
    return os.path.lexists(path)


def unpacked_limit(path: Path) -> int:
    """Return how many bytes a packed file may unpack to."""
    return limit_of(path.stat().st_size)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file; bytes that are not UTF-8 show as replacement characters.

    Raises:
        Unreadable: There is no such file, or it is no text.
    """
    present(path)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in lines(file, path)]
    except ValueError as error:
        raise unreadable(path, error) from None


def lines(file: IO[str], path: Path) -> Iterator[str]:
    """Yield the lines of an opened text file, with bounds on a line and on all of them.

    Raises:
        ValueError: A line or the file is too long, or holds a NUL.
    """
    total, limit = 0, unpacked_limit(path)
    while line := file.readline(LINE):
        total += len(line)
        if "\0" in line:
            raise ValueError("a NUL character: no UTF-8 text, save it as UTF-8 text")
        if len(line) == LINE or total > limit:
            raise ValueError(f"longer than {LINE:,} characters a line or {limit:,} altogether")
        yield line


def unreadable(path: Path, error: Exception) -> Unreadable:
    """Return the error of a file that a decoder failed on, whatever the decoder raised.

    Raises:
        Exception: The cause lies in this machine and not in the file.
    """
    if isinstance(error, Unreadable):
        return error
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in REMEDIES):
        raise error
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    cause = one_line(words)[:200]
    return Unreadable(f"{path}: cannot be decoded ({cause}): fetch it again")
