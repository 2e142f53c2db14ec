"""No two cells are compared whose optimiser settings come from different rules or points."""

from dataclasses import replace

from test_tracking import RECORDS

from ibma.results.fairness import unfair
from ibma.training.record import Record

RULE = {"points": [[1e-3, 0.0], [1e-2, 0.0]], "folds": 3, "epochs": 2, "by": "accuracy"}


def cell(*rates: float, **rule: object) -> list[Record]:
    """Runs 0, 1, ... at these learning rates."""
    one = RECORDS[0]
    return [
        replace(
            one, seed=seed, params={"lr": lr, "weight_decay": 0.0}, tuned=RULE | rule, digest=""
        )
        for seed, lr in enumerate(rates)
    ]


def test_settings_that_one_rule_chose_from_its_points_are_comparable():
    assert not unfair(cell(1e-3, 1e-2), cell(1e-2, 1e-2))
    assert not unfair([], []) and not unfair(cell(1e-3), [])


def test_other_points_folds_or_epochs_are_refused():
    for other in ({"points": [[1e-3, 0.0]]}, {"folds": 5}, {"epochs": 9}, {"by": "mauc"}):
        assert unfair(cell(1e-3), cell(1e-3, **other)), other


def test_a_setting_outside_of_the_points_is_refused():
    assert unfair(cell(1e-3), cell(2e-3))
    assert unfair(cell(2e-3), cell(1e-3))


def test_where_nothing_can_be_chosen_pairs_must_be_at_equal_points():
    in_turn = cell(1e-3, 1e-2, by=None)
    assert not unfair(in_turn, cell(1e-3, 1e-2, by=None))
    assert not unfair(in_turn, cell(1e-3, by=None)), "a seed without its pair is not compared"
    assert unfair(in_turn, cell(1e-2, 1e-3, by=None))
