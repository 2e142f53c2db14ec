"""FAISS and torch agree; input vectors; the centroid stage."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ibma.errors import IbmaError
from ibma.features.store import Features
from ibma.network import bounds
from ibma.network.centroids import (
    INPUT_WIDTH,
    Assignment,
    ClassSums,
    InputAssignments,
    InputSpace,
    InputVectors,
    file_name,
    input_vectors,
    project,
    vocabulary_of,
    write_all,
)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("systems", [(1, 5), (4, 2)])
def test_faiss_equals_torch(normalise, systems):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 40)).astype(np.float32)
    labels = rng.integers(0, systems[1], (300, systems[0]))
    one_hot = np.eye(systems[1], dtype=np.float32)[labels]
    assignment = Assignment(0.7, normalise)
    space = InputSpace(assignment)
    space.fit((vectors[i : i + 64].copy(), one_hot[i : i + 64]) for i in range(0, 300, 64))
    x = torch.from_numpy(vectors).double()
    sums = ClassSums.zeros(systems, 40, x)
    sums.add(x, torch.from_numpy(one_hot).double())
    expected = assignment.centroids(sums.sums, sums.counts)
    np.testing.assert_allclose(space.centroids, expected.numpy(), rtol=1e-4, atol=1e-6)
    distances = (assignment.prepare(x)[:, None, None] - expected).square().sum(-1)
    np.testing.assert_allclose(space.distances(vectors.copy()), distances.numpy(), rtol=1e-4)
    phi = assignment.phi(x, expected)
    np.testing.assert_allclose(space.phi(vectors.copy()), phi.numpy(), rtol=1e-4)


def test_sums_of_batches_are_those_of_all_samples():
    rng = torch.Generator().manual_seed(0)
    x, systems = torch.randn(9, 4, generator=rng), torch.eye(3)[torch.arange(9) % 3][:, None]
    parts, whole = ClassSums.zeros((1, 3), 4, x), ClassSums.zeros((1, 3), 4, x)
    whole.add(x, systems)
    for rows in (slice(0, 5), slice(5, 9)):
        parts.add(x[rows], systems[rows])
    torch.testing.assert_close(parts.sums, whole.sums)
    assert parts.counts.equal(whole.counts) and whole.counts.tolist() == [[3, 3, 3]]


def test_a_long_film_does_not_overflow():
    """255 times 128 pictures fit into 15 bits, 129 do not."""
    for length in (128, 129, 300):
        frames = np.full((1, length, 2, 2), 255, dtype=np.uint8)
        np.testing.assert_allclose(input_vectors("frames", frames), np.ones((1, 4)))


def test_a_class_of_one_sample_has_it_as_its_centroid():
    sums, counts = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), torch.tensor([[1.0, 0.0]])
    assert Assignment(normalise=False).centroids(sums, counts).equal(sums)
    unit = torch.tensor([[[0.6, 0.8], [0.0, 0.0]]])
    torch.testing.assert_close(Assignment().centroids(sums, counts), unit)
    space = InputSpace(Assignment(normalise=False))
    space.fit([(np.array([[3.0, 4.0]], np.float32), np.array([[[1.0, 0.0]]], np.float32))])
    np.testing.assert_array_equal(space.centroids, sums.numpy())


def test_a_class_without_samples_has_a_zero_centroid():
    space = InputSpace(Assignment())
    one_hot = np.zeros((4, 1, 3), dtype=np.float32)
    one_hot[:, 0, 0] = 1.0
    space.fit([(np.ones((4, 2), dtype=np.float32), one_hot)])
    assert np.array_equal(space.centroids[0, 1:], np.zeros((2, 2)))
    assert np.isfinite(space.phi(np.ones((4, 2), dtype=np.float32))).all()


def test_a_text_becomes_counts_of_its_words_without_padding():
    text = np.array([[3, 3, 1, 0, 0]], dtype=np.int32)
    np.testing.assert_array_equal(input_vectors("text", text, 5), [[0, 1, 0, 2, 0]])


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("kind", ["frames", "image", "vector"])
def test_input_vectors_are_flat_scaled_means_and_leave_what_is_stored_alone(kind, dtype):
    stored = np.random.default_rng(0).integers(0, 255, (4, 3, 2, 5)).astype(dtype)
    before = stored.copy()
    vectors = input_vectors(kind, stored)
    expected = stored.astype(np.float64) / (255.0 if dtype == np.uint8 else 1.0)
    expected = expected.mean(1) if kind == "frames" else expected
    np.testing.assert_allclose(vectors, expected.reshape(4, -1), rtol=1e-3)
    space = InputSpace(Assignment())
    space.fit([(vectors, np.eye(4, dtype=np.float32)[:, None])])
    space.phi(vectors)
    assert np.array_equal(stored, before)


def test_phi_saturates_without_normalisation():
    """512 dimensions, 6 classes: all but one-hot as they are, all but uniform as unit vectors."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(600, 512)))
    classes = torch.from_numpy(rng.normal(size=(1, 6, 512)))
    raw = Assignment(normalise=False).phi(x, classes).amax(-1)
    unit = classes / classes.norm(dim=-1, keepdim=True)
    soft = Assignment(normalise=True).phi(x, unit).amax(-1)
    assert raw.median() > 0.999 and soft.max() < 0.25


