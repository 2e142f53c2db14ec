"""Check samples where they enter extraction: one by one, and what is kept of them as a whole.

A data set is code that anybody may write. What it yields is checked here and nowhere else, so that
whatever reads features need not ask whether a label is a number or a split is one that it knows.
"""

from __future__ import annotations

import math
import re
import typing
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma.datasets import Card, Counts, Dropped, Kind, ModalityKind, Sample
from ibma.errors import IbmaError
from ibma.params import TAKEN

Entry = Sample | Dropped

# CHOICE: of a feature. Networks square it, and add up as many as a batch has: beyond 3.4e38 that is
# infinite, and a loss that is no number would be put down to the learning rate.
LARGEST = 1e15


def too_large(value: NDArray[Any]) -> str | None:
    """Say why an array is no feature; None if its numbers are finite and not beyond `LARGEST`."""
    if value.dtype.kind != "f" or (np.abs(value) <= LARGEST).all():
        return None
    return f"holds NaN or infinity, or a number beyond {LARGEST:g}"


SPLITS = {  # what publishers call a split, in any case -> what it is
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "validate", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


# what else of a card is used before any sample is seen
TYPES = {"classes": tuple, "modalities": Mapping, "official": Counts, "folds": int}


def check_card(card: object, where: str) -> None:
    """Refuse a card that features cannot be stored under.

    Args:
        where: what the card is of, for the error.

    Raises:
        IbmaError: It names what is wrong.
    """
    if not isinstance(card, Card):
        raise IbmaError(f"{where}: CARD is {type(card).__name__}: expected a datasets.Card")
    for name, wanted in TYPES.items():
        if not isinstance(value := getattr(card, name), wanted):
            raise IbmaError(f"{where}: CARD.{name} {short(value)}: expected {wanted.__name__}")
    if card.kind not in typing.get_args(Kind):
        listed = ", ".join(typing.get_args(Kind))
        raise IbmaError(f"{where}: CARD.kind '{card.kind}': expected one of {listed}")
    for modality, kind in card.modalities.items():
        if kind not in typing.get_args(ModalityKind):
            listed = ", ".join(typing.get_args(ModalityKind))
            raise IbmaError(
                f"{where}: CARD.modalities: '{modality}' is '{kind}': expected one of {listed}"
            )
        if not re.fullmatch(r"[A-Za-z]\w*", modality, re.ASCII) or modality in TAKEN:
            why = TAKEN.get(modality, "letters, digits and _")
            raise IbmaError(f"{where}: CARD.modalities: {modality!r}: expected another name: {why}")
    if len(set(card.classes)) != len(card.classes) or not all(
        isinstance(one, str) for one in card.classes
    ):
        raise IbmaError(f"{where}: CARD.classes {card.classes}: expected names, each once")
    if card.folds == 1 or card.folds < 0:
        raise IbmaError(f"{where}: CARD.folds {card.folds}: expected 0, or 2 or more")


def checked(entries: Iterable[Entry], card: Card, on_bad: str) -> Iterator[Entry]:
    """Yield entries whose samples are as `datasets.Sample` says.

    Args:
        entries: What a data set's `samples` yields.
        card: Its card.
        on_bad: Whether a label that is no finite number, and a sample without any modality, stop
            or are dropped.

    Raises:
        IbmaError: An entry is neither. A sample has no id or the id of another, no group, an
            unknown split, a label that its kind of task cannot have, or other modalities than the
            card; it names the sample.
    """
    splits: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, Dropped):
            yield entry
            continue
        if not isinstance(entry, Sample):
            raise IbmaError(f"samples yields {short(entry)}: expected a datasets.Sample or Dropped")
        _check_words(entry)
        sample = replace(entry, split=_split(entry, card))
        if sample.id in splits:
            where = f"in {splits[sample.id]} and in {sample.split}"
            raise _wrong(sample, f"this id is there twice, {where}", "an id for each sample")
        splits[sample.id] = sample.split
        if not isinstance(sample.parts, Mapping):
            raise _wrong(sample, f"parts {short(sample.parts)}", "modality -> what it is")
        if lacking := card.modalities.keys() ^ sample.parts.keys():
            raise _wrong(sample, f"modality '{min(lacking)}'", f"{', '.join(card.modalities)}")
        yield _usable(sample, card, on_bad)


def _wrong(sample: Sample, found: str, expected: str) -> IbmaError:
    name = sample.id if isinstance(sample.id, str) and sample.id.isprintable() else short(sample.id)
    return IbmaError(f"sample {name}: {found}: expected {expected}: correct the data")


def _check_words(sample: Sample) -> None:
    """Refuse what a line of index.csv cannot hold."""
    for name in ("id", "group", "dialogue"):
        word = getattr(sample, name)
        if not isinstance(word, str) or not word.isprintable() or not (word or name == "dialogue"):
            raise _wrong(sample, f"{name} {short(word)}", "text without line breaks")


