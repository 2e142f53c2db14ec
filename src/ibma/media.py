"""Placeholder."""

import numpy as np


def compute(kind, part, params):
    return np.asarray(part, dtype=np.float32)
