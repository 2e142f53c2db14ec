"""Statistics over seeds against hand-computed values and their own invariances."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibma.errors import IbmaError
from ibma.results import stats
from ibma.results.resampling import draws
from ibma.results.stats import Summary, holm, paired, summary

# accuracies of 744 CREMA-D test clips, as fractions
ACCURACIES = st.integers(0, 744).map(lambda right: right / 744)
PAIRS = st.lists(st.tuples(ACCURACIES, ACCURACIES), min_size=1, max_size=6)


def test_summary_by_hand() -> None:
    """1, 2, 3: sd 1, standard error 1/sqrt 3, t(0.975, 2) = 4.30265."""
    result = summary([1, 2, 3])
    assert (result.mean, result.n) == (2, 3)
    assert result.sd == pytest.approx(1)
    assert result.low == pytest.approx(2 - 4.302652730 / math.sqrt(3))
    assert result.high == pytest.approx(2 + 4.302652730 / math.sqrt(3))


def test_summary_of_one_seed_has_no_spread() -> None:
    assert summary([0.7]) == Summary(0.7, None, 1, None, None)


def test_equal_seeds_have_no_spread_whatever_rounding_says() -> None:
    """The mean of three times 0.1 is not 0.1 in floating point."""
    assert summary([0.1, 0.1, 0.1]) == Summary(0.1, 0.0, 3, 0.1, 0.1)


def test_an_interval_is_cut_where_no_mean_can_be() -> None:
    """Its half is 4.30265 sqrt(.19 / 3) = 1.08 around .7; the mean and the sd stay."""
    values = [0.2, 0.9, 1.0]
    free, cut = summary(values), summary(values, (0.0, 1.0))
    assert (free.low, free.high) == pytest.approx((0.7 - 1.0828, 0.7 + 1.0828), abs=1e-4)
    assert (cut.low, cut.high) == (0.0, 1.0) and (cut.mean, cut.sd) == (free.mean, free.sd)


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf]])
def test_summary_refuses_missing_values(values: list[float]) -> None:
    with pytest.raises(IbmaError, match=r"^values: .* expected one finite number per seed"):
        summary(values)


@settings(deadline=None)
@given(st.lists(ACCURACIES, min_size=2, max_size=10))
def test_summary_interval_is_centred_on_the_mean(values: list[float]) -> None:
    result = summary(values)
    assert result.low is not None and result.high is not None
    assert result.low <= result.mean <= result.high
    assert result.high - result.mean == pytest.approx(result.mean - result.low)
    assert min(values) - 1e-12 <= result.mean <= max(values) + 1e-12


def test_paired_by_hand() -> None:
    """Differences 1, 2, 3, 4: mean 2.5, sd sqrt(5/3), t = 2.5 / (sd / 2), 3 degrees of freedom.

    All four signs agree, so the exact signed-rank p is 2 / 2^4. t(0.975, 3) = 3.18245.
    """
    result = paired([11, 12, 13, 14], [10, 10, 10, 10])
    sd = math.sqrt(5 / 3)
    assert result.difference == 2.5
    assert result.t == pytest.approx(2.5 / (sd / 2))
    assert result.p == pytest.approx(0.030466291662, rel=1e-8)
    assert result.low == pytest.approx(2.5 - 3.182446305 * sd / 2)
    assert result.high == pytest.approx(2.5 + 3.182446305 * sd / 2)
    assert result.wilcoxon_p == pytest.approx(0.125)
    assert result.effect == pytest.approx(2.5 / sd)
    assert result.n == 4


def test_ten_seeds_have_every_quantity_and_no_note() -> None:
    ours = [0.654, 0.651, 0.660, 0.649, 0.655, 0.658, 0.652, 0.650, 0.657, 0.653]
    baseline = [0.636, 0.640, 0.633, 0.635, 0.639, 0.634, 0.637, 0.631, 0.638, 0.635]
    result = paired(ours, baseline)
    assert result.note == ""
    assert result.wilcoxon_p == pytest.approx(2 / 2**10)
    assert result.effect is not None and result.t == pytest.approx(result.effect * math.sqrt(10))
    assert result.effect_low is not None and result.effect_high is not None
    assert 0 < result.effect_low < result.effect < result.effect_high
    assert paired(ours, baseline) == result


def test_one_pair_is_only_a_difference() -> None:
    result = paired([0.6], [0.5])
    assert result.difference == pytest.approx(0.1)
    assert (result.n, result.p, result.low, result.effect) == (1, None, None, None)
    assert "one pair" in result.note


@pytest.mark.parametrize(
    ("ours", "baseline"),
    [([0.3, 0.4, 0.5], [0.2, 0.3, 0.4]), ([0.5, 0.5], [0.5, 0.5])],
    ids=["equal up to rounding", "no difference"],
)
def test_equal_differences_have_no_test(ours: list[float], baseline: list[float]) -> None:
    result = paired(ours, baseline)
    assert result.difference == pytest.approx(ours[0] - baseline[0])
    undefined = (result.low, result.high, result.t, result.p, result.wilcoxon_p, result.effect)
    assert undefined == (None,) * 6
    assert f"all {len(ours)} differences are equal" in result.note


@pytest.mark.parametrize("n", [4, 9])
def test_the_interval_of_the_effect_is_bca_of_d_z(n: int) -> None:
    """The same draws, one at a time."""
    from scipy.stats import bootstrap

    def d_z(x: np.ndarray) -> float:
        mean = sum(x) / len(x)
        if len(set(x)) == 1:
            return math.copysign(math.inf, mean)
        return mean / math.sqrt(sum((v - mean) ** 2 for v in x) / (len(x) - 1))

    x = np.round(np.random.default_rng(n).normal(0.5, 1, n), 3)
    found = paired(list(x), [0.0] * n)
    expected = bootstrap(
        (x,), d_z, n_resamples=2000, vectorized=False, method="BCa", rng=0
    ).confidence_interval
    assert found.effect == pytest.approx(d_z(x))
    assert (found.effect_low, found.effect_high) == pytest.approx(
        (expected.low, expected.high), rel=0.01
    )
    assert found.note == ""


@pytest.mark.parametrize(
    ("pairs", "there"),
    [
        ([0.63, 0.37, 1.14], True),
        ([1.04, 0.71, 0.86], False),  # its upper end is infinite
        ([0.6, -0.04, 0.86], False),  # its lower end is
        ([0.3, 0.1, 0.4], False),  # of three times .1, though rounding gives these a spread
    ],
)
def test_three_pairs_have_an_interval_of_the_effect_where_both_ends_are_numbers(
    pairs: list[float], there: bool
) -> None:
    found = paired(pairs, [0.0] * 3)
    assert found.effect is not None and found.p is not None
    known = found.note == "", found.effect_low is not None, found.effect_high is not None
    assert set(known) == {there}


def test_few_pairs_keep_the_test_and_lose_the_effect_interval() -> None:
    with warnings.catch_warnings(action="error"):
        result = paired([0.6, 0.7], [0.5, 0.5])
    assert result.p is not None and result.effect is not None
    assert (result.effect_low, result.effect_high) == (None, None)
    assert "2 pairs" in result.note


def test_tied_ranks_survive_rounding() -> None:
    """0.6 - 0.5 and 0.4 - 0.5 tie in size, so +0.1, -0.1 and +0.2 rank 1.5, 1.5 and 3.

    W- = 1.5; of the 8 sign patterns 3 give at most that, so the two-sided p is 6 / 8.
    """
    assert paired([0.6, 0.4, 0.7], [0.5, 0.5, 0.5]).wilcoxon_p == pytest.approx(0.75)


def test_paired_refuses_unequal_seeds_and_missing_values() -> None:
    good, bad = [0.1, 0.2], [0.1, math.nan]
    with pytest.raises(IbmaError, match="^paired test: 3 runs against 2: .*train the missing"):
        paired([0.1, 0.2, 0.3], [0.1, 0.2])
    for name, sides in (("ours", (bad, good)), ("baseline", (good, bad))):
        with pytest.raises(IbmaError, match=f"^{name}: .*nan"):
            paired(*sides)


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_swapping_the_sides_flips_the_signs(pairs: list[tuple[float, float]]) -> None:
    ours, baseline = (list(side) for side in zip(*pairs, strict=True))
    there, back = paired(ours, baseline), paired(baseline, ours)
    assert there.difference == -back.difference
    if there.p is None:
        assert there.note and there.note == back.note
        return
    assert back.p == pytest.approx(there.p)
    assert back.wilcoxon_p == pytest.approx(there.wilcoxon_p)
    assert there.t is not None and back.t == pytest.approx(-there.t)
    assert there.low is not None and back.high == pytest.approx(-there.low)
    assert there.effect is not None and back.effect == pytest.approx(-there.effect)
    assert (there.effect_low is None) == bool(there.note)


def test_holm_by_hand() -> None:
    """0.01 x 3, then 0.03 x 2; 0.04 x 1 is below that, so it is raised to 0.06."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.2]) == pytest.approx([0.2])
    assert holm([]) == [] and holm([0.0, 1.0]) == [0.0, 1.0]


