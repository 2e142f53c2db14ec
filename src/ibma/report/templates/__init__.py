"""Jinja templates of the page and of LaTeX tables."""

from __future__ import annotations

from functools import cache
from typing import Any

from ibma.report import formatting


@cache
def environment() -> Any:
    """Return the environment that fills templates, with what it has compiled; HTML is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    made = Environment(
        loader=PackageLoader("ibma.report"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["latex"] = formatting.latex
    return made
