"""Means, intervals and paired comparisons over seeds, by scipy and statsmodels.

Knows neither records nor methods.

Runs paired by seed on one test set separate training noise (initialisation, order of batches) from
a difference between methods on that test set (`paired`). They say nothing about other samples of
the same data, because every run meets the same test examples; `total` adds those.
"""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma.errors import IbmaError

LEVEL = 0.95
POWER = 0.8  # of the test that defines the smallest detectable difference
RESAMPLES = 2000
RNG_SEED = 0  # CHOICE: fixed, so that the same records give the same interval
UNBOUNDED = (-math.inf, math.inf)
DECIMALS = 12  # of differences of fractions or percents: .6 - .5 and .5 - .4 are tied ranks

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (ddof 1) and 95 % t interval of the mean; None where n = 1."""

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Paired:
    """Ours minus the baseline over n pairs, in the unit of the values.

    low, high: 95 % t interval of the mean difference. t, p: two-sided paired t-test.
    wilcoxon_p: two-sided signed-rank test. effect: Cohen's d_z, the mean difference over the
    standard deviation (ddof 1) of the differences, with its 95 % BCa bootstrap interval.
    A quantity the pairs do not define is None and `note` says why; `note` is empty otherwise.
    """

    difference: float
    low: float | None
    high: float | None
    t: float | None
    p: float | None
    wilcoxon_p: float | None
    effect: float | None
    effect_low: float | None
    effect_high: float | None
    n: int
    note: str


@dataclass(frozen=True)
class Friedman:
    """Friedman's test of treatments over blocks; w: Kendall's concordance of blocks, 0 to 1."""

    statistic: float
    p: float
    w: float


def summary(values: Sequence[float], within: tuple[float, float] = UNBOUNDED) -> Summary:
    """Summarise one value per seed.

    Args:
        values: one value per seed.
        within: smallest and largest value that the mean can have. The t interval is cut there,
            which cannot lower its coverage: the true mean is never outside.

    Raises:
        IbmaError: a value is missing or not finite.
    """
    x = _finite(values, "values")
    n, mean = len(x), float(x.mean())
    if n == 1:
        return Summary(mean, None, 1, None, None)
    if np.ptp(x) == 0:  # where rounding of the mean would make a spread of 1e-14
        return Summary(float(x[0]), 0.0, n, float(x[0]), float(x[0]))
    low, high = _interval(x)
    low, high = (min(max(end, within[0]), within[1]) for end in (low, high))
    return Summary(mean, float(x.std(ddof=1)), n, low, high)


def paired(ours: Sequence[float], baseline: Sequence[float]) -> Paired:
    """Compare two methods whose runs are paired by seed.

    The paper reports the t-test alone (section C.4).

    Args:
        ours: one value per seed.
        baseline: values of the other method on the same seeds, in the same order.

    Raises:
        IbmaError: the lengths differ, or a value is missing or not finite.
    """
    a, b = _finite(ours, "ours"), _finite(baseline, "baseline")
    if len(a) != len(b):
        raise IbmaError(
            f"paired test: {len(a)} runs against {len(b)}: expected the same seeds on both sides: "
            "train the missing seeds"
        )
    x = np.round(a - b, DECIMALS)
    n, difference = len(x), float(x.mean())
    if n < 2:
        return _undefined(difference, n, "one pair: no spread, so no interval and no test")
    if np.ptp(x) == 0:
        return _undefined(
            difference, n, f"all {n} differences are equal: no spread, so no interval and no test"
        )

    from scipy.stats import ttest_1samp, wilcoxon

    test = ttest_1samp(x, 0)
    low, high = _interval(x)
    effect_low, effect_high, note = _effect_interval(x)
    return Paired(
        difference=difference,
        low=low,
        high=high,
        t=float(test.statistic),
        p=float(test.pvalue),
        wilcoxon_p=float(wilcoxon(x).pvalue),
        effect=float(_effect(x)),
        effect_low=effect_low,
        effect_high=effect_high,
        n=n,
        note=note,
    )


@dataclass(frozen=True)
class Total:
    """A mean difference of n pairs, with the variance of training plus that of test rows.

    Attributes:
        se_runs: standard error over runs, in the unit of the values.
        se_samples: standard error over resampled test rows, None where there are no predictions.
        samples_low, samples_high: 95 % percentile interval over resampled test rows alone.
        low, high: 95 % t interval of the difference, with n - 1 degrees of freedom. CHOICE: not
            Satterthwaite's, by which more variance could make an interval narrower.
        p: two-sided.
        equivalent_p: of TOST, that the difference is within the margin.
        detectable: the smallest true difference that a test at 5 % finds 4 times in 5.
    """

    se_runs: float
    se_samples: float | None
    samples_low: float | None
    samples_high: float | None
    low: float
    high: float
    p: float
    equivalent_p: float
    detectable: float


def total(
    ours: Sequence[float],
    baseline: Sequence[float],
    resampled: Array | None,
    margin: float,
    overlap: float = 0.0,
) -> Total | None:
    """Compare two methods whose runs are paired by seed, with the variance of test rows added.

    The variance of the mean difference is that over runs plus that over test rows (law of total
    variance). Where test folds make runs differ, the first holds some of the second: the interval
    is then too wide rather than too narrow. Runs that share training samples have the variance
    (1/n + overlap) times that of a difference, not 1/n times (Nadeau and Bengio, Machine Learning
    52, 2003).

    Args:
        ours, baseline: one value per seed, see `paired`.
        resampled: the mean difference on resampled test rows, [R]; None without predictions.
        margin: of equivalence, in the unit of the values.
        overlap: test samples per training sample where folds share these, else 0.

    Returns:
        None with fewer than two pairs, or where nothing varies.
    """
    from scipy.stats import t

    x = np.round(np.asarray(ours, float) - np.asarray(baseline, float), DECIMALS)
    n, difference = len(x), float(x.mean())
    if n < 2:
        return None
    spread = 0.0 if np.ptp(x) == 0 else float(x.var(ddof=1))
    runs = spread * (1 / n + overlap)
    samples, (low, high) = 0.0, (None, None)
    if resampled is not None:
        samples = float(np.nanvar(resampled, ddof=1))
        tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
        low, high = (float(end) for end in np.nanquantile(resampled, tails))
    if runs + samples == 0:
        return None
    se = math.sqrt(runs + samples)
    half = se * float(t.ppf((1 + LEVEL) / 2, n - 1))
    return Total(
        se_runs=math.sqrt(runs),
        se_samples=None if resampled is None else math.sqrt(samples),
        samples_low=low,
        samples_high=high,
        low=difference - half,
        high=difference + half,
        p=float(2 * t.sf(abs(difference) / se, n - 1)),
        equivalent_p=float(t.sf((margin - abs(difference)) / se, n - 1)),
        detectable=se * _detectable(n - 1),
    )


@cache
def _detectable(df: int) -> float:
    """Return the true difference, in standard errors, that a t-test finds with power .8."""
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    critical = float(t.ppf((1 + LEVEL) / 2, df))
    return float(brentq(lambda d: nct.sf(critical, df, d) - POWER, 0, 100 + critical))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of one family by Holm's step-down method, in the order given.

    Leave undefined tests out of the family.

    Raises:
        IbmaError: a p-value is not a probability.
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise IbmaError(f"Holm: p-value {p}: expected a number from 0 to 1: leave it out")
    if not p_values:
        return []

    from statsmodels.stats.multitest import multipletests

    gc.freeze()  # it collects garbage at every call: .2 s with the records of a profile
    try:
        return [float(p) for p in multipletests(p_values, method="holm")[1]]
    finally:
        gc.unfreeze()


def mean_ranks(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean rank of every method over tasks, best first; 1 is best, ties share.

    Args:
        scores: task -> method -> score, higher is better. Methods that some task lacks are left
            out.
    """
    from scipy.stats import rankdata

    methods = sorted(set.intersection(*(set(by_method) for by_method in scores.values())))
    ranks = np.array([rankdata([-by_method[m] for m in methods]) for by_method in scores.values()])
    means = dict(zip(methods, ranks.mean(0).tolist(), strict=True))
    return dict(sorted(means.items(), key=lambda pair: pair[1]))


