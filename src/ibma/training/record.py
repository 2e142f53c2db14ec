"""What one run leaves: `runs/<stage>/<task>/<method>/seed_<k>.json`.

The record on disk is the truth; tables, figures and MLflow are made from it. Everything outside
`provenance` is a pure function of what its key is made of.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NotRequired

from typing_extensions import TypedDict  # pydantic reads no other on Python 3.11

from ibma import paths
from ibma.errors import IbmaError
from ibma.files import AGAIN, read_bytes, seal, write_plain_json
from ibma.training import predictions

# The code that decides a record besides the method's own; dvc.yaml names the same.
SHARED_CODE = ("features/store.py", "network", "training")
PREDICTIONS = ".npz"  # ending of the file beside a record


class RunId(NamedTuple):
    """Which run this is; a study adds to the method what it changes, see `params.Variant`."""

    stage: str
    task: str
    method: str
    seed: int

    @property
    def record(self) -> Path:
        """Return the file of its record."""
        return paths.record(*self)

    @property
    def predictions(self) -> Path:
        """Return the file of what its network says of the test rows."""
        return self.record.with_suffix(PREDICTIONS)

    @property
    def weights(self) -> Path:
        """Return the file of its trained network."""
        return paths.weights(*self)

    def __str__(self) -> str:
        """Return the name that people read."""
        return f"{self.task} {self.method} seed {self.seed}"


class Environment(TypedDict):
    """What decides a run besides parameters, data and code.

    Device (cpu or cuda), instructions (portable or native) and threads decide rounding. Pretrained
    weights in a local folder are named by a digest of their files, modality -> sha256.
    """

    device: str
    instructions: str
    threads: int
    pretrained: NotRequired[Mapping[str, str]]


@dataclass(frozen=True)
class Record:
    """One finished run.

    Args:
        key: digest of what determines the record, see `training.cell.Cell.key`.
        source: twin or real.
        fold: test fold, None for a fixed split.
        params: the fields of `training.cell.Setting` and the method's own hyper-parameters.
        tuned: how lr and weight decay were chosen, and from which points (`Cell.rule`).
        metrics: fractions in [0, 1] but for `mae` and `corr`, or None where undefined.
        ib, ib_before: plug-in IB losses of the trained and of the untrained network, in nats. Of a
            twin there is no ib_before: no table reads it.
        history: loss term -> mean per epoch.
        regime: `<what>/<place>` -> at the start of each epoch; see `ibma.methods.ibma` (empty for
            methods without a bound of its frame).
        cost: parameters, those of them that are trained, and flops of predicting one sample.
        weights: sha256 of the trained network's safetensors file.
        environment: see `Environment`; part of the key.
        provenance: where, when and how fast the run was made; ignored when records are compared.
        confusion: see `Task.confusion`.
        predictions: digest of the file beside the record; empty in records older than these.
        digest: sha256 of all the rest, made when it is empty.
    """

    key: str
    profile: str
    stage: str
    task: str
    method: str
    seed: int
    source: str
    fold: int | None
    n_train: int
    n_test: int
    params: dict[str, Any]
    tuned: dict[str, Any]
    metrics: dict[str, float | None]
    ib: dict[str, float]
    ib_before: dict[str, float]
    history: dict[str, list[float]]
    regime: dict[str, list[float]]
    cost: dict[str, int]
    weights: str
    environment: Environment
    provenance: dict[str, Any]
    confusion: list[list[int]] = field(default_factory=list)
    predictions: str = ""
    digest: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", digest_of(asdict(self)))

    @property
    def id(self) -> RunId:
        """Return which run this is."""
        return RunId(self.stage, self.task, self.method, self.seed)

    def write(self, path: Path) -> None:
        """Write the record whole or not at all."""
        write_plain_json(path, asdict(self))


def read(path: Path, *, with_predictions: bool = True) -> Record:
    """Read a record.

    Args:
        with_predictions: check the predictions beside it, too.

    Raises:
        IbmaError: the file is no record, or its content or its predictions are not what its
            digests were made of.
    """
    try:
        content = json.loads(read_bytes(path))
        one = Record(**content)
    except (ValueError, TypeError, RecursionError) as error:
        raise IbmaError(f"{path}: not a record ({str(error)[:200]}): {AGAIN}") from None
    if content.get("digest") != digest_of(content):  # `one` has made an empty one anew
        raise IbmaError(f"{path}: changed since it was written, its digest does not fit: {AGAIN}")
    if with_predictions and one.predictions:
        predictions.read(path.with_suffix(PREDICTIONS), one.predictions)
    return one


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the sha256 of a record's content without its digest."""
    return key_of({name: value for name, value in content.items() if name != "digest"})


def key_of(ingredients: Mapping[str, Any]) -> str:
    """Return the sha256 of what determines something, given as JSON values."""
    return seal(ingredients)


@functools.cache
def code_digest(method_file: str, *more: str) -> str:
    """Return the sha256 of the code that trains a method: what all share, and its own.

    Args:
        more: files of the package that a run reads besides.
    """
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in code_files(method_file, *more):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def code_files(method_file: str, *more: str) -> list[Path]:
    """List the files of the package that `code_digest` reads."""
    from ibma import methods  # which needs torch

    package = Path(__file__).parents[1]
    own = [package / "methods" / name for name in methods.lineage(method_file)]
    shared = [package / name for name in (*SHARED_CODE, *more)]
    places = [*shared, *own, *(path.with_suffix(".py") for path in own)]
    found = [sorted(place.rglob("*.py")) if place.is_dir() else [place] for place in places]
    return [path for files in found for path in files if path.exists()]
