"""Check the content of evidence files before use, because someone else may have made them.

Checksums show that evidence is unchanged, not that its content is valid. Keys that are not named
here are allowed, because no report reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ibma import paths
from ibma.errors import IbmaError

Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Metrics = dict[str, Finite | None]


class Modality(TypedDict):
    """A modality of `Meta`."""

    kind: str
    shape: list[int]
    dtype: str


class Meta(TypedDict, total=False):
    """What stage `extract` says of features, or why there are none."""

    missing: str
    digest: str
    kind: str
    classes: list[str]
    folds: int
    source: str
    counts: dict[str, int]
    dropped: int
    modalities: dict[str, Modality]


class Chosen(TypedDict):
    """A setting that stage `tune` chose, or one of a fold."""

    run_fold: int | None
    lr: Finite
    weight_decay: Finite
    eta: Finite | None
    weight_factor: Finite
    score: Finite | None


class Tried(Chosen):
    """A setting on a fold."""

    fold: int


class Choice(TypedDict):
    """What stage `tune` writes for a method."""

    metric: str | None
    choices: list[Chosen]
    scores: list[Tried]


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
    try:
        TypeAdapter(shape).validate_python(value)
    except ValidationError as caught:
        error = caught.errors(include_url=False)[0]
        key = ".".join(map(str, error["loc"])) or "the whole"
        raise IbmaError(f"{where}: {key[:100]}: {error['msg']}") from None
