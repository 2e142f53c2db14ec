"""Unpack what publishers pack, and nothing outside its folder; pack what twins ship."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ibma.errors import IbmaError
from ibma.files import inside, write_bytes
from ibma.formats import raw

MARKERS = ".*.unpacked"  # files beside archives that say so
DAMAGE = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


def unpack_all(folder: Path, patterns: Sequence[str]) -> None:
    """Unpack every archive below a folder that fits a pattern, each beside itself.

    A file `.<archive>.unpacked` with the archive's size and time says that one is done, so that an
    interrupted call goes on.

    Args:
        folder: Where to look.
        patterns: In their order; a later one finds what an earlier one unpacked.

    Raises:
        IbmaError: As `unpack`.
    """
    for pattern in patterns:
        for archive in sorted(folder.glob(pattern)):
            done = archive.with_name(f".{archive.name}.unpacked")
            state = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
            if not done.is_file() or done.read_bytes() != state.encode():
                unpack(archive, archive.parent)
                write_bytes(done, state.encode())


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar below a folder, once the whole of it was read and found right.

    Raises:
        IbmaError: The archive is damaged, a member is a link, a device or leads out of the folder,
            or it would unpack to more than the limits of `raw`. Nothing was unpacked.
    """
    raw.present(archive)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder)
        else:
            _unpack_tar(archive, folder)
    except (tarfile.TarError, zipfile.BadZipFile, *DAMAGE) as error:
        # in one line: tarfile, for one, lists every format it tried, a line each
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise IbmaError(f"{archive}: broken archive ({cause}): delete it and run again") from None


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as package:
        # no kind is asked for: zipfile makes no link, it writes a link's text as a file
        _refuse(archive, ((each.filename, each.file_size, True) for each in package.infolist()))
        if damaged := package.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of '{damaged}'")
        package.extractall(folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with _tar(archive) as package:
        _refuse(
            archive, ((each.name, each.size, each.isfile() or each.isdir()) for each in package)
        )
    with _tar(archive) as package:
        # Python 3.11.4 and later drop owners and odd modes; before it nobody reads this
        package.extraction_filter = getattr(tarfile, "data_filter", None)
        package.extractall(folder)


@contextmanager
def _tar(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar; at the end read what is left of a gzip, where its checksum is.

    tarfile itself stops at the last member, and takes a flipped byte for content.
    """
    with archive.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if not packed:
        with tarfile.open(archive) as package:
            yield package
        return
    with gzip.open(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r:") as package:
            yield package
        while stream.read(1 << 20):
            pass


def pack(archive: Path, members: Mapping[str, Path]) -> None:
    """Write a tar.gz without owners and times, so that its bytes follow from its members'.

    Args:
        archive: The file to write.
        members: Name in the archive -> a file or folder.
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


def _refuse(archive: Path, members: Iterable[tuple[str, int, bool]]) -> None:
    """Raise an error for members (name, bytes, whether it is a file or folder) that do harm."""
    total, limit = 0, raw.unpacked_limit(archive)
    for count, (name, size, plain) in enumerate(members, 1):
        if _leads_out(name) or not plain:
            raise IbmaError(
                f"{archive}: member '{name}' is a link or leads out of the folder: refused, "
                "nothing was unpacked"
            )
        total += size
        if count > raw.MEMBERS or total > limit:
            raise IbmaError(
                f"{archive}: more than {raw.MEMBERS:,} files or {limit:,} bytes inside: refused, "
                "nothing was unpacked"
            )


def _leads_out(name: str) -> bool:
    try:
        inside(Path(), name)
    except IbmaError:
        return True
    return False
