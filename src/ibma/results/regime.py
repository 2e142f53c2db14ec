"""Read from a record how large the gradient of its bound was."""

from __future__ import annotations

from ibma.training.record import Record

ACTIVE = 0.01  # share of the cross-entropy's gradient from which a bound acts (CHOICE)
STRONG = 1.0  # share from which it pulls harder than cross-entropy
BANDS = ("inactive", "weaker", "stronger")


def shares(run: Record) -> list[float]:
    """Return the share of the bound's gradient by epoch, the largest over representations.

    It is the norm of the gradient of eta times the bound over that of the cross-entropies; empty
    for a method without a bound.
    """
    by_place = [values for name, values in run.regime.items() if name.startswith("share/")]
    return [max(epoch) for epoch in zip(*by_place, strict=True)]


def peak_share(run: Record) -> float | None:
    """Return the largest of `shares` over the whole training; None for a method without a bound."""
    return max(shares(run), default=None)


def inactive(run: Record) -> bool:
    """Return whether a run has a bound whose share stayed under `ACTIVE` in every epoch."""
    peak = peak_share(run)
    return peak is not None and peak < ACTIVE


def band(share: float) -> str:
    """Return whether a bound is inactive, or pulls weaker or stronger than cross-entropy."""
    return BANDS[(share >= ACTIVE) + (share >= STRONG)]


def alignment_share(run: Record) -> float | None:
    """Return the largest share of the alignment's gradient alone, over epochs and modalities."""
    places = [name for name in run.regime if name.startswith("share/") and name != "share/fused"]
    return max((max(run.regime[name]) for name in places), default=None)
