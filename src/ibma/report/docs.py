"""Write the pages of docs/ that `ibma docs` makes from docstrings, cards and tables."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tabulate import tabulate

from ibma import datasets, methods, paths, twins
from ibma.datasets import Card, Counts
from ibma.errors import one_line
from ibma.files import write_bytes
from ibma.methods import ibma
from ibma.report import licences, parameters, results_page

FIELDS = ("Citation", "Official code", "Code over paper", "Choices", "Parity")
METHODS, DATASETS = Path("docs/methods.md"), Path("docs/datasets.md")
ENCODERS = (  # what the paper cites, and what is run instead if it cannot be fetched by name
    "- **Words of films** (MELD, IEMOCAP, CMU-MOSI): the paper cites RoBERTa for its BERT-based "
    "encoder. Run: `FacebookAI/roberta-base`, MIT licence.",
    "- **Radiology reports**: the paper cites ClinicalBERT of Huang et al. 2019. Its authors "
    "share it through a link to a file host and state no licence "
    "(kexinhuang12345/clinicalBERT@06d01c6), so it cannot be fetched by name. Run instead: "
    "`emilyalsentzer/Bio_ClinicalBERT`, MIT licence, BERT trained further on the same notes "
    "(MIMIC-III). If you have the authors' folder, rename its `bert_config.json` to `config.json` "
    "and give the folder's path as `pretrained` and `tokenizer`.",
    "- **Radiographs**: the paper cites the ViT-B of Xiao et al. 2023, and the released code loads "
    "its masked autoencoder. That checkpoint (lambert-x/medical_mae) is in the layout of another "
    "library, which the encoder here cannot read. Run instead: "
    "`google/vit-base-patch16-224-in21k`, Apache 2.0, the same network trained on ImageNet-21k.",
    "- **Sound, faces, tissue**: ResNet-18 from random weights and an MLP, as the paper says; it "
    "names no weights. Ours for tissue: patches of 32 pixels resized to 64, and a hidden layer of "
    "1,024 for the genes.",
    "- **Head of the one-class task**: 32 outputs, as a network of Ruff et al. 2018 has. The paper "
    "does not say how wide its own is.",
    "",
    "### What the paper leaves open",
    "",
    "- **Batch size**: 64 everywhere.",
    "- **Length of sound**: the first 3 seconds, as OGM-GE has it for CREMA-D, for MELD, IEMOCAP "
    "and CMU-MOSI too.",
    "- **Length of texts**: 96 tokens for MELD and IEMOCAP, 50 for CMU-MOSI, 256 for radiology "
    "reports.",
)
COLUMNS = ("Data set", "Modalities", "Paper (Table 1)", "Official release", "Access", "Twin")
PLAIN: dict[str, Any] = {"tablefmt": "github", "disable_numparse": True}
ACCESS = {"open": "open", "request": "by request", "builtin": "comes with a package"}


def write() -> tuple[Path, ...]:
    """Write the pages and return their paths."""
    METHODS.parent.mkdir(exist_ok=True)
    pages = {METHODS: methods_page(), DATASETS: datasets_page(), parameters.PATH: parameters.page()}
    if (paths.REPORTS / results_page.PROFILE).exists():
        pages[results_page.PATH] = results_page.committed(Path())
    if licences.PINS.exists():
        pages[licences.PAGE] = licences.page(licences.PINS)
    for path, text in pages.items():
        write_bytes(path, text.encode())
    return tuple(pages)


def datasets_page() -> str:
    """Write a table of all data sets, the paper's first, and a section for each."""
    cards = {name: datasets.load(name).CARD for name in datasets.names()}
    names = sorted(cards, key=lambda name: (cards[name].paper is None, name))
    lines = [
        "# Data sets",
        "",
        "Generated from the cards in `src/ibma/datasets/` by `ibma docs`. Counts are training / "
        "test; a dash means that no source states the number.",
        "",
        tabulate([_dataset_row(name, cards[name]) for name in names], COLUMNS, **PLAIN),
    ]
    for name in names:
        lines += ["", f"## {cards[name].title} (`{name}`)", "", *_dataset_lines(name, cards[name])]
    return "\n".join(lines) + "\n"


def _dataset_row(name: str, card: Card) -> tuple[str, ...]:
    counts = (_counts(card.paper), _counts(card.official))
    modalities = ", ".join(card.modalities)
    title = f"[{card.title}](#{_anchor(f'{card.title} ({name})')})"
    return (title, modalities, *counts, ACCESS[card.access], "yes" if twins.exists(name) else "no")


