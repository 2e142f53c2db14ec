"""Pages of docs/ that are generated from docstrings (`ibma docs`)."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

from ibma import methods
from ibma.methods import ibma as variants

FIELDS = ("Citation", "Official code", "Code over paper", "Choices", "Parity")
METHODS = Path("docs/methods.md")


def write() -> Path:
    """Write docs/methods.md and return its path."""
    METHODS.parent.mkdir(exist_ok=True)
    METHODS.write_text(methods_page(), encoding="utf-8")
    return METHODS


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
        "`bound:` of a variant in `params.yaml`; the last columns are its own parameters.",
        "",
        *_table(
            ("Bound", "What it is", "Parameters"),
            [_bound_row(key, cls) for key, cls in variants.BOUNDS.items()],
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
