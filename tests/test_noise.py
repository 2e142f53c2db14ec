"""Noise in one modality: where it is, how large, and a pure function of what it is made of."""

import numpy as np
import pytest
import torch

from ibma.errors import IbmaError
from ibma.features import noise, store
from ibma.params import Noise


def test_noise_has_its_level_in_its_modality_and_rows_and_nowhere_else(fake_store):
    clean = store.opened(fake_store("classify", 2, 3))
    for run in (0, 1):
        train, test = clean.training(run).index, clean.test(run).index
        spread = clean.arrays["view1"][train].std(0)
        for levels in ((0.5, 0.0), (0.0, 4.0), (2.0, 2.0)):
            noisy = noise.added(clean, run, Noise("view1", *levels))
            assert noisy.arrays["view0"] is clean.arrays["view0"]
            drawn = noise.draw(run, "view1", clean.arrays["view1"].shape)
            added = noisy.arrays["view1"] - clean.arrays["view1"]
            for rows, level in ((train, levels[0]), (test, levels[1])):
                np.testing.assert_allclose(added[rows], level * spread * drawn[rows], atol=1e-5)
    assert np.array_equal(
        clean.arrays["view1"], store.Features.read(fake_store("classify", 2, 3)).arrays["view1"]
    ), "the stored features are as they were"


def test_noise_is_the_same_for_the_same_run_and_scales_with_its_level(fake_store):
    clean = store.opened(fake_store("classify", 2, 0))

    def added(run: int, level: float, modality: str = "view0") -> np.ndarray:
        noise.added.cache_clear()
        noisy = noise.added(clean, run, Noise(modality, level, level))
        return np.asarray(noisy.arrays[modality] - clean.arrays[modality])

    np.testing.assert_array_equal(added(0, 1.0), added(0, 1.0))
    np.testing.assert_allclose(added(0, 4.0), 4 * added(0, 1.0), atol=1e-5)
    assert not np.allclose(added(0, 1.0), added(1, 1.0), atol=0.1)
    shape = (9, 2)
    assert not np.allclose(noise.draw(0, "left", shape), noise.draw(0, "right", shape), atol=0.1)


def test_networks_meet_the_noise_of_features_that_were_read_without_it(fake_store):
    """Rows that were put on a device before are not met again."""
    clean, cpu = store.opened(fake_store("classify", 2, 0)), torch.device("cpu")
    whole = clean.test(0)
    before = next(whole.batches(len(whole), cpu)).x["view0"]
    noisy = noise.added(clean, 0, Noise("view0", 0.0, 4.0))
    after = next(noisy.test(0).batches(len(whole), cpu)).x["view0"]
    np.testing.assert_array_equal(after, noisy.arrays["view0"][whole.index])
    assert (after - before).std() > 1


def test_noise_in_token_ids_is_refused(fake_store):
    clean = store.opened(fake_store("classify", 2, 0))
    ids = {"view0": clean.arrays["view0"].astype(np.int32)}
    words = store.Features(**{**vars(clean), "arrays": ids, "_placed": {}})
    with pytest.raises(IbmaError, match="noise: 'view0' is stored as int32: expected a modality"):
        noise.added(words, 0, Noise("view0", 1.0, 0.0))
