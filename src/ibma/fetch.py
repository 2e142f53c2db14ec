"""Fetch a data set's open files, checked and from several places; write twins.

`IBMA_MIRROR=<folder>` serves raw.githubusercontent.com/<owner>/<repo>/<commit>/<path> from
<folder>/github/<owner>/<repo>/<commit>/<path>: same checksum, same code after it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from ibma import datasets, twins
from ibma.datasets import Dataset, Remote
from ibma.errors import IbmaError

GITHUB = "https://raw.githubusercontent.com/"


def dataset(name: str, source: str, raw: Path) -> None:
    """Fill `raw` (= data/raw/<name>): generate the twin, or fetch what is open.

    Writes `SOURCES.json`: url, sha256 and who served each file. Files already right are kept.

    Raises IbmaError for a wrong checksum, an address that does not answer, a mirror that lacks the
    file, or (data sets by request) a folder that is not there yet.
    """
    raw.mkdir(parents=True, exist_ok=True)
    module = datasets.load(name)
    if source == "twin":
        twins.write(name, raw)
        _write_sources(raw, [{"served_by": "twin"}])
        return
    if module.CARD.access == "request" and not any(raw.iterdir()):
        raise IbmaError(f"{raw}: '{name}' is by request: {module.CARD.how_to_get}")
    _write_sources(raw, _fetch_all(module, raw))


def _write_sources(raw: Path, sources: list[dict[str, Any]]) -> None:
    (raw / "SOURCES.json").write_text(json.dumps(sources, indent=1) + "\n")


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
    downloader = (
        _copy_from(Path(str(mirror))) if from_mirror else pooch.HTTPDownloader(progressbar=True)
    )
    try:
        pooch.retrieve(
            file.url,
            known_hash=file.sha256 and f"sha256:{file.sha256}",
            fname=target.name,
            path=target.parent,
            downloader=downloader,
        )
    except ValueError:
        raise IbmaError(
            f"{target}: sha256 of {file.url} is not {file.sha256}: the file changed or arrived "
            "broken, run again; if it persists, report it"
        ) from None
    except OSError as error:
        raise IbmaError(
            f"{target}: {file.url} cannot be fetched ({str(error).splitlines()[0]}): check the "
            "network, or set IBMA_MIRROR to a folder with a copy"
        ) from None
    if file.unpack:
        _unpack(target, raw)
    return {
        "url": file.url,
        "sha256": file.sha256,
        "bytes": target.stat().st_size,
        "served_by": "mirror" if from_mirror else "public",
    }


def _copy_from(mirror: Path) -> Callable[[str, str, object], None]:
    def copy(url: str, output: str, _: object) -> None:
        source = mirror / "github" / url.removeprefix(GITHUB)
        if not source.exists():
            raise IbmaError(f"{source}: not in the mirror (IBMA_MIRROR): unset it to use {url}")
        shutil.copyfile(source, output)

    return copy


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar below `folder`; refuse members that lead out of it, and links."""
    import tarfile
    import zipfile

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as package:
            for name in package.namelist():
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts:
                    raise IbmaError(f"{archive}: member '{name}' leads out of the folder: refused")
            package.extractall(folder)
        return
    try:
        with tarfile.open(archive) as package:
            package.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise IbmaError(f"{archive}: {error}: not unpacked, fetch it again") from None
