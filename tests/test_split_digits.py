"""Split digits: two halves of a real picture, a fixed stratified split."""

from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from ibma.datasets import split_digits


def test_halves_make_the_picture_and_the_split_is_fixed():
    first = list(split_digits.samples(Path()))
    assert first == list(split_digits.samples(Path()))
    digits = load_digits()
    for i in (0, 700, 1796):
        left, right = (np.reshape(first[i].parts[name], (8, 4)) for name in ("left", "right"))
        np.testing.assert_allclose(np.hstack([left, right]) * 16, digits.images[i])
        assert first[i].label == digits.target[i]


def test_every_digit_is_tested_as_often_as_the_others():
    found = list(split_digits.samples(Path()))
    assert Counter(s.split for s in found) == {"train": 1347, "test": 450}
    test = Counter(s.label for s in found if s.split == "test")
    assert set(test) == set(range(10)) and max(test.values()) - min(test.values()) <= 3
