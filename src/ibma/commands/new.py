"""Write a complete and commented profile for your own table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ibma import params, paths
from ibma.commands import profiles
from ibma.errors import IbmaError, tidy
from ibma.files import write_bytes
from ibma.formats import tabular
from ibma.params import TableParams
from ibma.pretrained import SENTENCES
from ibma.tables import cells
from ibma.tables.reader import DROP, modality_name, split_name

RESERVED = ("list",)  # `ibma profile list` is another command
GAPS = ("", "na", "n/a", "nan", "none", "null", "<na>", "nat", "?")  # what writers put for nothing
MANY = 50  # classes; of more distinct labels somebody has to say that they are classes
ADVICE = "correct its first line, or the name that you give"
ROWS = 200_000  # that are read to find the labels
KINDS = {"classify": "  # one of several classes", "multilabel": "  # any of several labels"}
RESNET = (
    "{name: resnet, channels: 3, embedding_size: 16, hidden_sizes: [16, 32, 64], depths: [1, 1, 1]}"
)
BERT = "{name: bert, vocab_size: 2048, max_length: 64, hidden_size: 64, layers: 1, heads: 4}"
MLP = "{name: mlp, hidden: [128]}"


@dataclass(frozen=True)
class Modality:
    """One modality as the profile writes it; features and encoder are YAML."""

    name: str
    kind: str
    columns: tuple[str, ...]
    folder: str | None
    features: str
    encoder: str


@dataclass(frozen=True)
class Wanted:
    """What the command line says.

    Args:
        csv: the table.
        id, group, split: columns.
        label: one column, or several of 0 and 1.
        kind: empty to tell it from the labels.
        separator: between the labels of one cell.
        maps: `<what a cell of split says>=<train, valid, test or drop>`.
        image, audio, video: `<column>@<folder>`.
        text, numbers: columns.
    """

    csv: Path
    label: Sequence[str]
    id: str | None = None
    group: str | None = None
    split: str | None = None
    kind: str = ""
    separator: str | None = None
    maps: Sequence[str] = ()
    image: Sequence[str] = ()
    audio: Sequence[str] = ()
    video: Sequence[str] = ()
    text: Sequence[str] = ()
    numbers: Sequence[str] = ()


def write(name: str, wanted: Wanted, force: bool) -> str:
    """Write profiles/<name>.yaml and make it the present profile; return what to tell the user.

    Raises:
        IbmaError: no project here, a profile of this name, edits of params.yaml that would be lost,
            or options that do not fit the table; nothing is written then.
    """
    if not paths.PIPELINE.exists():
        raise IbmaError(f"{paths.PIPELINE}: not found: run `ibma init FOLDER`, then this in FOLDER")
    if not re.fullmatch(params.NAME, name) or name in RESERVED:
        raise IbmaError(f"'{name}': expected a name of letters, digits and _ for the profile")
    place = paths.PROFILES / f"{name}.yaml"
    if place.exists() and not force:
        raise IbmaError(f"{place} is there: take another name, or give --force to replace it")
    if not force:
        profiles.refuse_to_lose_edits()
    before = profiles.chosen()
    values = _values(wanted)
    text = _text(name, values)
    params.parse(YAML(typ="safe", pure=True).load(text), place)
    write_bytes(place, text.encode())
    profiles.choose(name, force=True)
    back = f"`ibma profile {before}` goes back" if before else "it had edits, which --force lost"
    if not before and not force:
        back = "`ibma profile list` shows the others"
    return (
        f"{place} is written, and {paths.PARAMS} is now profile {name} ({back})\n"
        f"{_left_out(values)}"
        f"next: `ibma check {name}`, then `dvc repro`"
    )


def _left_out(values: Mapping[str, Any]) -> str:
    """Return a line on labels that stand for nothing; empty if there are none."""
    if not values["gaps"]:
        return ""
    listed = ", ".join(f"'{text}'" for text in values["gaps"])
    return f"no class: {listed}: rows with it are dropped; add it to `classes` if it is one\n"


def _text(name: str, values: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = _yaml
    environment.filters["seen"] = tabular.seen
    template = environment.get_template("profile.yaml.jinja")
    pictures = [one.name for one in values["modalities"] if one.kind == "image"]
    gradcam = dict.fromkeys([name], pictures[0]) if pictures else {}
    return template.render(name=name, gradcam=gradcam, **values)


def _yaml(value: object) -> str:
    """Return a value as YAML in one line, with names in quotes: `no` and `null` are names, too.

    Raises:
        IbmaError: It holds a name of a file that is no UTF-8.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise IbmaError(f"{text!a}: no UTF-8, which a profile is: rename it") from None
    return tabular.seen(text)  # a YAML file may not hold all of the hidden ones


