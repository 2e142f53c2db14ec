"""Compare files with the digests that their publishers list."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ibma.errors import IbmaError, progress_bar


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_hash(path: Path) -> str:
    """Return what `git hash-object` prints of a file."""
    start = b"blob %d\0" % path.stat().st_size
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(start)).hexdigest()


def verify(listed: Sequence[tuple[Path, str]], advice: str) -> None:
    """Check that each file is there with its sha256; hashing runs in threads, with a progress bar.

    Args:
        listed: Files and their digests.
        advice: What a user does about files that differ.

    Raises:
        IbmaError: Files are missing or differ; it counts them and names the first.
    """
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter
        results = pool.map(lambda entry: _matches(*entry), listed)
        found = list(progress_bar(results, desc="verify", total=len(listed), unit="file"))
    bad = [path for (path, _), right in zip(listed, found, strict=True) if not right]
    if bad:
        state = "has another sha256 than its publisher's" if bad[0].exists() else "is missing"
        raise IbmaError(f"{bad[0]}: {state} ({len(bad)} of {len(listed)} files so): {advice}")


def _matches(path: Path, digest: str) -> bool:
    return path.exists() and sha256(path) == digest
