"""Fill raw folders: fetch open files and check them, generate twins, list what is there.

`IBMA_MIRROR=<folder>` serves raw.githubusercontent.com/<owner>/<repo>/<commit>/<path> from
<folder>/github/<owner>/<repo>/<commit>/<path>: same checksum, same code after it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ibma import datasets, paths, twins
from ibma.datasets import TWIN_MARKER, Dataset, Remote
from ibma.errors import REMEDIES, IbmaError, progress_bar, tell
from ibma.files import copy_file, held, inside, read_json
from ibma.formats import archives, checksums

GITHUB = "https://raw.githubusercontent.com/"
# Of larger real data only these are hashed for the manifest, not hundreds of gigabytes of media.
HASHED_GB = 4.0  # CHOICE: some seconds a stage
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".json", ".pkl", ".xlsx")
Downloader = Callable[[str, str, object], None]  # pooch's: (url, file to write, pooch)


def dataset(name: str, source: str, raw: Path) -> dict[str, Any]:
    """Fill a raw folder: generate the twin, or fetch what is open. Return its manifest.

    The manifest stands for the folder in the pipeline. The same files give the same manifest,
    whenever, wherever and from whichever address they were fetched. Files that are right already
    are kept, and a twin never shares a folder with real files.

    Args:
        name: Name of the data set.
        source: `twin` or `real`.
        raw: Folder of the raw files, data/raw/<name>.

    Returns:
        `source`; `missing`: what a user has to place by hand first, else None; `served`: url,
        sha256 and bytes of each fetched file; `files`: [path, bytes, sha256] of all that lies in
        the folder. The sha256 of media is None where real data exceed `HASHED_GB`: they are checked
        as they are decoded.

    Raises:
        IbmaError: A wrong checksum, no address that answers, a mirror that lacks the file, a folder
            that holds the other source, real files that are not the publisher's, or another
            process that fills the folder.
    """
    raw.mkdir(parents=True, exist_ok=True)
    module = datasets.load(name)
    with held(raw):
        served = _write_twin(name, raw) if source == "twin" else _take_real(module, raw)
        lacking = missing(name, module, raw) if source == "real" else None
        if lacking is None:
            archives.unpack_all(raw, getattr(module, "ARCHIVES", ()))
            verify: Callable[[Path], None] | None = getattr(module, "verify", None)
            if source == "real" and verify is not None:
                verify(raw)
        small = module.CARD.raw_gb is not None and module.CARD.raw_gb <= HASHED_GB
        files = _listed(raw, hash_all=source == "twin" or small)
    return {"source": source, "missing": lacking, "served": served, "files": files}


def read_manifest(name: str) -> dict[str, Any]:
    """Read the manifest of a data set.

    Raises:
        IbmaError: Stage `download` has not run, or the file is damaged.
    """
    path = paths.manifest(name)
    if not (found := read_json(path, {}, f"run `dvc repro -f download@{name}`")):
        raise IbmaError(f"{path}: missing: run `dvc repro download@{name}`")
    return dict(found)


def restore(name: str, raw: Path, manifest: Mapping[str, Any]) -> None:
    """Make sure that a raw folder holds what its manifest lists; fetch what is gone.

    Args:
        name: Name of the data set.
        raw: Folder of the raw files. It may be gone, for example on a fresh clone.
        manifest: What `dataset` returned for it.

    Raises:
        IbmaError: A file has changed, or it is gone and has to be placed by hand; and as `dataset`.
    """
    changed, gone = _differing(raw, manifest)
    if gone and not changed:
        tell(f"{raw}: {len(gone)} files are gone, fetching {name} again")
        for marker in raw.rglob(archives.MARKERS):
            marker.unlink()  # else an archive counts as unpacked
        lacking = dataset(name, manifest["source"], raw)["missing"]
        changed, gone = _differing(raw, manifest)
        if gone:
            advice = lacking or datasets.load(name).CARD.how_to_get
            raise IbmaError(f"{gone[0]}: gone, but the manifest of {name} lists it: {advice}")
    if changed:
        raise IbmaError(
            f"{changed[0]}: changed since the manifest of {name} was written: run "
            f"`dvc repro -f download@{name}` to use it as it is, or delete it to fetch it again"
        )


def _differing(raw: Path, manifest: Mapping[str, Any]) -> tuple[list[Path], list[Path]]:
    """Return the files that have changed, and those that are gone."""
    changed, gone = [], []
    for name, size, digest in manifest["files"]:
        path = inside(raw, name)
        if not path.is_file():
            gone.append(path)
        elif path.stat().st_size != size or (digest and checksums.sha256(path) != digest):
            changed.append(path)
    return changed, gone


def _write_twin(name: str, raw: Path) -> list[dict[str, Any]]:
    marker = raw / TWIN_MARKER
    if any(raw.iterdir()) and not marker.exists():
        raise IbmaError(
            f"{raw}: holds real files, the twin would overwrite them: move them away, or set "
            f"datasets.{name}.source to real"
        )
    marker.touch()  # first, so that a twin cut short is known as one
    twins.write(name, raw)
    return []


def _take_real(module: Dataset, raw: Path) -> list[dict[str, Any]]:
    if (raw / TWIN_MARKER).exists():
        raise IbmaError(f"{raw}: holds the twin: delete this folder, then run again")
    mirror = os.environ.get("IBMA_MIRROR")
    stand_in: Callable[[Path, Path], bool] | None = getattr(module, "fetch_mirror", None)
    if mirror and stand_in is not None and stand_in(Path(mirror), raw):
        files = [file for file in module.FILES if file.url.startswith(GITHUB)]
        served = [{"stand_in": "the mirror's own layout, see the card"}]
    else:
        files, served = list(module.FILES), []
    return served + [_fetch(file, raw, mirror) for file in files]


def missing(name: str, module: Dataset, raw: Path) -> str | None:
    """Return what a user has to place by hand, None if something of it is there."""
    by_request = ("*",) if module.CARD.access == "request" else ()
    placed: tuple[str, ...] = getattr(module, "PLACED", by_request)
    found = (path for pattern in placed for path in raw.glob(pattern))
    if not placed or any(not path.name.startswith(".") for path in found):  # .DS_Store is no data
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


def _fetch(file: Remote, raw: Path, mirror: str | None) -> dict[str, Any]:
    """Fetch one file from the first of its addresses that answers."""
    for url in (file.url, *file.mirrors):
        try:
            return _fetch_from(url, file, raw, mirror)
        except OSError as error:
            if error.errno in REMEDIES:
                raise  # the door tells a full disk from a dead network
            cause = f"{type(error).__name__}: {error}".splitlines()[0]  # some print several
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
    return {"url": file.url, "sha256": checksums.sha256(target), "bytes": target.stat().st_size}


def _resume(part: Path) -> Downloader:
    """Download through `part`; what an interrupted run left there is not fetched again."""

    def download(url: str, output: str, _: object) -> None:
        import requests

        have = part.stat().st_size if part.exists() else 0
        # identity: a range counts the bytes of the file, not of a compressed answer
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=60) as answer:
            if answer.status_code != requests.codes.requested_range_not_satisfiable:
                answer.raise_for_status()
                resumed = answer.status_code == requests.codes.partial_content
                have *= resumed
                total = have + int(answer.headers.get("Content-Length", 0)) or None
                bar = progress_bar(initial=have, total=total, unit="B", unit_scale=True)
                with part.open("ab" if resumed else "wb") as file, bar:
                    for block in answer.iter_content(1 << 16):
                        bar.update(file.write(block))
        shutil.move(part, output)  # the caller checks it and deletes it if it is wrong

    return download


def _copy_from(mirror: Path) -> Downloader:
    def copy(url: str, output: str, _: object) -> None:
        source = mirror / "github" / url.removeprefix(GITHUB)
        if not source.exists():
            raise IbmaError(f"{source}: not in the mirror (IBMA_MIRROR): unset it to use {url}")
        copy_file(source, Path(output))

    return copy
