"""Check the content of evidence files before use, because someone else may have made them.

Checksums show that evidence is unchanged, not that its content is valid. Keys that are not named
here are allowed, because no report reads them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from ibma import paths
from ibma.errors import IbmaError
from ibma.training.record import Record

AGAIN = "`git checkout` the evidence, or run `ibma archive` where the records are"

Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Whole = Annotated[int, Field(strict=True, ge=0)]
Metrics = dict[str, Finite | None]


class Modality(TypedDict):
    """A modality of `Meta`."""

    kind: str
    shape: list[int]
    dtype: str


class Meta(TypedDict):
    """What stage `extract` says of features."""

    digest: NotRequired[str]
    kind: NotRequired[Literal["classify", "multilabel", "one_class", "sentiment"]]
    classes: list[str]
    folds: Whole
    source: str
    counts: dict[str, Whole]
    dropped: Whole
    modalities: NotRequired[dict[str, Modality]]


class Absent(TypedDict):
    """What stage `extract` says of a task without data."""

    missing: str


class Chosen(TypedDict):
    """A setting that stage `tune` chose, or one of a fold."""

    run_fold: int | None
    lr: Finite
    weight_decay: Finite
    eta: Finite | None
    weight_factor: Finite
    score: Finite | None


class Scored(Chosen):
    """A setting on a fold."""

    fold: int
    score: Finite  # type: ignore[misc]  # of what was tried there is one


class Choice(TypedDict):
    """What stage `tune` writes for a method."""

    metric: str | None
    choices: list[Chosen]
    scores: list[Scored]


class Fold(TypedDict):
    """A test fold of `Line`: metrics of logistic regression and of the majority class."""

    fold: int | None
    metrics: Metrics
    majority: Metrics


class Line(TypedDict):
    """What stage `logistic` writes."""

    missing: str | None
    runs: list[Fold]


class Seconds(TypedDict):
    """A method of `Timing`."""

    median: Finite
    low: Finite
    high: Finite


class Timing(TypedDict, total=False):
    """What stage `timing` writes; nothing where its task has no data."""

    task: str
    source: str
    device: str
    methods: dict[str, Seconds]


class Probed(TypedDict):
    """A row of stage `probe`."""

    method: str
    seed: int
    modality: str
    metrics: Metrics


@with_config(ConfigDict(extra="allow"))
class Hparams(TypedDict):
    """The setting of a run; beside it stand the method's own hyper-parameters."""

    lr: Finite
    weight_decay: Finite
    eta: NotRequired[Finite | None]
    weight_factor: NotRequired[Finite]


class Rule(TypedDict):
    """How the setting of a run was chosen."""

    points: list[list[Finite]]
    folds: Whole
    epochs: Whole
    by: str | None


@with_config(ConfigDict(extra="allow"))
class Provenance(TypedDict):
    """Where and how fast a run was made."""

    device: NotRequired[str]
    git_commit: NotRequired[str | None]
    seconds_per_epoch: NotRequired[list[Finite]]


class Parts(TypedDict):
    """What `ibma.training.record.Record` leaves open of itself."""

    params: Hparams
    tuned: Rule
    provenance: Provenance


SHAPES: dict[Path, Any] = {
    paths.FEATURES: Meta,
    paths.TUNING: Choice,
    paths.LOGISTIC: Line,
    paths.TIMING: Timing,
    paths.PROBE: list[Probed],
}


def check(name: Path, value: object, where: str) -> None:
    """Refuse the content of a file that is not as its stage writes it.

    Args:
        name: the file's place in a project.
        where: the file, as errors name it.

    Raises:
        IbmaError: it names the key.
    """
    shape = next(shape for place, shape in SHAPES.items() if place in (name, *name.parents))
    if shape is Meta and isinstance(value, dict) and "missing" in value:
        shape = Absent
    with _refusing(where):
        _adapter(shape).validate_python(value)


def check_run(line: bytes, where: str) -> None:
    """Refuse a record that is not as training writes it.

    Raises:
        IbmaError: it names the key.
    """
    with _refusing(where):
        run = _adapter(Record).validate_json(line, strict=True)
        _adapter(Parts).validate_python(vars(run))


@functools.cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as caught:
        error = caught.errors(include_url=False)[0]
        key = ".".join(map(str, error["loc"])) or "the whole"
        raise IbmaError(f"{where}: {key[:100]}: {error['msg']}: {AGAIN}") from None
