"""Probes see frozen encoders; weights come back as the network that left the record."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import record_of

from ibma import paths
from ibma.errors import IbmaError
from ibma.experiments import probe
from ibma.files import read_json
from ibma.training import loop, run
from ibma.training.cell import Setting

SETTING = Setting(0.01, 1e-6, 0.5)
CPU = torch.device("cpu")


@pytest.fixture
def trained(make_cell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def train(kind):
        cell = make_cell(kind=kind, epochs=3)
        finished = run.train_run(cell, 0, SETTING, quiet=True)
        path = tmp_path / "seed_0.safetensors"
        path.write_bytes(finished.weights)
        return cell, finished.record, path

    return train


def test_a_restored_network_predicts_what_the_record_says(trained):
    cell, one, path = trained("classify")
    model = probe.restore(cell, one, path, CPU)
    assert not model.training
    test = cell.open().test(0)
    logits, _ = loop.predict(model, test, CPU)
    assert cell.problem().metrics(logits, test.labels(), test.groups()) == one.metrics


def test_missing_damaged_or_foreign_weights_are_named(trained, make_cell):
    cell, one, path = trained("classify")
    other = make_cell(kind="classify", method="concat")
    with pytest.raises(IbmaError, match=r"seed_0.safetensors: holds another network"):
        probe.restore(other, one, path, CPU)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IbmaError, match=r"not the weights that the record of fake ibma seed 0"):
        probe.restore(cell, one, path, CPU)
    path.unlink()
    with pytest.raises(IbmaError, match=r"missing: list ibma under keep_weights"):
        probe.restore(cell, one, path, CPU)


@pytest.mark.parametrize(("kind", "metric"), [("classify", "accuracy"), ("multilabel", "mauc")])
def test_each_encoder_is_judged_alone(trained, kind, metric):
    """Views are noisy labels, so that one of them is enough to beat chance."""
    cell, one, path = trained(kind)
    model = probe.restore(cell, one, path, CPU)
    rows = probe.probe(cell, one, model, CPU)
    assert [row["modality"] for row in rows] == ["view0", "view1"]
    assert all(row["C"] in probe.STRENGTHS and row["method"] == "ibma" for row in rows)
    assert all(row["metrics"][metric] > 0.6 for row in rows)
    assert rows == probe.probe(cell, one, model, CPU), "the same run gives the same rows"


def test_the_strength_is_the_best_on_groups_of_train_that_were_held_out(make_cell, monkeypatch):
    cell, met = make_cell(), []
    train = cell.open().training(0)
    one_hot = torch.eye(3)[train.labels()].numpy()
    z = np.column_stack([one_hot, np.arange(len(train))])

    def fit(problem, learn, y, strength, unseen):
        """Right at one strength, wrong at the others."""
        met.append(tuple(set(train.groups()[rows[:, 3].astype(int)]) for rows in (learn, unseen)))
        assert y.tolist() == learn[:, :3].argmax(1).tolist()
        return torch.from_numpy(unseen[:, :3] * (1 if strength == 0.1 else -1))

    monkeypatch.setattr(probe, "_fit", fit)
    assert probe._choose(cell.problem(), z, train) == 0.1
    groups = len(set(train.groups()))
    assert len(met) == len(probe.STRENGTHS) and all(not learn & judge for learn, judge in met)
    assert all(len(judge) == round(groups / 4) for _, judge in met)
    monkeypatch.setattr(probe, "_fit", lambda *args: torch.from_numpy(args[-1][:, :3]))
    assert probe._choose(cell.problem(), z, train) == min(probe.STRENGTHS), "of equal ones"


def test_a_run_is_probed_on_the_rows_of_its_own_test_fold(make_cell, monkeypatch):
    cell, met = make_cell(folds=3), []

    def encode(model, rows, device):
        met.append(rows.index.tolist())
        return {"view0": np.eye(3)[rows.labels()]}

    monkeypatch.setattr(probe, "_encode", encode)
    monkeypatch.setattr(probe, "_choose", lambda *_: 0.1)
    monkeypatch.setattr(probe, "_fit", lambda *args: torch.from_numpy(args[-1]))
    one = record_of(stage="train", task="fake", method="ibma", seed=1, metrics={})
    (row,) = probe.probe(cell, one, SimpleNamespace(names=["view0"]), CPU)
    features = cell.open()
    assert met == [features.training(1).index.tolist(), features.test(1).index.tolist()]
    assert (row["seed"], row["metrics"]["accuracy"]) == (1, 1.0)


def test_a_classifier_reads_standardised_outputs(make_cell):
    """Whatever the unit of a column is, the same penalty gives the same classifier."""
    problem, draw = make_cell().problem(), np.random.default_rng(0)
    y = torch.arange(60) % 3
    z, unit = np.eye(3)[y] + draw.normal(size=(60, 3)), np.array([1e-2, 1.0, 1e3])
    found, other = (probe._fit(problem, x, y, 0.01, x[:9]) for x in (z, 5 + unit * z))
    torch.testing.assert_close(found, other, rtol=1e-3, atol=1e-4)
    assert found.std() > 0.05, "and no constant"


def test_every_run_is_probed_and_progress_counts_them(trained, monkeypatch, capsys):
    cell, one, path = trained("classify")
    model = probe.restore(cell, one, path, CPU)
    monkeypatch.setattr(probe, "current_runs", lambda *_: iter([(cell, one)] * 2))
    monkeypatch.setattr(probe, "restore", lambda *_: model)
    asked = SimpleNamespace(task="fake", methods=["ibma"])
    probe.probe_encoders(SimpleNamespace(probe=asked, seeds=2, threads=1, device="cpu"))
    assert [row["modality"] for row in read_json(paths.PROBE, [])] == ["view0", "view1"] * 2
    assert "probe: 2 of 2, " in capsys.readouterr().err


def test_a_run_that_is_not_there_says_what_to_run(make_cell, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe.Cell, "of", lambda *_: make_cell())
    with pytest.raises(IbmaError, match=r"seed_2.json: missing: run `dvc repro train@fake`$"):
        next(probe.current_runs(None, "fake", ["ibma"], [2]))


def test_a_run_of_other_parameters_data_or_code_is_stale(make_cell, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe.Cell, "of", lambda *_: make_cell())
    one = record_of(stage="train", task="fake", method="ibma", seed=0, metrics={})
    one.write(one.id.record)
    for key in (one.key, "another"):
        monkeypatch.setattr(probe, "expected_key", lambda *_, key=key: key)
        found = probe.current_runs(None, "fake", ["ibma"], [0])
        if key == one.key:
            assert next(found)[1].id == one.id
        else:
            with pytest.raises(
                IbmaError, match="seed_0.json: stale, .* run `dvc repro train@fake`"
            ):
                next(found)


def test_a_label_that_train_never_has_is_not_fitted(make_cell):
    z = torch.randn(12, 3).double().numpy()
    y = torch.tensor([[0.0, 1.0, 0.0]] * 6 + [[0.0, 0.0, 1.0]] * 6)
    logits = probe._fit(make_cell("multilabel").problem(), z, y, 1.0, z)
    assert not logits[:, 0].any() and logits[:, 1].any()


def test_a_task_of_one_class_is_refused(trained):
    cell, one, path = trained("one_class")
    with pytest.raises(IbmaError, match=r"probe.task: the training rows of fake have one class: "):
        probe.probe(cell, one, probe.restore(cell, one, path, CPU), CPU)
