"""Read scikit-learn's 8 x 8 digits, their left and right halves as two views.

The data is real and needs no download. Profiles twin, open, studies and paper contain it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ibma.datasets import Card, Counts, Dropped, Remote, Sample

TEST_SIZE, SPLIT_SEED = 450, 0

CARD = Card(
    title="Split digits (UCI optical digits, test part, as packaged by scikit-learn)",
    kind="classify",
    classes=tuple(str(digit) for digit in range(10)),
    modalities={"left": "vector", "right": "vector"},
    licence="CC BY 4.0",
    access="builtin",
    raw_gb=0.0,
    official=Counts(None, None),
    cite="E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.",
    notes=("1,797 digits; the split 1,347/450 is ours: stratified, fixed seed.",),
)
FILES: tuple[Remote, ...] = ()


def samples(raw: Path, *, on_bad: str = "stop") -> Iterator[Sample | Dropped]:
    """Yield 1,797 digits; each half is 8 x 4 pixels, scaled to [0, 1], as a 32-d vector."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = range(len(digits.target))
    _, test = train_test_split(
        rows, test_size=TEST_SIZE, random_state=SPLIT_SEED, stratify=digits.target
    )
    held_out = set(test)
    for row in rows:
        pixels = digits.images[row] / 16.0
        yield Sample(
            id=f"digit{row:04d}",
            split="test" if row in held_out else "train",
            group=f"digit{row:04d}",
            label=int(digits.target[row]),
            parts={
                "left": tuple(float(v) for v in pixels[:, :4].ravel()),
                "right": tuple(float(v) for v in pixels[:, 4:].ravel()),
            },
        )
