"""Pages of docs/ that are generated from docstrings and data set cards (`ibma docs`)."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

from ibma import datasets, methods, twins
from ibma.datasets import Card, Counts
from ibma.methods.ibma import bound_names, find_bound

FIELDS = ("Citation", "Official code", "Code over paper", "Choices", "Parity")
METHODS, DATASETS = Path("docs/methods.md"), Path("docs/datasets.md")
ACCESS = {"open": "open", "request": "by request", "builtin": "comes with a package"}


def write() -> tuple[Path, ...]:
    """Write the pages and return their paths."""
    METHODS.parent.mkdir(exist_ok=True)
    pages = {METHODS: methods_page(), DATASETS: datasets_page()}
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return tuple(pages)


def datasets_page() -> str:
    """A table of all data sets, the paper's first, and a section for each."""
    cards = {name: datasets.load(name).CARD for name in datasets.names()}
    names = sorted(cards, key=lambda name: (cards[name].paper is None, name))
    lines = [
        "# Data sets",
        "",
        "Generated from the cards in `src/ibma/datasets/` by `ibma docs`. Counts are training / "
        "test; a dash stands for one that nobody states.",
        "",
        *_table(
            ("Data set", "Modalities", "Paper (Table 1)", "Official release", "Access", "Twin"),
            [_dataset_row(name, cards[name]) for name in names],
        ),
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
    """What a reader must know of one data set."""
    described = " ".join((datasets.load(name).__doc__ or "").split())
    split = f"{card.folds} folds, run k tests on fold k mod {card.folds}"
    lines = [
        described,
        "",
        f"- **Task**: {card.kind}; {', '.join(card.classes)}.",
        f"- **Split**: {split if card.folds else 'fixed'}.",
        f"- **Licence**: {card.licence}.",
        f"- **How to get it**: {card.how_to_get or 'nothing to do'}.",
        f"- **Citation**: {card.cite}",
        *(f"- {note}" for note in card.notes),
    ]
    if twins.exists(name):
        twin = inspect.getdoc(importlib.import_module(f"ibma.twins.{name}")) or ""
        lines += ["", "**Its twin.** " + " ".join(twin.split())]
    return lines


def _counts(counts: Counts | None) -> str:
    if counts is None:
        return "not in it"
    return " / ".join("-" if n is None else f"{n:,}" for n in (counts.train, counts.test))


def _anchor(heading: str) -> str:
    """GitHub's: lower case, letters, digits, `_` and `-` kept, blanks as hyphens."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


def methods_page() -> str:
    """One row per method file, one per bound of IBMA."""
    lines = [
        "# Methods",
        "",
        "Generated from the docstrings by `ibma docs`; parity names the stored values of the "
        "authors' code in `tests/golden/` that a test compares with ours.",
        "",
        *_table(("Method", *FIELDS), [_method_row(name) for name in methods.names()]),
        "",
        "## Bounds in IBMA's place",
        "",
        "`bound:` of an entry in `params.yaml`; the last column holds its own parameters.",
        "",
        *_table(
            ("Bound", "What it is", "Parameters"),
            [_bound_row(name, find_bound(name)) for name in bound_names()],
        ),
    ]
    return "\n".join(lines) + "\n"


def fields(docstring: str) -> dict[str, str]:
    """Paragraphs of a docstring that start with one of `FIELDS` and a colon, as one line each."""
    found = {}
    for paragraph in docstring.split("\n\n"):
        text = " ".join(paragraph.split())
        name, colon, rest = text.partition(": ")
        if colon and name in FIELDS:
            found[name] = rest
    return found


def _method_row(name: str) -> tuple[str, ...]:
    module = importlib.import_module(f"ibma.methods.{name}")
    found = fields(module.__doc__ or "")
    title = (module.__doc__ or "").split(":")[0]
    return (f"**{title}** (`{name}`)", *(found[field] for field in FIELDS))


def _bound_row(key: str, cls: object) -> tuple[str, ...]:
    text = " ".join((inspect.getdoc(cls) or "").split())
    own = list(inspect.signature(cls).parameters.values())[2:]  # type: ignore[arg-type]
    return (f"`{key}`", text, ", ".join(f"`{p.name}={p.default}`" for p in own))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A Markdown table; bars inside cells are escaped."""
    lines = [header, ("---",) * len(header), *rows]
    return ["| " + " | ".join(re.sub(r"\|", r"\\|", cell) for cell in row) + " |" for row in lines]