def _values(wanted: Wanted) -> dict[str, Any]:
    """Return what the template asks for, found in the table."""
    roles = (wanted.id, wanted.group, wanted.split)
    named = [
        *wanted.label,
        *wanted.text,
        *wanted.numbers,
        *(one for one in roles if one is not None),
    ]
    delimiter = cells.delimiter_of(wanted.csv, named=named)
    modalities = _modalities(wanted, cells.columns_of(wanted.csv, delimiter, named, ADVICE))
    files = [column for one in modalities for column in one.columns]
    cells.columns_of(wanted.csv, delimiter, files, ADVICE)
    rows = _rows(wanted, delimiter)
    splits = _splits(wanted, rows)
    texts = _labels(wanted, rows, splits)
    kind = wanted.kind or _kind(wanted, texts)
    one = kind != "sentiment" and len(wanted.label) == 1  # else columns name the labels
    distinct = _distinct(wanted, texts) if one else set()
    gaps = {text for text in distinct if text.casefold() in GAPS}
    return {
        "file": wanted.csv.as_posix(),
        "delimiter": delimiter,
        "id": wanted.id,
        "label": list(wanted.label),
        "kind": kind,
        "kind_comment": KINDS.get(kind, "  # a number"),
        "classes": _classes(wanted, distinct - gaps) if one else [],
        "gaps": sorted(gaps),
        "separator": wanted.separator,
        "range": _range(wanted, texts) if kind == "sentiment" else None,
        "group": wanted.group,
        "split": wanted.split,
        "splits": splits,
        "modalities": modalities,
    }


# --- modalities ----------------------------------------------------------------------------------


def _modalities(wanted: Wanted, columns: Sequence[str]) -> list[Modality]:
    """Return what the options ask for; columns are those of the table."""
    found = [
        _files(kind, each, columns)
        for kind in ("image", "audio", "video")
        for each in getattr(wanted, kind)
    ]
    found += [
        Modality(column, "text", (column,), None, *_reading("text")) for column in wanted.text
    ]
    if wanted.numbers:
        columns = tuple(dict.fromkeys(wanted.numbers))
        found.append(Modality("numbers", "numbers", columns, None, *_reading("numbers")))
    found = _named(found)
    if len(found) < 2:
        raise IbmaError(
            f"{len(found)} of --image, --audio, --video, --text and --numbers given: expected two "
            "modalities or more"
        )
    return found


def _named(found: Iterable[Modality]) -> list[Modality]:
    """Return modalities that are called by their column, each once and by a name of its own."""
    named: dict[str, Modality] = {}
    for one in dict.fromkeys(found):
        name = modality_name(one.name, {other.lower() for other in named})
        named[name] = replace(one, name=name)
    return list(named.values())


def _files(kind: str, given: str, columns: Sequence[str]) -> Modality:
    """Return a modality of files; of several @ the one counts that ends the name of a column."""
    places = [place for place, sign in enumerate(given) if sign == "@"]
    pairs = [(given[:place], given[place + 1 :]) for place in places]
    if not all(map(all, pairs)) or not pairs:
        raise IbmaError(f"--{kind} {given}: expected COLUMN@FOLDER, for example pic@pictures/")
    column, folder = next((pair for pair in pairs if pair[0] in columns), pairs[0])
    folder = folder.rstrip("/") or "/"
    return Modality(column, kind, (column,), folder, *_reading(kind))


def _reading(kind: str) -> tuple[str, str]:
    """Choose how a kind of modality becomes an array, and the network that reads it."""
    if kind == "text" and find_spec(SENTENCES):
        return f'{{max_length: 128, embedding: "package:{SENTENCES}"}}', MLP
    return {
        "image": ("{size: 64}", RESNET),
        "video": ("{frames: 3, size: 64}", RESNET),
        "audio": ("{spectrogram: logmel, n_mels: 64, hop: 512, statistics: true}", MLP),
        "text": ("{max_length: 64, vocab_size: 2048}", BERT),
        "numbers": ("{}", MLP),
    }[kind]