def _split(sample: Sample, card: Card) -> str:
    """Return the one name of a sample's split: a fold, or train, valid or test."""
    known = {f"fold{fold}": f"fold{fold}" for fold in range(card.folds)} or SPLITS
    split = str(sample.split).strip().casefold()
    if not isinstance(sample.split, str) or split not in known:
        raise _wrong(
            sample, f"split {short(sample.split)}", ", ".join(dict.fromkeys(known.values()))
        )
    return known[split]


# --- labels --------------------------------------------------------------------------------------


def _usable(sample: Sample, card: Card, on_bad: str) -> Entry:
    """Return a sample whose label is right; drop it or stop if there is nothing to learn from."""
    values = sample.label if isinstance(sample.label, tuple) else (sample.label,)
    error = None
    if any(isinstance(value, Real) and not math.isfinite(value) for value in values):
        error = _wrong(sample, f"label {sample.label}", "a finite number")
    elif all(part is None for part in sample.parts.values()):
        error = _wrong(sample, "no modality is there", "one or more")
    if error and on_bad == "stop":
        raise error
    if error:
        return Dropped(sample.id, str(error))
    if expected := _expected(sample.label, card):
        raise _wrong(sample, f"label {short(sample.label)}", expected)
    return sample


def _expected(label: object, card: Card) -> str:
    """Return what a label should have been; empty if it is right."""
    count = len(card.classes)
    if card.kind == "multilabel":
        values = label if isinstance(label, tuple) else ()
        right = len(values) == count and all(_is_whole(value, 0, 1) for value in values)
        return "" if right else f"a tuple of {count} labels, each 0 or 1"
    if card.kind == "sentiment":
        bound = (count - 1) // 2
        right = isinstance(label, Real) and not isinstance(label, bool)
        right = right and abs(float(label)) <= bound  # type: ignore[arg-type]
        return "" if right else f"a number from {-bound} to {bound}"
    return "" if _is_whole(label, 0, count - 1) else f"a whole number from 0 to {count - 1}"


def _is_whole(value: object, low: int, high: int) -> bool:
    """Return whether a value is an integer in a range. True and 1.0 are none: both hide a slip."""
    return isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high


# --- all of them ---------------------------------------------------------------------------------


@dataclass
class Tally:
    """What is kept of a data set.

    Attributes:
        splits: Split -> number of samples.
        groups: Split -> its groups.
        labels: Split -> its labels, as index.csv holds them.
        there: Split -> the modalities that some of its samples have.
        absent: Modality -> number of samples that lack it.
        dropped: Number of samples that were dropped.
        reason: Why the first of these was.
    """

    splits: Counter[str] = field(default_factory=Counter)
    groups: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    labels: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    there: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    absent: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    reason: str = ""

    def keep(self, split: str, group: str, label: str, there: Iterable[str]) -> None:
        """Count a sample that is kept, and the modalities that it has."""
        self.splits[split] += 1
        self.groups[split].add(group)
        self.labels[split].add(label)
        self.there[split].update(there)

    def drop(self, reason: str) -> None:
        """Count a sample that is dropped."""
        self.reason = self.reason if self.dropped else reason
        self.dropped += 1

    @property
    def shared_groups(self) -> int:
        """Return how many groups are in train and in test."""
        return len(self.groups["train"] & self.groups["test"])

    def check(self, card: Card) -> None:
        """Refuse what no method can be trained on, or judged by.

        Raises:
            IbmaError: Nothing is kept, a split or fold is empty, a group is in two folds, or
                training samples have one label or one group, or lack a modality altogether.
        """
        if not self.splits:
            every = f"every sample was dropped, first reason: {self.reason}"
            raise IbmaError(every if self.dropped else "no usable sample: check the files")
        folds = [f"fold{fold}" for fold in range(card.folds)]
        for split in folds or ("train", "test"):
            if not self.splits[split]:
                counts = ", ".join(f"{n} {name}" for name, n in sorted(self.splits.items()))
                raise IbmaError(
                    f"no sample of split {split} is kept (but {counts}): check the split"
                )
        for fold in folds:
            for other in folds:
                if fold < other and (both := self.groups[fold] & self.groups[other]):
                    raise IbmaError(
                        f"group '{min(both)}' is in {fold} and {other}: folds keep groups whole"
                    )
            self._check_training([other for other in folds if other != fold], card)
        if not folds:
            self._check_training(["train"], card)

    def _check_training(self, splits: list[str], card: Card) -> None:
        labels = set().union(*(self.labels[split] for split in splits))
        groups = set().union(*(self.groups[split] for split in splits))
        if card.kind == "one_class":
            if labels != {"0"} or self.labels["test"] != {"0", "1"}:
                raise IbmaError(
                    f"labels {sorted(labels)} in train, {sorted(self.labels['test'])} in test: "
                    "expected normal samples (0) in train, and both kinds in test"
                )
        elif len(labels) < 2:
            raise IbmaError(f"every training sample has label {min(labels)}: expected two or more")
        elif len(groups) < 2:
            raise IbmaError(
                f"every training sample is of group '{min(groups)}': expected two or more, since "
                "tuning keeps groups whole"
            )
        there = set().union(*(self.there[split] for split in splits))
        if lacking := [name for name in card.modalities if name not in there]:
            raise IbmaError(f"no training sample has '{lacking[0]}': expected some: check the data")