@pytest.mark.parametrize("bad", [-0.1, 1.5, math.nan])
def test_holm_refuses_what_is_no_probability(bad: float) -> None:
    with pytest.raises(IbmaError, match="from 0 to 1"):
        holm([0.1, bad])


# statsmodels collects garbage in every call, tens of milliseconds each: few examples
@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, corrected in zip(p_values, adjusted, strict=True):
        assert raw <= corrected + 1e-12
        assert corrected <= min(1, raw * len(p_values)) + 1e-12
    in_order = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    assert in_order == sorted(in_order)


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_critical_difference_has_demsars_constants(methods, q):
    """Table 5(a) of Demsar, JMLR 2006; his formula: q sqrt(k (k + 1) / (6 N))."""
    expected = q * (methods * (methods + 1) / (6 * 14)) ** 0.5
    assert stats.critical_difference(methods, 14) == pytest.approx(expected, abs=2e-3)


def test_mean_ranks_share_ties_and_leave_out_what_a_task_lacks():
    scores = {
        "one": {"a": 3.0, "b": 2.0, "c": 2.0, "d": 9.0},
        "two": {"a": 1.0, "b": 2.0, "c": 0.0},
    }
    assert list(stats.mean_ranks(scores).items()) == [("a", 1.5), ("b", 1.75), ("c", 2.75)]
    scores["two"] |= {"c": 9.0, "a": -1.0}
    assert list(stats.mean_ranks(scores).items()) == [("c", 1.75), ("a", 2.0), ("b", 2.25)]


