"""Read what stage `extract` says of a folder of features, without loading torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibma.errors import IbmaError
from ibma.files import read_json
from ibma.paths import META


def read(folder: Path) -> Mapping[str, Any]:
    """Return what a feature folder holds: kind of labels, classes, modalities, digests.

    Raises:
        IbmaError: The folder was never written, its file is damaged, or it says why there are no
            features.
    """
    if not (meta := read_json(folder / META, {})):
        raise IbmaError(f"{folder / META}: no features here: run `dvc repro extract@{folder.name}`")
    if "missing" in meta:
        raise IbmaError(f"{folder}: {meta['missing']}")
    found: Mapping[str, Any] = meta
    return found


def why_missing(folder: Path) -> str | None:
    """Return why a task has no data, as stage `extract` says; None where it has, or never ran."""
    why: str | None = read_json(folder / META, {}).get("missing")
    return why