# --- rows ----------------------------------------------------------------------------------------


def _rows(wanted: Wanted, delimiter: str) -> list[dict[str, str]]:
    """Return the cells of the columns of labels and splits, of every row that can be read."""
    some = [*wanted.label, *([] if wanted.split is None else [wanted.split])]
    spec = TableParams.model_construct(id=None, delimiter=delimiter)
    entries = list(islice(cells.read(wanted.csv, spec, some), ROWS))
    if rows := [row for _, row in entries if isinstance(row, dict)]:
        return rows
    line, why = entries[0]
    raise IbmaError(f"{wanted.csv}: line {line}: {why}: no row can be read: {cells.ADVICE}")


def _splits(wanted: Wanted, rows: list[dict[str, str]]) -> dict[str, str]:
    """Return what --map says of the names of splits.

    Raises:
        IbmaError: It says two things of one, or something of a name that no row has.
    """
    found: dict[str, str] = {}
    for each in wanted.maps:
        said, equals, meant = each.rpartition("=")
        if not equals or meant not in ("train", "valid", "test", DROP):
            raise IbmaError(f"--map {each}: expected NAME=train, =valid, =test or ={DROP}")
        if wanted.split is None:
            raise IbmaError("--map: expected --split too, the column whose cells it explains")
        if (before := found.setdefault(split_name(said), meant)) != meant:
            raise IbmaError(f"--map {each}: another --map says ={before}: expected one of them")
    column = wanted.split
    there = {split_name(row[column]): row[column] for row in rows if column is not None}
    unknown = sorted(found.keys() - there.keys())
    if unknown and len(rows) < ROWS:  # else the name may be further down
        raise IbmaError(
            f"--map {unknown[0]}={found[unknown[0]]}: no cell of '{column}' says so: "
            f"expected one of {tabular.listed(sorted(map(tidy, there.values())))}"
        )
    return found


# --- labels --------------------------------------------------------------------------------------


def _labels(wanted: Wanted, rows: list[dict[str, str]], splits: dict[str, str]) -> list[list[str]]:
    """Return the cells of the label's columns of every row that is not left out."""
    return [
        [row[column] for column in wanted.label]
        for row in rows
        if wanted.split is None or splits.get(split_name(row[wanted.split])) != DROP
    ]


def _kind(wanted: Wanted, texts: list[list[str]]) -> str:
    if len(wanted.label) > 1 or wanted.separator:
        return "multilabel"
    distinct = _distinct(wanted, texts)
    values = [tabular.number(text) for text in distinct if text.casefold() not in GAPS]
    numbers = not any(map(math.isnan, values))
    if len(distinct) > MANY or (numbers and not all(value.is_integer() for value in values)):
        advice = "--kind sentiment learns a number, --kind classify classes"
        raise IbmaError(
            f"{wanted.csv}: {len(distinct)} distinct labels in '{wanted.label[0]}': "
            f"{advice if numbers else 'give --kind classify if each is a class'}"
        )
    return "classify"


def _distinct(wanted: Wanted, texts: list[list[str]]) -> set[str]:
    """Return the distinct labels of the one column that holds them."""
    split = (row[0].split(wanted.separator) if wanted.separator else [row[0]] for row in texts)
    return {name for row in split for text in row if (name := tidy(text))}


def _classes(wanted: Wanted, distinct: set[str]) -> list[str]:
    """Return the classes, numbers in their order."""
    if len(distinct) < 2:
        raise IbmaError(
            f"{wanted.csv}: '{wanted.label[0]}' holds {', '.join(distinct) or 'nothing'}: expected "
            "two labels or more"
        )
    return sorted(distinct, key=_by_number)


def _by_number(text: str) -> tuple[bool, float, str]:
    value = tabular.number(text)
    return (True, 0.0, text) if math.isnan(value) else (False, value, text)


def _range(wanted: Wanted, texts: list[list[str]]) -> list[float]:
    values = [value for row in texts if math.isfinite(value := tabular.number(row[0]))]
    if not values or min(values) == max(values):
        raise IbmaError(f"{wanted.csv}: '{wanted.label[0]}': expected numbers that differ")
    return [min(values), max(values)]
