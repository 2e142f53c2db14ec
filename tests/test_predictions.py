"""Predictions lie beside their records, and every metric follows from them."""

import numpy as np
import pytest
import torch

from ibma.errors import IbmaError
from ibma.features.store import label_tensor
from ibma.training import predictions, record, run
from ibma.training.cell import Setting
from ibma.training.predictions import Predictions

SAID = Predictions(
    np.array(["a", "bb"]), np.array([[0.0], [1.0]]), np.array(["g", "g"]), np.zeros((2, 3), "f2")
)


@pytest.mark.parametrize("kind", ["classify", "multilabel", "sentiment", "one_class"])
def test_metrics_of_a_run_follow_from_the_file_beside_its_record(
    make_cell, kind, tmp_path, monkeypatch
):
    cell = make_cell(kind, epochs=2)
    monkeypatch.chdir(tmp_path)
    done = run.train_run(cell, 0, Setting(1e-3, 1e-5, 0.5), quiet=True)
    path = done.record.id.predictions
    done.predictions.write(path)
    done.record.write(done.record.id.record)
    assert record.read(done.record.id.record) == done.record
    said, task = predictions.read(path, done.record.predictions), cell.problem()
    y = label_tensor(kind, said.labels)
    assert task.judge(said.scores, y, said.groups) == done.record.metrics
    assert task.confusion(said.scores, y) == done.record.confusion
    assert list(said.ids) == [cell.open().ids[row] for row in cell.open().test(0).index]
    assert said.scores.itemsize == (4 if kind == "one_class" else 2) and torch.is_tensor(y)


def test_the_digest_is_that_of_the_content_alone(tmp_path):
    SAID.write(tmp_path / "said.npz")
    np.savez(tmp_path / "plain.npz", **SAID.arrays())
    for name in ("said.npz", "plain.npz"):
        assert predictions.read(tmp_path / name, SAID.digest).digest == SAID.digest


@pytest.mark.parametrize("name", ["ids", "labels", "groups", "scores"])
def test_any_other_content_is_refused(tmp_path, name):
    arrays = SAID.arrays()
    changed = arrays[name].copy()
    changed.flat[1] = "c" if changed.dtype.kind == "U" else 2
    Predictions.of(arrays | {name: changed}).write(tmp_path / "said.npz")
    with pytest.raises(IbmaError, match="said.npz: not the predictions"):
        predictions.read(tmp_path / "said.npz", SAID.digest)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "missing"), (b"", "not predictions"), (b"PK\3\4rubbish", "not predictions")],
)
def test_what_is_no_file_of_predictions_is_one_line(tmp_path, content, said):
    path = tmp_path / "said.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(IbmaError, match=said) as raised:
        predictions.read(path, SAID.digest)
    assert "\n" not in str(raised.value)


def test_arrays_that_do_not_fit_are_refused():
    for name, wrong in (("ids", np.zeros(2)), ("scores", np.zeros(2, "f2")), ("labels", SAID.ids)):
        with pytest.raises(ValueError, match="does not fit"):
            Predictions.of(SAID.arrays() | {name: wrong})
    with pytest.raises(ValueError, match="expected the arrays"):
        Predictions.of({})
