"""Add Gaussian noise to the stored features of one modality, for the study of noise.

CHOICE: the paper says that alignment suppresses noise of single modalities and tests no noise. Here
a level is in standard deviations of each feature over the training rows of a run, and every sample
keeps its noise, as if it were stored so. The same run draws the same numbers at every level.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ibma.errors import IbmaError
from ibma.features.store import Features
from ibma.params import Noise


def draw(seed: int, modality: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw standard normal numbers, a pure function of the arguments."""
    random = np.random.default_rng((seed, zlib.crc32(modality.encode())))
    return random.standard_normal(shape, dtype=np.float32)


@functools.lru_cache(maxsize=2)
def added(features: Features, run: int, noise: Noise) -> Features:
    """Return the features of a run with noise in one modality; no other array changes.

    Raises:
        IbmaError: the modality is not made of fractions: pictures as bytes, or token ids.
    """
    clean = features.arrays[noise.modality]
    if not np.issubdtype(clean.dtype, np.floating):
        raise IbmaError(
            f"params.yaml: noise: '{noise.modality}' is stored as {clean.dtype}: expected a "
            "modality of fractions, such as a vector or a spectrogram"
        )
    train, test = features.training(run).index, features.test(run).index
    deviation = clean[train].std(0, dtype=np.float64)
    numbers = draw(run, noise.modality, clean.shape)
    noisy = np.array(clean)
    for rows, level in ((train, noise.train), (test, noise.test)):
        noisy[rows] += (level * deviation * numbers[rows]).astype(clean.dtype)
    return replace(features, arrays={**features.arrays, noise.modality: noisy}, _placed={})
