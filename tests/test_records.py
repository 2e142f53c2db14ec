"""Which records of a profile count, why others do not, and the numbers in them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_runs import load as small_profile
from test_tracking import made

from ibma import paths
from ibma.errors import IbmaError
from ibma.files import write_json
from ibma.results import records, stats
from ibma.training.predictions import Predictions
from ibma.training.record import Record

TASK, PROFILE = "split_digits", small_profile()
STAGES = {"concat": "train", "ibma": "train_ibma", "ce3": "ablation"}
SAID = Predictions(
    np.array(["s0", "s1"]),
    np.zeros((2, 1)),
    np.array(["g", "g"]),
    np.zeros((2, 2), dtype=np.float16),
)


def run(method: str, seed: int, /, **changed: object) -> Record:
    own = {"task": TASK, "stage": STAGES[method]} | changed
    return replace(made("ibma", seed), **({"method": method} | own), digest="")


def lay(root: Path, *runs: Record) -> None:
    for one in runs:
        one.write(root / one.id.record)
        if one.predictions:
            SAID.write(root / one.id.predictions)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Every run of every method, all of which count."""
    lay(tmp_path, *(run(method, seed) for method in STAGES for seed in range(2)))
    monkeypatch.setattr(records, "is_current", lambda *_: True)
    write_json(tmp_path / paths.meta(TASK), {"kind": "classify", "classes": ["a", "b"]})
    return tmp_path


def test_each_cell_has_its_runs_or_says_why_not(root):
    found = records.load(PROFILE, root)
    assert [one.seed for one in found.of(TASK, "ibma")] == [0, 1]
    assert list(found.of_task(TASK)) == list(STAGES) and not found.absent
    assert {cell[0] for cell in found.gaps} == set(PROFILE.studies()), "no study was run"
    assert set(found.gaps.values()) == {records.NO_RECORD}
    (root / run("ibma", 0).id.record).unlink()
    lay(root, run("ce3", 1, profile="paper"))
    (root / run("concat", 0).id.record).unlink()
    (root / run("concat", 1).id.record).unlink()
    found = records.load(PROFILE, root)
    assert [one.seed for one in found.of(TASK, "ibma")] == [1]
    assert found.why(TASK, "ibma") == found.why(TASK, "ce3") == "1 of 2 runs not run: no record"
    assert found.why(TASK, "concat") == records.NO_RECORD and not found.of(TASK, "concat")
    assert found.why(TASK, "nobody") == "not run: no method nobody in this profile"


def test_what_other_parameters_made_is_stale_unless_keys_are_left_alone(root, monkeypatch):
    monkeypatch.setattr(records, "is_current", lambda _, __, one: one.seed == 1)
    found = records.load(PROFILE, root)
    assert found.why(TASK, "ibma") == f"1 of 2 runs {records.STALE}"
    monkeypatch.setattr(records, "is_current", lambda *_: False)
    found = records.load(PROFILE, root)
    assert found.why(TASK, "ibma") == records.STALE and not found.of(TASK, "ibma")
    assert len(records.load(PROFILE, root, check_keys=False).of(TASK, "ibma")) == 2


def test_a_key_is_current_where_it_can_be_made_again(monkeypatch):
    one = run("ibma", 0)
    asked = []
    monkeypatch.setattr(records, "expected_key", lambda *given: asked.append(given) or one.key)
    assert records.is_current(PROFILE, Path("here"), one)
    assert asked == [(PROFILE, one, Path("here"))]
    assert not records.is_current(PROFILE, Path(), replace(one, key="other", digest=""))

    def gone(*_: object) -> str:
        raise IbmaError("features are gone")

    monkeypatch.setattr(records, "expected_key", gone)
    assert not records.is_current(PROFILE, Path(), one)


def test_a_task_without_data_says_so_in_every_cell(root, monkeypatch):
    monkeypatch.setattr(records, "why_not_run", lambda task, at: f"{task} is not in {at.name}")
    found = records.load(PROFILE, root)
    assert not found.of(TASK, "ibma") and not found.all()
    assert found.why(TASK, "ibma") == f"not run: {TASK} is not in {root.name}"


def test_a_link_that_leads_nowhere_is_refused_as_a_record(root):
    file = root / run("ibma", 0).id.record
    file.unlink()
    file.symlink_to(root / "nowhere")
    with pytest.raises(IbmaError, match=r"seed_0\.json"):
        records.load(PROFILE, root)


def test_predictions_come_with_records_but_not_for_hundreds_of_cells(root):
    lay(root, run("ibma", 0, predictions=SAID.digest))
    noisy, regime = PROFILE.variants("noise", TASK), PROFILE.variants("regimes", TASK)
    for stage, names in (("noise", noisy), ("regimes", regime)):
        one = run("ibma", 0, stage=stage, method=next(iter(names)), predictions="0" * 64)
        one.write(root / one.id.record)  # whose predictions are not even there
    found = records.load(PROFILE, root)
    assert list(found.predictions) == [run("ibma", 0).id]
    assert found.predictions[run("ibma", 0).id].digest == SAID.digest
    assert found.problems[TASK].classes == ("a", "b") and found.problems[TASK].kind == "classify"
    (name, noise), *_ = found.of_study("noise", TASK).items()
    assert (name, noise[0].stage) == (next(iter(noisy)), "noise")
    write_json(root / paths.meta(TASK), {"classes": ["a", "b"]})
    for _ in range(2):
        with pytest.raises(IbmaError, match="says neither kind nor classes.*`dvc repro extract`$"):
            records.load(PROFILE, root)
        (root / paths.meta(TASK)).unlink(missing_ok=True)


