"""Report what a data set holds, and what is wrong with it, before anything is trained."""

from __future__ import annotations

import hashlib
import inspect
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from ibma import datasets, params, paths, tables
from ibma.commands import profiles
from ibma.datasets import Card, Dropped, Excerpt, Part, Sample
from ibma.errors import IbmaError, progress_bar
from ibma.features import media
from ibma.features.extract import samples
from ibma.features.samples import Tally, check_card, checked
from ibma.formats import checksums, tabular
from ibma.formats.raw import Unreadable
from ibma.params import Params, TableParams, TaskParams

SHOWN = 10  # of what may be many
ROWS = 10  # of a data set in Python that are tried
PROBES: Mapping[str, Mapping[str, Any]] = {  # cheapest features that decode a whole file
    "image": {"size": 8},
    "frames": {"frames": 1, "size": 8},
    "audio": {"n_mels": 8, "statistics": True},
}


def text(name: str) -> str:
    """Check the data set of a profile, or one in Python; return what was found.

    Raises:
        IbmaError: there is no such data set, or it is so wrong that no row of it can be used.
    """
    profile = _profile(name)
    report = _table(profile, name) if name in profile.tables else _module(profile, name)
    return "\n".join(map(tabular.seen, report.split("\n")))


def _profile(name: str) -> Params:
    """Return the profile that has a data set: the present one, else that of this name."""
    if paths.PARAMS.exists():
        present = params.load(paths.PARAMS)
        if name in present.tables or name in present.datasets:
            return present
    if name in profiles.names():
        return params.load(profiles.find(name))
    raise IbmaError(
        f"'{name}': neither a data set of {paths.PARAMS} nor a profile: `ibma profile list` shows "
        "profiles"
    )


def _task(profile: Params, name: str) -> tuple[str, TaskParams]:
    """Return the first task that is made of a data set."""
    for task, entry in profile.tasks.items():
        if entry.dataset == name:
            return task, entry
    raise IbmaError(f"{paths.PARAMS}: no task is made of '{name}': add one under tasks")


# --- a table -------------------------------------------------------------------------------------