def total(ours: list[float], baseline: list[float], *rest: object) -> stats.Total:
    found = stats.total(ours, baseline, *rest)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_total_by_hand() -> None:
    """Differences 1 to 4: variance 5/3 over runs, times 1/4 + overlap; t(0.975, 3) = 3.18245."""
    from scipy.stats import t

    drawn = np.append(np.random.default_rng(0).normal(0, 0.3, 400), np.nan)
    known = drawn[:-1]  # a draw that leaves the metric undefined counts for nothing
    found = total([11, 12, 13, 14], [10, 10, 10, 10], drawn, 1.0, 0.25)
    runs, samples = 5 / 3 * 0.5, known.var(ddof=1)
    se = math.sqrt(runs + samples)
    assert found.se_runs == pytest.approx(math.sqrt(runs))
    assert found.se_samples == pytest.approx(math.sqrt(samples))
    assert found.samples_low == pytest.approx(np.quantile(known, 0.025))
    assert found.samples_high == pytest.approx(np.quantile(known, 0.975))
    assert (found.low, found.high) == pytest.approx((2.5 - 3.182446 * se, 2.5 + 3.182446 * se))
    assert found.p == pytest.approx(2 * t.sf(2.5 / se, 3))
    assert found.equivalent_p == pytest.approx(t.sf((1.0 - 2.5) / se, 3))
    alone = total([11, 12], [10, 10], None, 1.0)
    assert (alone.se_samples, alone.samples_low, alone.samples_high) == (None, None, None)
    still = total([11, 11], [10, 10], drawn, 1.0)
    assert still.se_runs == 0 and still.high - still.low > 0