def test_records_of_each_eta_are_found_by_it(root):
    at = PROFILE.sensitivity
    (eta,) = at.etas
    assert records.load(PROFILE, root).at_etas("ibma") == {}
    lay(root, run("ibma", 1, stage="sensitivity", method=at.name("ibma", eta)))
    found = records.load(PROFILE, root)
    assert [one.seed for one in found.at_eta("ibma", eta)] == [1] and not found.at_eta("ibma", 0.9)
    assert list(found.at_etas("ibma")) == [eta] and found.at_etas("ibma")[eta][0].seed == 1
    assert found.why(TASK, "ibma", eta) == "1 of 2 runs not run: no record"
    assert found.why(TASK, "ibma") == records.NO_RECORD
    assert len(found.all()) == 7


def test_folds_count_equally_often_and_no_record_is_lost():
    """Ten runs on eight folds: runs 8 and 9 test on folds 0 and 1 again."""
    ten = PROFILE.model_copy(update={"seeds": 10})
    for folds, kept in ((8, 8), (5, 10), (4, 8), (12, 10), (None, 10)):
        cell = ("train_ibma", TASK, "ibma")
        runs = [run("ibma", seed, fold=folds and seed % folds) for seed in range(10)]
        found = records.Results(ten, {cell: runs}, {}, {})
        assert [one.seed for one in found.of(TASK, "ibma")] == list(range(kept)), folds
        assert found.all() == runs
        gap = records.Results(ten, {cell: runs, ("train", TASK, "concat"): runs[1:]}, {}, {})
        assert [one.seed for one in gap.of(TASK, "concat")] == list(range(1, kept))


def test_results_know_their_twins_headline_metric_and_folder(root):
    lay(root, *(run("ibma", seed, source="real") for seed in range(2)))
    found = records.load(PROFILE, root)
    assert found.is_twin(TASK) and not found.is_twin("nobody") and not found.is_twin(None)
    real = {method: found.of(TASK, method) for method in ("ibma",)}
    only = replace(found, runs={("train_ibma", TASK, "ibma"): real["ibma"]})
    assert not only.is_twin(TASK)
    assert found.headline(TASK) == "accuracy" == found.headline("nobody")
    other = [run("ibma", 0, metrics={"auc/mean": 0.5, "mauc": 0.5})]
    assert replace(only, runs={("train_ibma", TASK, "ibma"): other}).headline(TASK) == "mauc"
    assert found.of(None, "ibma") == found.of(TASK, None) == found.of(TASK, "nobody") == ()
    assert records.folder(found.of(TASK, "ibma")) == f"runs/train_ibma/{TASK}/ibma"
    assert records.folder([]) == "" and records.folder(real["ibma"][:1])


def test_numbers_come_in_the_unit_of_their_table():
    runs = [run("ibma", seed, metrics={"accuracy": 0.25 * seed, "mae": 2.0}) for seed in range(3)]
    runs.append(run("ibma", 3, metrics={"accuracy": None}))
    assert records.values(runs, "accuracy", "percent") == [0.0, 25.0, 50.0]
    assert records.values(runs, "accuracy", "fraction") == [0.0, 0.25, 0.5]
    assert records.values(runs, "ib/fused", "nats") == [0.2] * 4
    odd = run("ibma", 0, ib={"left/right": 0.5}, metrics={"auc/a/b": 0.25})
    assert (records.value(odd, "ib/left/right"), records.value(odd, "auc/a/b")) == (0.5, 0.25)
    assert records.value(runs[0], "ib/nobody") is records.value(runs[0], "other") is None
    assert [records.unit_of(m) for m in ("mae", "corr", "auc")] == ["score", "score", "percent"]
    whole = records.summary(runs, "accuracy", "percent")
    assert whole == stats.summary([0.0, 25.0, 50.0], (0.0, 100.0)) and whole.low == 0.0
    assert records.summary(runs, "accuracy", "fraction").low == 0.0
    free = records.summary([run("ibma", s, metrics={"mae": float(s)}) for s in (0, 9)], "mae", "x")
    assert free.low < 0 < 9 < free.high
    assert records.summary(runs, "other", "percent") is None


def test_pairs_are_of_the_seeds_that_both_have():
    def of(*values: float | None) -> list[Record]:
        return [run("ibma", seed, metrics={"accuracy": v}) for seed, v in enumerate(values)]

    ours, theirs = of(0.5, None, 0.75, 1.0), of(0.25, 0.5, None)
    assert records.pairs(ours, theirs, "accuracy", "percent") == [(50.0, 25.0)]
    assert records.pairs(ours, theirs[::-1], "accuracy", "score") == [(0.5, 0.25)]