@dataclass
class Found:
    """What the rows of a data set are.

    Args:
        splits: split -> class -> samples.
        groups: group -> its splits.
        absent: modality -> samples without it.
        contents: digest of all that a sample is predicted from -> id and split of those.
        files: modality and digest of a file -> id and split of the samples that have it.
        spans: modality and place of a column of numbers -> how far they spread.
        dropped: rows that are no samples.
        tally: what extraction will ask of the whole.
    """

    splits: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    groups: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    absent: Counter[str] = field(default_factory=Counter)
    contents: defaultdict[str, list[tuple[str, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    files: defaultdict[tuple[str, str], list[tuple[str, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    spans: defaultdict[tuple[str, int], media.Span] = field(
        default_factory=lambda: defaultdict(media.Span)
    )
    dropped: list[Dropped] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def add(self, entry: Sample | Dropped, card: Card) -> None:
        """Count an entry; a sample whose files cannot be read is dropped."""
        if isinstance(entry, Sample) and (why := unreadable(entry, card)):
            entry = Dropped(entry.id, why)
        if isinstance(entry, Dropped):
            self.dropped.append(entry)
            self.tally.drop(entry.reason)
            return
        there = (name for name, part in entry.parts.items() if part is not None)
        self.tally.keep(entry.split, entry.group, str(entry.label), there)
        self.splits[entry.split].update(_classes(entry, card))
        self.groups[entry.group].add(entry.split)
        self.absent.update(name for name, part in entry.parts.items() if part is None)
        for name, part in entry.parts.items():
            for place, value in enumerate(part if isinstance(part, tuple) else ()):
                self.spans[name, place] = self.spans[name, place].including(value)
        whole = hashlib.sha256()
        for name, part in sorted(entry.parts.items()):
            content = checksums.sha256(part) if isinstance(part, Path) else repr(part)
            whole.update(f"{name}\0{content}\0".encode())
            if isinstance(part, Path):
                self.files[name, content].append((entry.id, entry.split))
        self.contents[whole.hexdigest()].append((entry.id, entry.split))


def unreadable(sample: Sample, card: Card) -> str:
    """Return why a file of a sample cannot be decoded; empty if all can."""
    try:
        for name, part in sample.parts.items():
            if isinstance(part, Path | Excerpt):
                media.compute(card.modalities[name], part, PROBES[card.modalities[name]])
    except Unreadable as error:
        return str(error)
    return ""


def _table(profile: Params, name: str) -> str:
    task, entry = _task(profile, name)
    dataset, path = tables.dataset(profile, name), tables.raw(profile, name)
    card, found = dataset.CARD, Found()
    extraction = entry.extraction() | {"on_bad": "drop"}
    walked = checked(samples(dataset, path, task, extraction), card, "drop")
    for one in progress_bar(walked, desc=f"check {name}", unit="row", delay=1.0):
        found.add(one, card)
    stops = [] if entry.on_bad == "drop" or not found.dropped else ["on_bad: stop: this would stop"]
    spec = profile.tables[name]
    groups = _alike(found.groups) if spec.group else [[row] for row in found.groups]
    return "\n".join(
        [
            f"{path}: {found.tally.splits.total()} samples, {len(found.dropped)} rows dropped",
            f"label: {', '.join(spec.label)} ({spec.kind}); group: {spec.group or 'each row'}",
            *(f"{n}: {m.kind}, {', '.join(m.columns)}" for n, m in spec.modalities.items()),
            "",
            _counts(found, card),
            "",
            _missing(found, card),
            _shared(found, card, groups),
            *_duplicates(found),
            *_dropped(found),
            *stops,
            *_spelt(groups, "groups"),
            *_problems(found, card),
            *_merged(found, spec),
        ]
    )


def _classes(sample: Sample, card: Card) -> list[str]:
    """Return the classes that a sample counts for."""
    if isinstance(sample.label, tuple):
        return [card.classes[place] for place, value in enumerate(sample.label) if value]
    if card.kind == "sentiment":
        return [card.classes[round(sample.label) + len(card.classes) // 2]]
    return [card.classes[int(sample.label)]]


def _counts(found: Found, card: Card) -> str:
    from tabulate import tabulate

    rows = [
        {"split": split, "samples": found.tally.splits[split]}
        | {name: counts[name] for name in card.classes}
        for split, counts in sorted(found.splits.items(), key=lambda each: _order(each[0]))
    ]
    return str(tabulate(rows, "keys"))


def _order(split: str) -> tuple[int, str]:
    known = ("train", "valid", "test")
    return (known.index(split) if split in known else len(known), split)


def _missing(found: Found, card: Card) -> str:
    counts = ", ".join(f"{name} of {found.absent[name]} samples" for name in card.modalities)
    return f"missing parts, which networks leave out: {counts}"


def _shared(found: Found, card: Card, groups: list[list[str]]) -> str:
    """Say which groups are trained on and tested; each is given by all its spellings."""
    splits = {
        " or ".join(names): set().union(*(found.groups[name] for name in names)) for names in groups
    }
    both = [
        group
        for group, there in splits.items()
        if (len(there) > 1 if card.folds else {"train", "test"} <= there)
    ]
    shown = f": {', '.join(both[:SHOWN])}" if both else ""
    return f"groups on both sides of train and test: {len(both)} of {len(splits)}{shown}"


def _duplicates(found: Found) -> Iterator[str]:
    same = [known for known in found.contents.values() if len(known) > 1]
    across = list(filter(_is_across, same))
    yield f"samples of equal content: {len(same)} sets, {len(across)} of them in several splits"
    yield from (f"  {_named(known)}" for known in across[:SHOWN])
    files = {
        f"  {name}: {_named(known)}"
        for (name, _), known in found.files.items()
        if _is_across(known) and known not in across
    }
    if files:
        yield f"files of equal content in several splits, beside those: {len(files)} sets"
        yield from sorted(files)[:SHOWN]


def _is_across(known: Sequence[tuple[str, str]]) -> bool:
    return len({split for _, split in known}) > 1


def _named(known: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({split})" for name, split in known[:SHOWN])


def _dropped(found: Found) -> Iterator[str]:
    yield f"dropped: {len(found.dropped)} rows"
    yield from (f"  {one.id}: {one.reason}" for one in found.dropped[:SHOWN])
    if len(found.dropped) > SHOWN:
        yield f"  and {len(found.dropped) - SHOWN} more: {paths.FEATURES}/<task>/dropped.csv"


def _problems(found: Found, card: Card) -> Iterator[str]:
    """Yield what would stop the pipeline, or spoil what it says."""
    try:
        found.tally.check(card)
    except IbmaError as error:
        yield f"PROBLEM: {error}"
    yield from _spelt(_alike(card.classes), "classes")
    lost = [name for name in card.classes if _is_lost(found, card, name)]
    if lost and card.kind != "sentiment":  # a score is learnt from its neighbours, too
        where = "one fold alone" if card.folds else "test and not in train"
        yield f"PROBLEM: classes in {where}, which nothing can learn: {', '.join(lost[:SHOWN])}"
    for name in card.modalities:
        if found.splits and found.absent[name] == found.tally.splits.total():
            yield f"PROBLEM: no sample has '{name}'"


def _merged(found: Found, spec: TableParams) -> Iterator[str]:
    for (name, place), span in found.spans.items():
        if why := span.merged():
            yield f"PROBLEM: column '{spec.modalities[name].columns[place]}': {why}"


def _is_lost(found: Found, card: Card, name: str) -> bool:
    """Return whether a class is tested and never trained on, in some run or in all."""
    splits = {split for split, counts in found.splits.items() if counts[name]}
    return len(splits) == 1 if card.folds else "test" in splits and "train" not in splits


def _spelt(alike: list[list[str]], kind: str) -> Iterator[str]:
    """Yield the names that say the same and are read as several."""
    several = [names for names in alike if len(names) > 1]
    for each in several[:SHOWN]:
        shown = ", ".join(map(ascii, each))
        yield f"PROBLEM: {kind} that differ in spelling alone: {shown}: write one of them"
    if len(several) > SHOWN:
        yield f"PROBLEM: {kind} that differ in spelling alone: {len(several) - SHOWN} more"


def _alike(names: Iterable[str]) -> list[list[str]]:
    """Return names in sets of those that say the same."""
    alike = defaultdict(list)
    for name in names:
        alike[_plain(name)].append(name)
    return list(alike.values())


def _plain(name: str) -> str | Decimal:
    """Return a name as what it says: in small letters, a number by its value."""
    if math.isfinite(tabular.number(name)):
        return Decimal(name)  # a float would make one of long numbers, and two of 0 and -0
    folded = unicodedata.normalize("NFKC", name).casefold()
    visible = "".join(filter(str.isprintable, folded))
    return re.sub(r"(?<!\d) | (?!\d)", "", visible)  # 1 23 is not 12 3


# --- a data set in Python ------------------------------------------------------------------------


def _module(profile: Params, name: str) -> str:
    """Run a data set module on its first rows; name what is not as `datasets` says."""
    module = datasets.load(name)
    for attribute in ("CARD", "FILES", "samples"):
        if not hasattr(module, attribute):
            raise IbmaError(f"{_where(module)}: no {attribute}: see docs/own-data.md, the contract")
    check_card(module.CARD, _where(module))
    _check_arguments(module.samples, _where(module))
    task, entry = _task(profile, name)
    extraction = entry.extraction()
    card = datasets.card(module, extraction["options"])
    raw = tables.raw(profile, name)
    lines = [f"{_where(module)}: {card.title}, {card.kind}, {len(card.classes)} classes"]
    walked = checked(samples(module, raw, task, extraction), card, extraction["on_bad"])
    for one in islice(walked, ROWS):
        lines.append(_row(one, card, extraction["features"]))
    if len(lines) == 1:
        raise IbmaError(f"{_where(module)}: samples yields nothing from {raw}: is its data there?")
    return "\n".join([*lines, f"{len(lines) - 1} rows are as they should be"])


def _where(module: object) -> str:
    return str(getattr(module, "__file__", module))


def _check_arguments(function: Any, where: str) -> None:
    """Refuse a `samples` that takes other arguments than raw, and options by name with defaults."""
    first, *others = inspect.signature(function).parameters.values()
    for one in others:
        if one.kind is not one.KEYWORD_ONLY or one.default is one.empty:
            raise IbmaError(
                f"{where}: samples: argument '{one.name}': expected samples(raw, *, "
                "on_bad='stop', ...): options by name, each with a default"
            )
    if first.name != "raw" or "on_bad" not in {one.name for one in others}:
        raise IbmaError(f"{where}: samples: expected samples(raw, *, on_bad='stop', ...)")


def _row(entry: Sample | Dropped, card: Card, features: Mapping[str, Any]) -> str:
    if isinstance(entry, Dropped):
        return f"{entry.id}: dropped: {entry.reason}"
    shapes = [
        f"{name} {_shape(entry, name, kind, features.get(name) or {})}"
        for name, kind in card.modalities.items()
    ]
    head = f"{entry.id}: {entry.split}, group {entry.group}, label {entry.label}"
    return f"{head}: {'; '.join(shapes)}"


def _shape(sample: Sample, name: str, kind: str, feature: Mapping[str, Any]) -> str:
    part: Part = sample.parts[name]
    if part is None:
        return "is missing"
    try:
        made = media.compute(kind, part, feature)
    except Unreadable as error:
        raise IbmaError(f"sample {sample.id}: '{name}': {error}") from None
    return f"{made.dtype} {list(made.shape)}"
