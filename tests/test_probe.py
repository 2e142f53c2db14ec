"""Probes see frozen encoders; weights come back as the network that left the record."""

import pytest
import torch

from ibma.errors import IbmaError
from ibma.experiments import probe
from ibma.training import loop
from ibma.training.loop import Setting

SETTING = Setting(0.01, 1e-6, 0.5)


@pytest.fixture
def trained(make_cell, tmp_path):
    def run(kind):
        cell = make_cell(kind=kind, epochs=3)
        folders = tmp_path / "runs", tmp_path / "models", tmp_path / "scratch"
        one = loop.run_seed(cell, 0, SETTING, *folders)
        return cell, one, folders[1]

    return run


def test_a_restored_network_predicts_what_the_record_says(trained):
    cell, one, models = trained("classify")
    model = probe.restore(cell, one, models)
    test = cell.features.test(0)
    logits, _ = loop.predict(model, test, cell.device)
    assert cell.task.metrics(logits, test.labels(), test.groups()) == one.metrics
    assert not model.training


def test_missing_or_foreign_weights_are_named(trained, make_cell):
    cell, one, models = trained("classify")
    other = make_cell(kind="classify", method="concat")
    with pytest.raises(IbmaError, match=r"seed_0.pt: holds another network .*delete it and its"):
        probe.restore(other, one, models)
    (models / "seed_0.pt").unlink()
    with pytest.raises(IbmaError, match=r"seed_0.pt: missing, but its record is there"):
        probe.restore(cell, one, models)


@pytest.mark.parametrize(("kind", "metric"), [("classify", "accuracy"), ("multilabel", "mauc")])
def test_each_encoder_is_judged_alone(trained, kind, metric):
    """Views are noisy labels, so that one of them is enough to beat chance."""
    run = trained(kind)
    rows = probe.probe(*run)
    assert [row["modality"] for row in rows] == ["view0", "view1"]
    assert all(row["C"] in probe.STRENGTHS and row["method"] == "ibma" for row in rows)
    assert all(row["metrics"][metric] > 0.6 for row in rows)
    assert rows == probe.probe(*run), "the same run gives the same rows"


def test_a_label_that_train_never_has_is_not_fitted(trained):
    cell, one, models = trained("multilabel")
    z = torch.randn(12, 3).double().numpy()
    y = torch.tensor([[0.0, 1.0, 0.0]] * 6 + [[0.0, 0.0, 1.0]] * 6)
    logits = probe._fit(cell, z, y, 1.0, z)
    assert not logits[:, 0].any() and logits[:, 1].any()