def _dataset_lines(name: str, card: Card) -> list[str]:
    """Say what a reader must know of one data set."""
    described = one_line(datasets.load(name).__doc__ or "")
    split = f"{card.folds} folds, run k tests on fold k mod {card.folds}"
    lines = [
        described,
        "",
        f"- **Task**: {card.kind}; {', '.join(card.classes)}.",
        f"- **Split**: {split if card.folds else 'fixed'}.",
        f"- **Options**: {_keywords(datasets.load(name).samples) or 'none'}.",
        f"- **Licence**: {card.licence}.",
        f"- **How to get it**: {card.how_to_get or 'nothing to do'}.",
        f"- **Citation**: {card.cite}",
        *(f"- {note}" for note in card.notes),
    ]
    if twins.exists(name):
        twin = inspect.getdoc(importlib.import_module(f"ibma.twins.{name}")) or ""
        lines += ["", f"**Its twin.** {one_line(twin)}"]
    return lines


def _counts(counts: Counts | None) -> str:
    if counts is None:
        return "not in it"
    return " / ".join("-" if n is None else f"{n:,}" for n in (counts.train, counts.test))


def _anchor(heading: str) -> str:
    """Return GitHub's anchor of a heading: letters, digits, `_` and `-`, hyphens for blanks."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


def methods_page() -> str:
    """Write a section for each method file, and one for each bound of IBMA."""
    names = methods.names()
    lines = [
        "# Methods",
        "",
        "Generated from the docstrings by `ibma docs`. Parity names the stored values of the "
        "authors' code in `tests/golden/` that a test compares with ours.",
        "",
        *(f"- [{_title(name)}](#{_anchor(f'{_title(name)} ({name})')})" for name in names),
        "- [Encoders of profile `paper`](#encoders-of-profile-paper)",
        "- [Bounds in IBMA's place](#bounds-in-ibmas-place)",
    ]
    for name in names:
        found = fields(_module(name).__doc__ or "")
        lines += ["", f"## {_title(name)} (`{name}`)", ""]
        lines += [f"- **{field}**: {found[field]}" for field in FIELDS]
        lines += [f"- **Hyper-parameters**: {_keywords(*_model_starts(name)) or 'none'}."]
        lines += [f"- **Tuned beside lr and weight decay**: {_tuned(name)}."]
    lines += ["", "## Encoders of profile `paper`", "", *ENCODERS]
    lines += [
        "",
        "## Bounds in IBMA's place",
        "",
        "An entry of `params.yaml` names its bound under `bound:` and the bound's parameters "
        "beside it.",
    ]
    for name in ibma.bound_names():
        lines += ["", f"### `{name}`", "", *_bound_lines(name)]
    return "\n".join(lines) + "\n"


def fields(docstring: str) -> dict[str, str]:
    """Find the paragraphs of a docstring that start with one of `FIELDS` and a colon.

    Returns:
        Field -> its paragraph as one line.
    """
    found = {}
    for paragraph in docstring.split("\n\n"):
        text = one_line(paragraph)
        name, colon, rest = text.partition(": ")
        if colon and name in FIELDS:
            found[name] = rest
    return found


def _tuned(name: str) -> str:
    """Say what stage `tune` tries at the best point of lr and weight decay."""
    model = methods.find(name)
    if model.own_weights:
        return f"a factor on {', '.join(f'`{weight}`' for weight in model.own_weights)}"
    return "eta" if model.reads_eta else "nothing, its loss has no weight of its own"


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"ibma.methods.{name}")


def _title(name: str) -> str:
    return (_module(name).__doc__ or "").split(":")[0]


def _keywords(*functions: Callable[..., object]) -> str:
    """List the keyword arguments of functions that params.yaml may give, with their defaults."""
    found = [one for each in functions for one in inspect.signature(each).parameters.values()]
    return ", ".join(
        f"`{one.name}={one.default}`"
        for one in found
        if one.default is not one.empty and one.name != "on_bad"
    )


def _model_starts(name: str) -> Iterator[Callable[..., object]]:
    """Yield the `__init__` of a method's class, and of a base that takes arguments from it."""
    for cls in methods.find(name).__mro__:
        start = cls.__dict__.get("__init__")
        if start is None:
            continue
        yield start
        kinds = {one.kind for one in inspect.signature(start).parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return


def _bound_lines(name: str) -> list[str]:
    cls = ibma.find_bound(name)
    text, listed = one_line(inspect.getdoc(cls) or ""), _keywords(cls)
    return [text, *(["", f"Parameters: {listed}."] if listed else [])]
