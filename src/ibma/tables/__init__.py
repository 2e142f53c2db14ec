"""Read data sets that are tables of your own: block `tables` of params.yaml, no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from ibma import datasets, paths
from ibma.datasets import Dataset
from ibma.errors import IbmaError
from ibma.features import meta
from ibma.formats import checksums
from ibma.params import Params
from ibma.tables.reader import TableData


def dataset(params: Params, name: str) -> Dataset:
    """Return a data set: the table of this name, else the module.

    Raises:
        IbmaError: There is neither.
    """
    if name in params.tables:
        return cast(Dataset, TableData(name, params.tables[name]))
    return datasets.load(name)


def source(params: Params, name: str) -> str:
    """Return whether a data set is generated (twin) or real."""
    return "real" if name in params.tables else params.datasets[name].source


def raw(params: Params, name: str) -> Path:
    """Return where a data set's raw files lie: the table's file, else the folder."""
    if name in params.tables:
        return TableData(name, params.tables[name]).path
    return paths.RAW / name


def reading(params: Params, task: str) -> dict[str, Any]:
    """Return how rows of a task's table become features, as plain JSON; nothing of other data."""
    entry = params.task(task)
    if entry.dataset not in params.tables:
        return {}
    table = params.tables[entry.dataset].as_dict()
    return {"table": table, "features": entry.extraction()["features"]}


def reads_alike(params: Params, task: str, root: Path = Path()) -> bool:
    """Return whether new rows are read as those were that a task's features are made of."""
    stored = meta.read(root / paths.FEATURES / task)
    return bool(stored.get("read", {}) == reading(params, task))


def listing(params: Params, name: str) -> dict[str, Any]:
    """Return the manifest of a table.

    Raises:
        IbmaError: params.yaml has no such table, or its file is missing or no such table.
    """
    if name not in params.tables:
        listed = ", ".join(params.tables) or "none"
        raise IbmaError(f"params.yaml: no table '{name}': expected one of {listed}")
    code = sorted(Path(__file__).parent.glob("*.py"))
    return TableData(name, params.tables[name]).manifest(
        " ".join(checksums.sha256(file) for file in code)
    )
