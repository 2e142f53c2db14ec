"""What one seed of one cell leaves behind: `runs/<task>/<method>/seed_<k>.json`.

The record on disk is the truth; tables, figures and MLflow are made from it. Everything outside
`volatile` is a pure function of `key`'s ingredients on one kind of machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ibma.errors import IbmaError
from ibma.files import write_json

# What decides a record besides the method's own file; dvc.yaml names the same files.
SHARED_CODE = ("features/store.py", "network", "training")


@dataclass(frozen=True)
class Record:
    """One finished run.

    Metrics are fractions in [0, 1]. ib, ib_before: plug-in IB losses of the trained and of the
    untrained network, in nats.
    """

    key: str
    profile: str
    task: str
    method: str
    seed: int
    source: str
    fold: int | None
    n_train: int
    n_test: int
    params: dict[str, Any]
    metrics: dict[str, float | None]
    ib: dict[str, float]
    ib_before: dict[str, float]
    history: dict[str, list[float]]
    volatile: dict[str, Any]

    def write(self, folder: Path) -> Path:
        """Write atomically below `folder` (= runs/<task>/<method>)."""
        path = folder / f"seed_{self.seed}.json"
        write_json(path, asdict(self))
        return path


def read(path: Path) -> Record:
    """Read a record. Raises IbmaError when the file is not one."""
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise IbmaError(f"{path}: not a record ({error}): delete it and run `dvc repro`") from None


def finished(folder: Path, seed: int, key: str) -> bool:
    """Whether `folder` already holds the record of that seed under that key."""
    path = folder / f"seed_{seed}.json"
    return path.exists() and read(path).key == key


def key_of(ingredients: Mapping[str, Any]) -> str:
    """sha256 of everything that determines a record."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def code_digest(method_file: str) -> str:
    """sha256 of the shared training code and of `methods/<method_file>.py`."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for name in (*SHARED_CODE, f"methods/{method_file}.py"):
        digest.update((package / name).read_bytes())
    return digest.hexdigest()