def test_shared_training_samples_make_a_test_more_careful() -> None:
    """10 runs, a quarter of the samples held out: t shrinks by sqrt(1 + 10 / 3)."""
    ours, baseline = [1.0, 2.0, 3.0], [0.0, 0.5, 1.0]
    plain, shared = paired(ours, baseline), total(ours, baseline, None, 1.0, 1 / 3)
    assert total(ours, baseline, None, 1.0).p == pytest.approx(plain.p)
    assert shared.se_runs == pytest.approx(math.sqrt(2) * total(ours, baseline, None, 1.0).se_runs)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ACCURACIES, ACCURACIES), min_size=2, max_size=12), st.floats(1e-3, 0.1))
def test_without_test_rows_the_total_is_the_paired_test_and_statsmodels_tost(
    pairs: list[tuple[float, float]], margin: float
) -> None:
    from statsmodels.stats.weightstats import ttost_paired

    ours, baseline = (list(side) for side in zip(*pairs, strict=True))
    plain = paired(ours, baseline)
    found = stats.total(ours, baseline, None, margin)
    if plain.p is None:
        assert found is None
        return
    assert found is not None and found.p == pytest.approx(plain.p)
    assert (found.low, found.high) == (pytest.approx(plain.low), pytest.approx(plain.high))
    expected = ttost_paired(np.array(ours), np.array(baseline), -margin, margin)[0]
    assert found.equivalent_p == pytest.approx(expected, rel=1e-6, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(PAIRS.filter(lambda pairs: len(pairs) > 1), st.floats(1e-4, 0.1))
def test_test_rows_that_might_be_others_only_widen_an_interval(
    pairs: list[tuple[float, float]], sd: float
) -> None:
    ours, baseline = (list(side) for side in zip(*pairs, strict=True))
    drawn = np.random.default_rng(0).normal(0, sd, 500)
    with_rows, without = total(ours, baseline, drawn, 0.01), stats.total(ours, baseline, None, 0.01)
    swapped = total(baseline, ours, -drawn, 0.01)
    assert swapped.p == pytest.approx(with_rows.p) and swapped.low == pytest.approx(-with_rows.high)
    assert with_rows.se_samples == pytest.approx(drawn.std(ddof=1))
    if without is None:  # every difference is equal: what varies is the test rows
        return
    se = math.hypot(with_rows.se_runs, with_rows.se_samples or 0)
    assert se > without.se_runs and with_rows.detectable > without.detectable
    assert with_rows.low < without.low < without.high < with_rows.high
    assert total(ours, baseline, 10 * drawn, 0.01).p >= with_rows.p >= without.p


@pytest.mark.parametrize("n", [2, 5, 10, 30])
def test_the_detectable_difference_is_found_four_times_in_five(n: int) -> None:
    from statsmodels.stats.power import TTestPower

    values = list(np.random.default_rng(n).normal(size=n))
    found = total(values, [0.0] * n, None, 1.0)
    sd = found.se_runs * math.sqrt(n)
    power = TTestPower().power(found.detectable / sd, n, 0.05)
    assert power == pytest.approx(0.8, abs=2e-3)


@pytest.mark.parametrize(("runs", "at_most"), [(3, 3), (5, 9), (10, 15)])
def test_without_a_difference_few_runs_find_one_less_often_than_promised(
    runs: int, at_most: int
) -> None:
    """300 studies of two equal methods on 400 test rows of unequal difficulty."""
    rng, found = np.random.default_rng(0), 0
    drawn = draws(["one group"] * 400)
    for _ in range(300):
        rows = 0.8 + rng.normal(size=400)
        right = rows + 0.3 * rng.normal(size=(2, runs, 400)) > 0
        ours, theirs = 100.0 * right
        resampled = drawn @ (ours - theirs).mean(0) / 400
        test = stats.total(ours.mean(1).tolist(), theirs.mean(1).tolist(), resampled, 1.0)
        found += test is not None and test.p < 0.05
    assert found <= at_most


def test_nothing_that_varies_has_no_total() -> None:
    assert stats.total([0.5], [0.4], None, 1.0) is None
    assert stats.total([0.5, 0.5], [0.4, 0.4], None, 1.0) is None
    nearly = stats.total([0.3, 0.4, 0.5], [0.2, 0.3, 0.4], None, 1.0)
    assert nearly is None, "equal up to rounding"
    assert stats.total([0.5, 0.5], [0.4, 0.4], np.zeros(9), 1.0) is None


def test_friedman_of_a_textbook_example_and_of_nothing() -> None:
    """Three treatments that every block ranks alike: chi2 = n (k - 1), W = 1."""
    blocks = {block: {"a": 1.0 + block, "b": 2.0 + block, "c": 3.0 + block} for block in range(6)}
    found = stats.friedman(blocks)
    assert found is not None
    assert found.statistic == pytest.approx(12) and found.w == pytest.approx(1)
    assert found.p == pytest.approx(math.exp(-6))  # chi2 with 2 degrees of freedom
    blocks[0] = {"d": 9.0, **blocks[0]}
    assert stats.friedman(blocks) == found, "a treatment that other blocks lack is left out"
    two = stats.friedman({block: blocks[block] for block in range(2)})
    assert two is not None and two.statistic == pytest.approx(4)
    with warnings.catch_warnings(action="error"):
        equal = {block: dict.fromkeys("abc", float(block)) for block in range(2)}
        assert stats.friedman(equal) is None
    assert stats.friedman({}) is None and stats.friedman({0: blocks[0]}) is None
    assert stats.friedman({block: {"a": 1.0, "b": 2.0} for block in range(4)}) is None


@pytest.mark.parametrize(("n", "k"), [(2, 2), (2, 3), (5, 4)])
def test_the_critical_range_is_tukeys_of_what_blocks_and_treatments_leave(n: int, k: int) -> None:
    from scipy.stats import studentized_range

    x = np.random.default_rng(0).normal(size=(n, k))
    blocks = {block: dict(enumerate(row)) for block, row in enumerate(x)}
    blocks[1] = dict(reversed(blocks[1].items()))  # the order of a block says nothing
    found = stats.range_of_means(blocks)
    assert found is not None
    left, freedom = 0.0, (n - 1) * (k - 1)
    for i in range(n):
        for j in range(k):
            left += (x[i, j] - x[i].mean() - x[:, j].mean() + x.mean()) ** 2
    sd = math.sqrt(left / freedom)
    assert found.sd == pytest.approx(sd)
    assert found.range == pytest.approx(x.mean(0).max() - x.mean(0).min())
    q = studentized_range.ppf(0.95, k, freedom)
    assert found.critical == pytest.approx(q * sd / math.sqrt(n))


def test_shared_training_samples_make_a_range_less_surprising() -> None:
    """Nadeau and Bengio: 1/n becomes 1/n + overlap, here 1/5 + 1/4."""
    x = np.random.default_rng(0).normal(size=(5, 4))
    blocks = {block: dict(enumerate(row)) for block, row in enumerate(x)}
    alone, folded = stats.range_of_means(blocks), stats.range_of_means(blocks, 0.25)
    assert alone is not None and folded is not None
    assert folded.critical == pytest.approx(alone.critical * math.sqrt(0.45 / 0.2))
    assert folded.range == alone.range and folded.sd == alone.sd


def test_the_range_of_means_is_beyond_luck_in_five_of_a_hundred() -> None:
    rng = np.random.default_rng(0)
    beyond = 0
    for _ in range(400):
        noise = rng.normal(size=(10, 4)) + 5 * rng.normal(size=(10, 1))
        found = stats.range_of_means({i: dict(enumerate(row)) for i, row in enumerate(noise)})
        assert found is not None
        beyond += found.range > found.critical
    assert 8 <= beyond <= 34  # 20 expected
    assert stats.range_of_means({0: {0: 1.0, 1: 2.0}}) is None
    assert stats.range_of_means({0: {0: 1.0}, 1: {0: 2.0}}) is None and not stats.range_of_means({})