def friedman(blocks: Mapping[Any, Mapping[Any, float]]) -> Friedman | None:
    """Test whether treatments differ, when every block (a seed, a task) meets all of them.

    Args:
        blocks: block -> treatment -> value. Treatments that some block lacks are left out.

    Returns:
        None where fewer than three treatments or two blocks are left, or all values of every block
        are equal.
    """
    from scipy.stats import friedmanchisquare

    common = set.intersection(*(set(row) for row in blocks.values())) if blocks else set()
    if len(common) < 3 or len(blocks) < 2:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        test = friedmanchisquare(
            *([row[name] for row in blocks.values()] for name in sorted(common))
        )
    statistic = float(test.statistic)
    if not math.isfinite(statistic):
        return None
    w = statistic / (len(blocks) * (len(common) - 1))
    return Friedman(statistic, float(test.pvalue), w)


@dataclass(frozen=True)
class Range:
    """Largest minus smallest mean of several treatments that meet the same blocks.

    Attributes:
        range: of the means.
        critical: what it stays below by luck alone, 95 times in 100 (Tukey's studentized range).
        sd: of the values when the means of block and treatment are taken out.
    """

    range: float
    critical: float
    sd: float


def range_of_means(blocks: Mapping[Any, Mapping[Any, float]], overlap: float = 0.0) -> Range | None:
    """Measure how far apart the means of treatments are.

    Args:
        blocks: block -> treatment -> value; all blocks have the same treatments.
        overlap: of the training samples of blocks, see `total`.

    Returns:
        None with fewer than two blocks or treatments.
    """
    x = np.array([[row[name] for name in sorted(row)] for row in blocks.values()])
    if min(x.shape) < 2:
        return None
    n, k = x.shape
    means = x.mean(0)
    left = x - x.mean(1, keepdims=True) - means + x.mean()
    sd = math.sqrt(float((left**2).sum()) / ((n - 1) * (k - 1)))
    q = _tukey(k, (n - 1) * (k - 1))
    return Range(float(np.ptp(means)), q * sd * math.sqrt(1 / n + overlap), sd)


