"""Fetch a data set's open files, checked and from several places; write twins; list what is there.

`IBMA_MIRROR=<folder>` serves raw.githubusercontent.com/<owner>/<repo>/<commit>/<path> from
<folder>/github/<owner>/<repo>/<commit>/<path>: same checksum, same code after it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ibma import datasets, twins
from ibma.datasets import TWIN_MARKER, Dataset, Remote
from ibma.errors import IbmaError
from ibma.formats import archives, checksums

GITHUB = "https://raw.githubusercontent.com/"
# Of real data only these are hashed for the manifest; hundreds of gigabytes of media are not.
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".json", ".pkl", ".xlsx")
Downloader = Callable[[str, str, object], None]  # pooch's: (url, file to write, pooch)


def dataset(name: str, source: str, raw: Path) -> dict[str, Any]:
    """Fill `raw` (= data/raw/<name>): generate the twin, or fetch what is open. Return a manifest.

    The manifest stands for the folder in the pipeline: `source`; `missing`, what a user has to
    place by hand before anything can be computed, else None; `served`, url, sha256 and who served
    each fetched file; `files`, [path, bytes, sha256] of everything in the folder. sha256 is null
    for real media: a file replaced by one of the same size goes unnoticed until it is decoded.
    Files already right are kept, and a twin never shares a folder with real files.

    Raises IbmaError for a wrong checksum, addresses none of which answers, a mirror that lacks the
    file, a folder that holds the other source, and real files that are not the publisher's.
    """
    raw.mkdir(parents=True, exist_ok=True)
    module = datasets.load(name)
    served = _write_twin(name, raw) if source == "twin" else _take_real(module, raw)
    lacking = missing(name, module, raw) if source == "real" else None
    if lacking is None:
        archives.unpack_all(raw, getattr(module, "ARCHIVES", ()))
        verify: Callable[[Path], None] | None = getattr(module, "verify", None)
        if source == "real" and verify is not None:
            verify(raw)
    files = _listed(raw, hash_all=source == "twin")
    return {"source": source, "missing": lacking, "served": served, "files": files}


def _write_twin(name: str, raw: Path) -> list[dict[str, Any]]:
    marker = raw / TWIN_MARKER
    if any(raw.iterdir()) and not marker.exists():
        raise IbmaError(
            f"{raw}: holds real files, the twin would overwrite them: move them away, or set "
            f"datasets.{name}.source to real"
        )
    marker.touch()  # first, so that a twin cut short is known as one
    twins.write(name, raw)
    return [{"served_by": "twin"}]


def _take_real(module: Dataset, raw: Path) -> list[dict[str, Any]]:
    if (raw / TWIN_MARKER).exists():
        raise IbmaError(f"{raw}: holds the twin: delete this folder, then run again")
    builtin = module.CARD.access == "builtin"
    return [{"served_by": "builtin"}] if builtin else _fetch_all(module, raw)


def missing(name: str, module: Dataset, raw: Path) -> str | None:
    """What to do when none of the patterns of what users place by hand finds anything."""
    by_request = ("*",) if module.CARD.access == "request" else ()
    placed: tuple[str, ...] = getattr(module, "PLACED", by_request)
    if not placed or any(next(raw.glob(pattern), None) for pattern in placed):
        return None
    return (
        f"{raw} is empty: {module.CARD.how_to_get}; then `dvc repro -f download@{name}` and "
        "`dvc repro`"
    )


def _listed(raw: Path, *, hash_all: bool) -> list[list[Any]]:
    return [
        [
            path.relative_to(raw).as_posix(),
            path.stat().st_size,
            checksums.sha256(path) if hash_all or path.name.endswith(TABLES) else None,
        ]
        for path in sorted(raw.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]


def _fetch_all(module: Dataset, raw: Path) -> list[dict[str, Any]]:
    mirror = os.environ.get("IBMA_MIRROR")
    stand_in: Callable[[Path, Path], bool] | None = getattr(module, "fetch_mirror", None)
    if mirror and stand_in is not None and stand_in(Path(mirror), raw):
        files = [file for file in module.FILES if file.url.startswith(GITHUB)]
        served = [{"served_by": "mirror", "note": "the mirror's own layout, see the card"}]
    else:
        files, served = list(module.FILES), []
    return served + [_fetch(file, raw, mirror) for file in files]


def _fetch(file: Remote, raw: Path, mirror: str | None) -> dict[str, Any]:
    """Fetch one file from the first of its addresses that answers."""
    for url in (file.url, *file.mirrors):
        try:
            return _fetch_from(url, file, raw, mirror)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise  # the door tells a full disk from a dead network
            cause = _cause(error)
    tried = f"{file.url} cannot be fetched ({cause})"
    if file.mirrors:
        tried = f"none of {1 + len(file.mirrors)} addresses answers, the last: {url} ({cause})"
    raise IbmaError(
        f"{raw / file.path}: {tried}: check the network and run again to go on, or set IBMA_MIRROR "
        "to a folder with a copy"
    )


def _fetch_from(url: str, file: Remote, raw: Path, mirror: str | None) -> dict[str, Any]:
    import pooch

    target = raw / file.path
    from_mirror = mirror is not None and url.startswith(GITHUB)
    part = target.with_name(f"{target.name}.part")
    try:
        pooch.retrieve(
            url,
            known_hash=file.sha256,
            fname=target.name,
            path=target.parent,
            downloader=_copy_from(Path(str(mirror))) if from_mirror else _resume(part),
        )
    except ValueError:
        raise IbmaError(
            f"{target}: checksum of {url} is not {file.sha256}: the file changed or arrived "
            "broken, run again; if it persists, report it"
        ) from None
    return {
        "url": url,
        "sha256": pooch.file_hash(str(target)),
        "bytes": target.stat().st_size,
        "served_by": "mirror" if from_mirror else "public",
    }


def _cause(error: Exception) -> str:
    """In one line: tarfile, for one, lists every format it tried, a line each."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _resume(part: Path) -> Downloader:
    """Download through `part`; what an interrupted run left there is not fetched again."""

    def download(url: str, output: str, _: object) -> None:
        import requests
        from tqdm import tqdm

        have = part.stat().st_size if part.exists() else 0
        # identity: a range counts the bytes of the file, not of a compressed answer
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=60) as answer:
            if answer.status_code != requests.codes.requested_range_not_satisfiable:
                answer.raise_for_status()
                resumed = answer.status_code == requests.codes.partial_content
                have *= resumed
                total = have + int(answer.headers.get("Content-Length", 0)) or None
                shown = {"initial": have, "total": total, "unit": "B", "unit_scale": True}
                with part.open("ab" if resumed else "wb") as file, tqdm(**shown) as bar:
                    for block in answer.iter_content(1 << 16):
                        bar.update(file.write(block))
        shutil.move(part, output)  # the caller checks it and deletes it if it is wrong

    return download


def _copy_from(mirror: Path) -> Downloader:
    def copy(url: str, output: str, _: object) -> None:
        source = mirror / "github" / url.removeprefix(GITHUB)
        if not source.exists():
            raise IbmaError(f"{source}: not in the mirror (IBMA_MIRROR): unset it to use {url}")
        shutil.copyfile(source, output)

    return copy
