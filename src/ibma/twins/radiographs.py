"""Generate radiographs and reports for the twins of radiology data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# of cardiomegaly, edema, consolidation, atelectasis, effusion: word, and centre of the blob in
# parts of height and width
WORDS = ("cardiomegaly", "edema", "consolidation", "atelectasis", "effusion")
PLACES = ((0.62, 0.5), (0.23, 0.28), (0.23, 0.72), (0.47, 0.19), (0.78, 0.81))
FILLER = [
    *("heart", "lungs", "clear", "stable", "view", "prior", "chest", "line", "tube", "normal"),
    *("limits", "seen", "again"),
]
SHARE, TOLD, INVENTED = 0.35, 0.8, 0.1
RADIUS = 40**0.5  # pixels, where a blob has fallen to 1/e


def findings(rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw which of the five findings a patient has, [5]; each with probability SHARE."""
    return rng.random(5) < SHARE


def noticed(truth: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw what a modality tells of the truth, [5]: with probability TOLD, or INVENTED."""
    return rng.random(5) < np.where(truth, TOLD, INVENTED)


def write_radiograph(
    path: Path, shown: NDArray[np.bool_], height: int, width: int, rng: np.random.Generator
) -> None:
    """Write a grey jpg with a blob per finding; its brightness and gradient tell nothing.

    Args:
        path: The file to write.
        shown: Which findings it shows, [5].
        height: Pixels.
        width: Pixels.
        rng: Source of what is random.
    """
    from PIL import Image

    rows, columns = np.mgrid[:height, :width]
    light, down, across = rng.uniform(60, 120), *rng.uniform(-0.4, 0.4, 2)
    picture = light + down * rows + across * columns + rng.normal(0, 4, (height, width))
    for present, (row, column) in zip(shown, PLACES, strict=True):
        away = (rows - row * height) ** 2 + (columns - column * width) ** 2
        picture += present * 110 * np.exp(-away / RADIUS**2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path, quality=90)


def sentences(said: NDArray[np.bool_], rng: np.random.Generator) -> tuple[str, str]:
    """Draw findings and impression: words of what is said, among filler."""
    named = [word for word, present in zip(WORDS, said, strict=True) if present]
    return (
        " ".join([*named[:2], *rng.choice(FILLER, 6)]),
        " ".join([*rng.choice(FILLER, 4), *named[2:]]),
    )


def region(size: int, label: int, height: int, width: int) -> NDArray[np.bool_]:
    """Return where a finding's blob is, [size, size], in a picture that was resized so.

    Args:
        size: Width and height of the resized picture.
        label: Index of the finding.
        height: Of the picture as it was drawn.
        width: Of the picture as it was drawn.
    """
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    row, column = PLACES[label]
    away = ((rows - row) * height) ** 2 + ((columns - column) * width) ** 2
    inside: NDArray[np.bool_] = away < RADIUS**2
    return inside
