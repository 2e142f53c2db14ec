"""Branch a trial off at every write of a program, for every error of the operating system.

The program runs once. At each write, forks of it go on, one for each error, in which that write
fails; they work in a copy of the folder, which lies in its place meanwhile. So thousands of errors
cost little more than what happens after each of them.
"""

import errno
import fcntl
import gc
import hashlib
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import Pool

from ibma.errors import REMEDIES
from ibma.files import remove
from ibma.tracking.store import DATABASE

from . import writes
from .trial import branch

Tree = dict[str, tuple[object, ...]]  # path -> its type, and what tells it from others of it
FAULTS = [(number, False) for number in REMEDIES] + [(errno.EROFS, True)]  # True: for good
SECONDS = 60.0  # for what happens after a fault
TEMPORARY = "tmp"  # folder for temporary files: in the project, so that each trial has its own


@dataclass
class Branches:
    """The trials that branch off a program which works in a folder.

    Attributes:
        found: of each trial the fault, how the program ended, what it said, and the name of the
            tree that it left below `trees`.
    """

    folder: Path
    found: list[tuple[str, str, str, str]] = field(default_factory=list)
    _branched: bool = False
    _for_good: bool = False
    _busy: bool = False
    _sums: dict[object, str] = field(default_factory=dict)

    @property
    def trees(self) -> Path:
        return self.folder.with_name("trees")

    def run(self, use: Callable[[], object]) -> list[tuple[str, str, str, str]]:
        """Run a program in the folder, which is the working folder; return what was found."""
        self._own, self._spare = (self.folder.with_name(name) for name in ("own", "spare"))
        for path in (self._own, self._spare, self.trees, self.folder / TEMPORARY):
            remove(path)
        for path in (self._spare, self.trees, self.folder / TEMPORARY):
            path.mkdir()
        event.listen(Pool, "checkout", self._connect)
        with pytest.MonkeyPatch.context() as patch, writes.met(self._meet):
            patch.setattr(tempfile, "tempdir", str(self.folder / TEMPORARY))
            same = os.getpid()  # filelock lets no other process go on
            patch.setattr(os, "getpid", lambda: same)
            gc.freeze()  # what forks share stays shared
            use()
        if self._branched:
            return []
        assert self.found and not self._busy, "nothing was tried, or a trial could not be"
        return self.found

    def _meet(self, call: str, file: str, fault: writes.Fault) -> None:
        if self._branched and self._for_good:
            raise fault(errno.EROFS)
        if self._branched or self._busy:
            return
        place = Path(file)
        alone = threading.current_thread() is threading.main_thread()
        if self.folder not in place.parents or not alone:
            what = "outside its folder" if alone else "in a thread, where no trial can branch off"
            self.found.append((f"{call} {file}", "failed", f"writes {what}", ""))
            return
        self._busy = True
        self.folder.rename(self._own)
        self._spare.rename(self.folder)
        level(self._own, self.folder)
        wanted = walked(self._own)
        said = {(str(fault(number)), for_good): number for number, for_good in FAULTS}
        for (_, for_good), number in said.items():  # SQLite says the same of several
            there = self._try(number, for_good, f"{call} {place.relative_to(self.folder)}", fault)
            mend(self._own, self.folder, wanted, there)
        self.folder.rename(self._spare)
        self._own.rename(self.folder)
        self._busy = False

    def _try(self, number: int, for_good: bool, where: str, fault: writes.Fault) -> Tree:
        """Let a call fail in a trial; return what that left in the folder."""
        if (end := branch(SECONDS)) is None:
            self._settle()
            self._branched, self._for_good = True, for_good
            raise fault(number)
        there = walked(self.folder)
        tree = self._keep(there)
        how = end.how
        named = for_good or names(end.said, Path(where.partition(" ")[2]))
        if how == "refused" and not named:
            how = "failed"
        what = f"{errno.errorcode[number]}{' from then on' if for_good else ''} at {where}"
        self.found.append((what, how, end.said, tree))
        return there

    def _settle(self) -> None:
        """Let this process work in the copy: its working folder and the files it has open."""
        own, here = str(self._own), os.getcwd()
        os.chdir(self.folder / os.path.relpath(here, own))
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            try:
                path = os.readlink(f"/proc/self/fd/{descriptor}")
            except OSError:  # of the list itself
                continue
            copy = Path(str(self.folder) + path.removeprefix(own))
            if not path.startswith(f"{own}/") or not copy.is_file():
                continue
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            place = os.lseek(descriptor, 0, os.SEEK_CUR)
            opened = os.open(copy, flags)
            os.lseek(opened, place, os.SEEK_SET)
            os.dup2(opened, descriptor, inheritable=False)
            os.close(opened)

    def _connect(self, _: object, connection: Any, __: object) -> None:
        """Let a pool connect anew after a fork: SQLite's connections do not outlive one."""
        if connection.info.setdefault("branched", self._branched) != self._branched:
            raise DisconnectionError

    def _keep(self, there: Tree) -> str:
        """Keep the tree that a trial left; return its name, which is a digest of all of it."""
        found = hashlib.sha256()
        for path, state in sorted(there.items()):
            name = re.sub(r"(/\.[^/]+\.)\w{8}$", r"\1", path)  # drawn, of a temporary file
            found.update(f"{name} {self._content(path, state)}\n".encode())
        kept = self.trees / found.hexdigest()[:16]
        if not kept.exists():
            kept.mkdir()
            level(self.folder, kept)
        return kept.name

    def _content(self, path: str, state: tuple[object, ...]) -> str:
        if state[0] != stat.S_IFREG:
            return str(state)
        key = (path, *state)  # the time says when it was written, wherever it is copied
        if key not in self._sums:
            self._sums[key] = hashlib.sha256((self.folder / path).read_bytes()).hexdigest()
        return self._sums[key]


