"""Compute IBB's alignment term in closed form against the separation of classes.

K balanced classes sit on a regular simplex, in both modalities alike, and Q is estimated without
error. A vector then has phi p at its own class and q = (1 - p) / (K - 1) at each other one, Q has
the same entries, and V of Theorem 3.1 depends on K and one number: the exponent e, which is beta
times the squared distance between two class means. `bounds.v_term` gives the same values
(`tests/test_separation.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CLASSES = range(2, 11)
STEPS = 20_001  # of the exponent, among which the highest value of a course is found


@dataclass(frozen=True)
class Regime:
    """How phi is computed, and how long the vectors are.

    Attributes:
        name: as tables print it.
        sharpness: beta times the squared norm of a vector; times a squared distance between unit
            vectors it is the exponent of phi.
    """

    name: str
    sharpness: float


# CHOICE: the entries of a vector that is not normalised have unit variance, as those of a network
# at its usual start and after a norm layer do; its squared norm is then its width.
REGIMES = (
    *(Regime(f"unit, beta {beta}", beta) for beta in (1, 4, 16, 64)),
    *(Regime(f"printed, width {width}", width) for width in (64, 512)),
)


@dataclass(frozen=True)
class Course:
    """What the term is worth while classes move apart, in nats.

    Attributes:
        start: where classes coincide: ln K.
        highest: on the way.
        at: separation of the highest value, in [0, 1].
        end: where unit vectors are as far apart as K of them can be.
    """

    start: float
    highest: float
    at: float
    end: float


def alignment(classes: int, exponent: Array) -> Array:
    """Compute -V between two modalities that separate balanced classes alike, in nats.

    With p = 1 / (1 + (K - 1) exp(-e)), q = p exp(-e) and s = p^2 + (K - 1) q^2, the share of pairs
    that phi puts into one class, -V = -s ln p - (1 - s) ln q = -ln p + (1 - s) e.

    Args:
        classes: K.
        exponent: e, any shape.
    """
    others = (classes - 1) * np.exp(-exponent)
    same = (1 + others * np.exp(-exponent)) / (1 + others) ** 2
    return np.asarray(np.log1p(others) + (1 - same) * exponent)


def exponents(classes: int, sharpness: float, separation: Array) -> Array:
    """Return the exponents of phi where class means have some separation.

    Args:
        classes: K.
        sharpness: see `Regime`.
        separation: distance between two class means over the largest that K unit vectors can all
            have from each other, sqrt(2 K / (K - 1)), in [0, 1].
    """
    return np.asarray(sharpness * separation**2 * 2 * classes / (classes - 1))


def course(classes: int, sharpness: float) -> Course:
    """Follow the term from classes that coincide to classes as far apart as they can be."""
    end = float(exponents(classes, sharpness, np.ones(1))[0])
    exponent = np.linspace(0, end, STEPS)
    values = alignment(classes, exponent)
    top = int(values.argmax())
    at = float(np.sqrt(exponent[top] / end))
    return Course(float(values[0]), float(values[top]), at, float(values[-1]))