def critical_difference(methods: int, tasks: int) -> float:
    """Return Nemenyi's critical difference of mean ranks at the 5 % level (Demsar, JMLR 2006)."""
    return (
        _tukey(methods, math.inf) / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * tasks))
    )


@cache
def _tukey(means: int, freedom: float) -> float:
    """Return the quantile of the studentized range."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(LEVEL, means, freedom))


def _finite(values: Sequence[float], name: str) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0 or not np.isfinite(x).all():
        raise IbmaError(f"{name}: {list(values)}: expected one finite number per seed: train again")
    return x


def _interval(x: Array) -> tuple[float, float]:
    from scipy.stats import sem, t

    half = float(sem(x) * t.ppf((1 + LEVEL) / 2, len(x) - 1))
    return float(x.mean()) - half, float(x.mean()) + half


def _effect(x: Array, axis: int = -1) -> Array:
    """Return Cohen's d_z along an axis; infinite where all differences are equal."""
    spread = np.where(np.ptp(x, axis=axis) == 0, 0, np.std(x, axis=axis, ddof=1))
    result: Array = np.mean(x, axis=axis) / spread
    return result


def _effect_interval(x: Array) -> tuple[float | None, float | None, str]:
    """Return the BCa interval of d_z; undefined where leaving one pair out leaves no spread."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    if len(x) > 2:  # BCa leaves one pair out, and one pair alone has no spread
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", DegenerateDataWarning)
            low, high = bootstrap(
                (x,),
                _effect,
                n_resamples=RESAMPLES,
                confidence_level=LEVEL,
                vectorized=True,
                method="BCa",
                rng=RNG_SEED,
            ).confidence_interval
        if math.isfinite(low) and math.isfinite(high):
            return float(low), float(high), ""
    return None, None, f"{len(x)} pairs: too few or too alike for an interval of the effect size"


def _undefined(difference: float, n: int, note: str) -> Paired:
    nothing = (None,) * 8
    return Paired(difference, *nothing, n, note)