def names(line: str, file: Path) -> bool:
    """Return whether a line names a file; of what MLflow writes, its database.

    A temporary file is named by what it is for, and one in a temporary folder by that folder's.
    """
    temporary = [folder.name for folder in file.parents if folder.name.startswith(".")]
    return any(
        re.sub(r"^\.|\.(new|old|part|parts)$|\.\w{8}$", "", name) in line
        for name in (file.name, *temporary, DATABASE.name)
    )


def walked(root: Path) -> Tree:
    """Return what lies below a folder: path -> its type, of a file its size and time."""
    return dict(_walk(os.fspath(root), ""))


def _walk(root: str, below: str) -> Iterator[tuple[str, tuple[object, ...]]]:
    with os.scandir(os.path.join(root, below)) as entries:
        for entry in entries:
            name, found = os.path.join(below, entry.name), entry.stat(follow_symlinks=False)
            kind = stat.S_IFMT(found.st_mode)
            if kind == stat.S_IFDIR:
                yield name, (kind,)
                yield from _walk(root, name)
            elif kind == stat.S_IFLNK:
                yield name, (kind, os.readlink(entry.path))
            else:
                yield name, (kind, found.st_size, found.st_mtime_ns)


def level(source: Path, target: Path) -> None:
    """Make a folder the copy of another, at little cost where it nearly is."""
    mend(source, target, walked(source), walked(target))


def mend(source: Path, target: Path, wanted: Tree, there: Tree) -> None:
    """Make a folder the copy of another, where it is known what lies in both."""
    for path in sorted(there.keys() - wanted.keys(), reverse=True):
        remove(target / path)
    for path, state in sorted(wanted.items()):
        if there.get(path) == state:
            continue
        remove(target / path)
        if state == (stat.S_IFDIR,):
            (target / path).mkdir()
        else:
            shutil.copy2(source / path, target / path, follow_symlinks=False)
