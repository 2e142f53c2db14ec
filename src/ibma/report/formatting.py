"""Numbers and names as text: the same digits everywhere, and names that every format can hold.

Knows nothing of tables.
"""

from __future__ import annotations

import html
import re

DIGITS = {"percent": 1, "count": 0, "minutes": 1, "seconds": 2, "p": 0}  # decimals; else 3
DIGITS |= {"nats": 4, "rank": 2, "times": 2, "effect": 2}
SIGNIFICANT = {"p": 2, "seconds": 3, "minutes": 2}  # significant digits of values below 1
NAMES = {"percent": "%", "nats": "nats", "minutes": "minutes", "seconds": "s"}  # after a heading
NOISE = 9  # decimals: means over runs differ beyond them between processors


def rounded(value: float, unit: str) -> float:
    """Round a value to the digits that it is printed with."""
    if unit in SIGNIFICANT and abs(value) < 1:
        return float(f"{value:.{SIGNIFICANT[unit]}g}")
    return round(round(value, NOISE), DIGITS.get(unit, 3)) + 0.0  # no -0.0


def number(value: float, unit: str, *, sign: bool = False) -> str:
    """Print a value in its unit; a value that rounds to zero has no sign."""
    value = rounded(value, unit)
    if unit in SIGNIFICANT and abs(value) < 1:
        return f"{value:.{SIGNIFICANT[unit]}g}"
    return f"{value:{'+' if sign else ''},.{DIGITS.get(unit, 3)}f}"


def interval(low: float | None, high: float | None, unit: str) -> str:
    """Print `[low, high]`; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"[{number(low, unit)}, {number(high, unit)}]"


def p_value(p: float | None) -> str:
    """Print a p-value as part of a sentence."""
    return "no test" if p is None else f"p = {number(p, 'p')}"


def plural(count: int, noun: str) -> str:
    """Print a count and what it counts: `1 task`, `6 tasks`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def one_line(text: str) -> str:
    """Replace line breaks and control characters by blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def markdown(text: str) -> str:
    """Escape what Markdown (as GitHub reads it) takes for markup, so that any name is text."""
    escaped = html.escape(one_line(text), quote=False)
    escaped = re.sub(r"([\\`*\[\]|$~])", r"\\\1", escaped)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", escaped)  # inside a word it is no markup


LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "~": r"\~{}"}
LATEX |= {"^": r"\^{}", "|": r"\textbar{}", "/": r"/\allowbreak{}", "_": r"\_\allowbreak{}"}
LATEX |= {mark: "\\" + mark for mark in "&%$#{}"} | {"[": "{[}", "]": "{]}", "×": r"$\times$"}


def latex(text: str) -> str:
    """Escape what LaTeX reads as markup; paths may break after `/` and `_`."""
    return "".join(LATEX.get(letter, letter) for letter in one_line(text))
