"""Numbers as text: the same digits in every table."""

from __future__ import annotations

from ibma.results.stats import Summary

DIGITS = {"percent": 1, "minutes": 1, "count": 0, "nats": 4}  # after the point, by unit; else 3


def number(value: float, unit: str, *, sign: bool = False) -> str:
    """A value in its unit; what rounds to zero has no sign."""
    digits = DIGITS.get(unit, 3)
    value = round(value, digits) + 0.0  # no -0.0
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def mean_sd(found: Summary, unit: str) -> str:
    """`mean ± sd`; the mean alone for one run."""
    sd = "" if found.sd is None else f" ± {number(found.sd, unit)}"
    return number(found.mean, unit) + sd


def interval(low: float | None, high: float | None, unit: str) -> str:
    """`[low, high]`; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"[{number(low, unit)}, {number(high, unit)}]"
