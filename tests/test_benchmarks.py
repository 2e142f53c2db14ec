"""The benchmark harness: its arithmetic, its table, and that it compares equal things."""

import numpy as np
import pytest
import torch

from benchmarks import seeds, stage, terms
from benchmarks.__main__ import END, PAGE, START, rewritten
from benchmarks.growth import Curve
from benchmarks.measure import Goal, Row, Spread, interleaved, peak_bytes, ratio, slope, table
from benchmarks.problems import Problem, View
from ibma.network import bounds


def test_a_ratio_is_taken_round_by_round():
    slow_machine = [2.0, 4.0, 200.0]
    assert ratio(slow_machine, [1.0, 2.0, 100.0]) == Spread(2.0, 2.0, 2.0)
    assert ratio([1.02, 1.04], [1.0, 1.0], less=1.0).median == pytest.approx(0.03)


def test_rounds_alternate_their_order_and_the_first_is_not_counted():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = interleaved(functions, 2)
    assert "".join(calls) == "ba" + "ab" + "ba"
    assert {name: len(column) for name, column in times.items()} == {"a": 2, "b": 2}


def test_a_goal_is_judged_by_the_median():
    spread = Spread(0.5, 0.91, 2.0)
    row = Row("epoch", "1 s", "limit 1 s", spread, "share", Goal("at least", 0.9))
    assert row.cells()[-3:] == ["50.00 % to 200.00 %", "at least 90.00 %", "met"]
    assert not Goal("at most", 0.9).met(spread.median)
    lines = table([row, Row("no goal", "1", "1", Spread.exactly(1.0))]).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1


def test_exponents():
    sizes = (10, 20, 40)
    assert slope(sizes, [3.0 * n**2 for n in sizes]) == pytest.approx(2.0)
    rounds = [[n * speed for speed in (1.0, 5.0)] for n in sizes]
    assert Curve("samples", "linear", sizes, rounds).exponents().median == pytest.approx(1.0)


def test_peak_memory_is_that_of_the_tensors():
    def run() -> None:
        a = torch.zeros(2**20)
        del a
        torch.zeros(2**21)

    assert peak_bytes(run) == pytest.approx(4 * 2**21, rel=0.01)


def test_only_what_stands_between_the_marks_is_rewritten():
    page = f"above\n{START}\nold\n{END}\nbelow\n"
    assert rewritten(page, "new") == f"above\n{START}\n\nnew\n\n{END}\nbelow\n"
    assert rewritten(rewritten(page, "old"), "new") == rewritten(page, "new")
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(START) == text.count(END) == 1


@pytest.mark.parametrize(
    "view", [View("vector", (7,), "float32", {}), View("frames", (3, 3, 4, 4), "uint8", {})]
)
def test_the_loops_and_the_stage_give_the_same_phi(tmp_path, view):
    systems = np.eye(2, dtype=np.float32)[np.random.default_rng(0).integers(0, 2, (40, 5))]
    features = Problem({"x": view}, 40, 1).store(tmp_path)
    looped = stage.loops(view.kind, features.arrays["x"], systems)
    np.testing.assert_allclose(stage.ours(features, "x", systems), looped, rtol=1e-5)


def test_v_is_the_same_in_both_forms():
    inputs = terms.assignments(8, 5, torch.device("cpu"))
    torch.testing.assert_close(bounds.v_term(*inputs), terms.v_as_written(*inputs))


def test_a_batched_model_trains_every_seed_as_alone(tmp_path):
    torch.set_num_threads(1)
    features = seeds.digits(tmp_path)
    alone, together = seeds.in_turn(features, range(2)), seeds.batched(features, range(2))
    assert len(set(alone)) == 2
    assert together == pytest.approx(alone, rel=1e-5)