def test_features_are_not_changed_by_normalisation():
    vectors = np.array([[3.0, 4.0]], dtype=np.float32)
    Assignment().phi(torch.from_numpy(vectors), torch.zeros(1, 2, 2))
    assert vectors.tolist() == [[3.0, 4.0]]


def test_assignments_come_back_from_their_file_with_the_mean_u_of_training_rows(make_cell):
    cell = make_cell()
    inputs = cell.inputs(0)
    assert set(inputs.phi) == {"view0", "view1"}
    assert inputs.phi["view0"].shape == (72, 1, 3)
    train = cell.open().training(0).index
    expected = bounds.u_term(inputs.phi["view0"][train], inputs.prior).mean()
    assert inputs.u["view0"] == pytest.approx(float(expected))
    file = cell.centroids / file_name(None)
    again = InputAssignments.read(file, cell.meta["digest"])
    assert again.u == inputs.u and torch.equal(again.prior, inputs.prior)
    with pytest.raises(IbmaError, match="sums.json: made of other features: run `dvc repro -f"):
        InputAssignments.read(file, "0" * 64)


def test_input_vectors_are_standardised_on_the_training_rows(make_cell):
    cell = make_cell()
    vectors = cell.inputs(0).vectors["view1"]
    assert vectors.width == 3
    train = vectors[torch.from_numpy(cell.open().training(0).index)]
    torch.testing.assert_close(train.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_wide_inputs_are_projected_and_keep_their_distances(make_cell, tmp_path):
    features = Features.read(make_cell().features)
    wide = np.random.default_rng(0).normal(size=(72, 2000)).astype(np.float32)
    features.arrays["view0"] = wide
    project(features, "view0", 0, tmp_path / "out.npy")
    narrow = np.load(tmp_path / "out.npy")
    assert narrow.shape == (72, INPUT_WIDTH)
    ratio = np.linalg.norm(narrow[:36] - narrow[36:], axis=1) / np.linalg.norm(
        wide[:36] - wide[36:], axis=1
    )
    assert np.abs(ratio - 1).max() < 0.15


@pytest.mark.parametrize("folds", [0, 3])
def test_every_fold_has_the_phi_of_its_own_training_rows(make_cell, tmp_path, monkeypatch, folds):
    monkeypatch.setattr("ibma.network.centroids.CHUNK", 48)  # sixteen rows a chunk
    cell = replace(make_cell(folds=folds), centroids=tmp_path)
    write_all(cell.open(), cell.problem(), cell.encoders, cell.assignment(), 3, tmp_path)
    for run in range(max(folds, 1)):
        train = cell.open().training(run)
        shares = np.bincount(train.labels(), minlength=3) / len(train)
        np.testing.assert_allclose(cell.inputs(run).prior, shares[None], atol=1e-6)
        for name, array in cell.open().arrays.items():
            x = torch.from_numpy(np.array(array))
            sums = ClassSums.zeros((1, 3), 3, x)
            sums.add(x[train.index], cell.problem().systems(train.labels()))
            centroids = cell.assignment().centroids(sums.sums, sums.counts)
            torch.testing.assert_close(
                cell.inputs(run).phi[name],
                cell.assignment().phi(x, centroids),
                atol=1e-6,
                rtol=1e-5,
            )
            vectors = cell.inputs(run).vectors[name]
            np.testing.assert_allclose(vectors.mean, array[train.index].mean(0), rtol=1e-4)


def test_one_class_data_gets_pseudo_classes(make_cell):
    inputs = make_cell("one_class").inputs(0)
    assert inputs.pseudo is not None and set(inputs.pseudo.argmax(1).tolist()) == {0, 1, 2}
    assert inputs.phi["view0"].shape == (72, 1, 3)
    assert inputs.u["view0"] > 0


def test_what_fills_a_missing_part_reaches_no_centroid_no_u_and_no_scale(make_cell):
    cell, known, made = make_cell(), np.arange(72) % 4 != 0, []
    for filling in (0.0, 1e3):
        features = Features.read(cell.features)
        array = np.where(known[:, None], features.arrays["view0"], np.float32(filling))
        features.arrays["view0"] = array.astype(np.float32)
        features = replace(features, present={"view0": known})
        more = (cell.encoders, cell.assignment(), 3, features.arrays)
        (one,) = InputAssignments.compute(features, cell.problem(), *more)
        made.append(one)
    first, second = made
    assert first.u == second.u and first.prior.equal(second.prior)
    assert first.phi["view0"][known].equal(second.phi["view0"][known])
    assert first.vectors["view0"].mean.equal(second.vectors["view0"].mean)
    assert first.vectors["view0"].scale.equal(second.vectors["view0"].scale)
    tables = first.tables(torch.device("cpu"), torch.zeros(72))
    assert tables.pseudo is None and tables.previous.shape == (72,)
    one_class = make_cell("one_class").inputs(0)
    assert one_class.tables(torch.device("cpu")).pseudo.equal(one_class.pseudo)


def test_a_folder_without_its_sums_is_refused(tmp_path):
    with pytest.raises(IbmaError, match=f"sums.json: missing: run `dvc repro -f .*{tmp_path.name}"):
        InputAssignments.read(tmp_path / file_name(None), "0" * 64)
    assert (file_name(None), file_name(2)) == ("split.npz", "fold_2.npz")


def test_many_rows_are_standardised_by_all_of_them():
    array = np.random.default_rng(0).normal(3, 2, (9000, 2)).astype(np.float32)
    train = np.arange(0, 9000, 2)
    found = InputVectors.over(array, train)
    np.testing.assert_allclose(found.mean.numpy(), array[train].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.scale.numpy(), array[train].std(0), rtol=1e-5)


def test_a_vocabulary_is_the_encoder_s_or_as_large_as_the_stored_ids_need():
    kinds = {"text": SimpleNamespace(kind="text"), "view": SimpleNamespace(kind="vector")}
    for stored, encoder, expected in (
        (5, {"vocab_size": 32}, 32),
        (40, {"vocab_size": 32}, 41),
        (5, {}, 30522),
    ):
        ids = np.array([[stored, 0]], dtype=np.int32)
        features = SimpleNamespace(modalities=kinds, arrays={"text": ids, "view": ids})
        assert vocabulary_of(encoder, features, "text") == expected
        assert vocabulary_of(encoder, features, "view") == 0


def test_assignments_of_the_same_features_are_renewed_as_they_were(make_cell):
    for kind, folds, run in (("classify", 0, 4), ("one_class", 0, 0), ("classify", 3, 4)):
        cell = make_cell(kind, folds=folds)
        one = cell.inputs(run)
        again = one.renewed(cell.open(), run, cell.problem(), cell.encoders, cell.assignment())
        assert again.u == pytest.approx(one.u, abs=1e-6) and again.prior.equal(one.prior)
        assert (again.pseudo is None) == (one.pseudo is None) == (kind == "classify")
        for name, phi in one.phi.items():
            torch.testing.assert_close(again.phi[name], phi)
