"""Fetch a data set's open files, checked and from several places; write twins.

`IBMA_MIRROR=<folder>` serves raw.githubusercontent.com/<owner>/<repo>/<commit>/<path> from
<folder>/github/<owner>/<repo>/<commit>/<path>: same checksum, same code after it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ibma import archives, datasets, twins
from ibma.datasets import TWIN_MARKER, Dataset, Remote
from ibma.errors import IbmaError

GITHUB = "https://raw.githubusercontent.com/"
SOURCES = "SOURCES.json"
Downloader = Callable[[str, str, object], None]  # pooch's: (url, file to write, pooch)


def dataset(name: str, source: str, raw: Path) -> None:
    """Fill `raw` (= data/raw/<name>): generate the twin, or fetch what is open.

    Writes `SOURCES.json`: url, sha256 and who served each file. Files already right are kept, and
    a twin never shares a folder with real files.

    Raises IbmaError for a wrong checksum, an address that does not answer, a mirror that lacks the
    file, a folder that holds the other source, or (data sets by request) one that is empty.
    """
    raw.mkdir(parents=True, exist_ok=True)
    module = datasets.load(name)
    marker = raw / TWIN_MARKER
    filled = any(path.name != SOURCES for path in raw.iterdir())
    if source == "twin":
        if filled and not marker.exists():
            raise IbmaError(
                f"{raw}: holds real files, the twin would overwrite them: move them away, or set "
                f"datasets.{name}.source to real"
            )
        marker.touch()  # first, so that a twin cut short is known as one
        twins.write(name, raw)
        sources: list[dict[str, Any]] = [{"served_by": "twin"}]
    else:
        if marker.exists():
            raise IbmaError(f"{raw}: holds the twin: delete this folder, then run again")
        if module.CARD.access == "request" and not filled:
            raise IbmaError(f"{raw}: '{name}' is by request: {module.CARD.how_to_get}")
        builtin = module.CARD.access == "builtin"
        sources = [{"served_by": "builtin"}] if builtin else _fetch_all(module, raw)
    archives.unpack_all(raw, getattr(module, "ARCHIVES", ()))
    verify: Callable[[Path], None] | None = getattr(module, "verify", None)
    if source == "real" and verify is not None:
        verify(raw)
    (raw / SOURCES).write_text(json.dumps(sources, indent=1) + "\n")


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
    import pooch

    target = raw / file.path
    from_mirror = mirror is not None and file.url.startswith(GITHUB)
    part = target.with_name(f"{target.name}.part")
    try:
        pooch.retrieve(
            file.url,
            known_hash=file.sha256,
            fname=target.name,
            path=target.parent,
            downloader=_copy_from(Path(str(mirror))) if from_mirror else _resume(part),
        )
    except ValueError:
        raise IbmaError(
            f"{target}: checksum of {file.url} is not {file.sha256}: the file changed or arrived "
            "broken, run again; if it persists, report it"
        ) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise  # the door tells a full disk from a dead network
        raise IbmaError(
            f"{target}: {file.url} cannot be fetched ({_cause(error)}): check the network and run "
            "again to go on, or set IBMA_MIRROR to a folder with a copy"
        ) from None
    return {
        "url": file.url,
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
