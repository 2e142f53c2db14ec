"""Unpack what publishers pack, and nothing outside its folder; pack what twins ship."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ibma.errors import IbmaError

MARKERS = ".*.unpacked"  # files beside archives that say so


def unpack_all(raw: Path, patterns: Sequence[str]) -> None:
    """Unpack every archive below `raw` that fits a pattern beside itself, pattern by pattern.

    A later pattern finds what an earlier one unpacked. `.<archive>.unpacked`, which holds the
    archive's size and time, marks one that is done, so that an interrupted call goes on.

    Raises IbmaError as `unpack`.
    """
    for pattern in patterns:
        for archive in sorted(raw.glob(pattern)):
            done = archive.with_name(f".{archive.name}.unpacked")
            state = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
            if not done.exists() or done.read_text() != state:
                unpack(archive, archive.parent)
                done.write_text(state)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar below `folder`; refuse members that lead out of it, links and devices.

    zipfile never makes a link (it writes the link's text as a file), so only a tar can hold one.

    Raises IbmaError naming the archive: a refused member (nothing is unpacked), or a broken file.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as package:
                _refuse(archive, [name for name in package.namelist() if _leads_out(name)])
                package.extractall(folder)
        else:
            with tarfile.open(archive) as package:
                members = package.getmembers()
                _refuse(archive, [m.name for m in members if _leads_out(m.name) or _is_odd(m)])
                # Python 3.11.4 and later drop owners and odd modes; before it nobody reads this
                package.extraction_filter = getattr(tarfile, "data_filter", None)
                package.extractall(folder)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        # in one line: tarfile, for one, lists every format it tried, a line each
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise IbmaError(f"{archive}: broken archive ({cause}): delete it and run again") from None


def pack(archive: Path, members: Mapping[str, Path]) -> None:
    """Write a tar.gz of files and folders under the given names.

    It holds neither owners nor times, so that its bytes follow from its members'.
    """
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as package,
    ):
        for name, root in members.items():
            for path in [root] if root.is_file() else sorted(root.rglob("*")):
                if path.is_file():
                    inside = PurePosixPath(name, path.relative_to(root).as_posix())
                    entry = tarfile.TarInfo(str(inside))
                    entry.size = path.stat().st_size
                    with path.open("rb") as content:
                        package.addfile(entry, content)


def _refuse(archive: Path, members: list[str]) -> None:
    if members:
        raise IbmaError(
            f"{archive}: member '{members[0]}' is a link or leads out of the folder: refused, "
            "nothing was unpacked"
        )


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _is_odd(member: tarfile.TarInfo) -> bool:
    """Whether it is a link or a device, not a file or folder."""
    return not (member.isfile() or member.isdir())
