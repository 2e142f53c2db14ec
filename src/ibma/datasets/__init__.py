"""Define what a data set is; `<name>.py` in this folder is data set `<name>`.

A data set module defines `CARD`, `FILES` and `samples(raw, **options)`; nothing is registered.
`ibma check <name>` runs it on ten rows and reports what is wrong. It may also define:
- `ARCHIVES`: patterns of the archives below the raw folder, unpacked in this order;
- `PLACED`: patterns below the raw folder of what users place by hand, where some must find
  something before anything can be computed (sets by request: anything at all);
- `verify(raw)`: raises IbmaError when real files are not what their publisher lists;
- `CARDS`: target -> card, where the option `target` chooses what is to be predicted.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, cast

from numpy.typing import NDArray

from ibma.errors import IbmaError

Kind = Literal["classify", "multilabel", "sentiment", "one_class"]
ModalityKind = Literal["audio", "frames", "image", "text", "expression", "vector"]
TWIN_MARKER = "TWIN"  # a file of this name at the root of a raw folder marks generated data


@dataclass(frozen=True)
class Remote:
    """One file at a public address.

    Attributes:
        url: Where it is fetched from.
        sha256: Hex digest of its bytes, or "md5:<hex>" where the publisher lists no other. None:
            nobody published one, the loader verifies what is inside.
        path: Where it lies below `data/raw/<dataset>/`.
        mirrors: Addresses of the same bytes, tried in turn when the first does not answer.
    """

    url: str
    sha256: str | None
    path: str
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counts:
    """Sizes of the splits as somebody stated them (None: not stated; validation: or none)."""

    train: int | None
    test: int | None
    valid: int | None = None

    @property
    def all(self) -> int | None:
        """Return how many samples there are; None where not even one split is stated."""
        return sum(filter(None, (self.train, self.valid, self.test))) or None


@dataclass(frozen=True)
class Card:
    """Describe a data set: its task, licence and access, and its counts as published.

    Attributes:
        title: Its name as its authors write it.
        kind: What is learnt.
        classes: Names of the labels; the position is the label's index. For `multilabel` they name
            the columns, for `sentiment` the integer scores from most negative to most positive.
        modalities: Name -> kind.
        licence: Under which terms it may be used.
        access: Whether anybody may fetch it, its owner has to be asked, or a package holds it.
        official: Counts of the official release.
        cite: The publication.
        paper: Counts of the paper's Table 1. None: not in the paper.
        folds: Number of cross-validation folds that stand in for a fixed test split (run k tests on
            fold k mod folds). 0: the split is fixed.
        raw_gb: Size of the real raw files, archives and what is unpacked from them. None: nobody
            states it.
        how_to_get: What a user does to get it.
        notes: What a reader of results must know.
    """

    title: str
    kind: Kind
    classes: tuple[str, ...]
    modalities: Mapping[str, ModalityKind]
    licence: str
    access: Literal["open", "request", "builtin"]
    official: Counts
    cite: str
    paper: Counts | None = None
    folds: int = 0
    raw_gb: float | None = None
    how_to_get: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Excerpt:
    """A piece of a file: some seconds of a recording, or a rectangle of its pictures.

    Attributes:
        path: The file.
        start: Second at which it begins, None for the file's own start.
        end: Second at which it ends, None for the file's own end.
        box: Left, upper, right and lower edge, 0 to 1: shares of the upright picture's width and
            height.
    """

    path: Path
    start: float | None = None
    end: float | None = None
    box: tuple[float, float, float, float] | None = None


# What a modality of a sample may be. None: this sample lacks the modality, networks leave it out.
Part = Path | Excerpt | str | tuple[float, ...] | NDArray[Any] | None


@dataclass(frozen=True)
class Sample:
    """One example before its features are computed.

    `features/samples.py` refuses a sample that is not so, in one line that names it.

    Attributes:
        id: Text that no other sample has.
        split: "train", "valid" (or "val", "dev", "validation") or "test", in any case; with folds
            "fold0".."fold<k-1>". Rows for validation are neither trained on nor tested on.
        group: Speaker, patient, slice or dialogue. No fold may split it.
        label: An integer class index (classify), a tuple of 0 and 1 (multilabel), a score
            (sentiment), 0 normal or 1 anomalous (one_class).
        parts: Modality -> a file or an excerpt of one, a text, a vector, a picture as uint8
            [H, W, 3], or None. Every modality of the card is a key.
        dialogue: The conversation it is an utterance of, else empty. A dialogue's samples come in
            spoken order.
    """

    id: str
    split: str
    group: str
    label: int | float | tuple[int, ...]
    parts: Mapping[str, Part]
    dialogue: str = ""


@dataclass(frozen=True)
class Dropped:
    """A sample that a loader left out, and why; it lands in `dropped.csv`."""

    id: str
    reason: str


class Dataset(Protocol):
    """What a data set module defines."""

    CARD: Card
    FILES: tuple[Remote, ...]

    def samples(self, raw: Path, **options: object) -> Iterator[Sample | Dropped]:
        """Walk the raw layout in a fixed order."""
        ...


def card(dataset: Dataset, options: Mapping[str, Any]) -> Card:
    """Return the card under a task's options: a data set may have labels of several kinds.

    Without the option `target` it is `CARD`.

    Raises:
        IbmaError: A target that the data set does not have.
    """
    cards: Mapping[str, Card] = getattr(dataset, "CARDS", {})
    if not cards or "target" not in options:
        return dataset.CARD
    target = str(options["target"])
    if target not in cards:
        raise IbmaError(f"params.yaml: options: target '{target}': expected {' or '.join(cards)}")
    return cards[target]


def names() -> list[str]:
    """Return the names of all data sets, one per module of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Dataset:
    """Return the module of a data set.

    Raises:
        IbmaError: There is none of this name.
    """
    if name not in names():
        raise IbmaError(f"unknown data set '{name}': expected one of {', '.join(names())}")
    module: ModuleType = importlib.import_module(f"{__name__}.{name}")
    return cast(Dataset, module)
