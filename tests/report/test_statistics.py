"""The report's statistics, against scipy and figures worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from resnetlab.report.statistics import (
    holm,
    least_permutation_p,
    mean_interval,
    permutation,
    pooled_sd,
    seeds_needed,
    welch,
)

A, B = [0.921, 0.925, 0.930, 0.924], [0.931, 0.935, 0.929]


def test_spread_by_hand_and_by_scipy() -> None:
    assert (found := mean_interval([1.0, 2.0, 3.0]))
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3))  # t of two degrees of freedom, from tables
    by_scipy = stats.t.interval(0.95, 3, loc=sum(A) / 4, scale=stats.sem(A))
    assert (ours := mean_interval(A))
    assert (ours.low, ours.high) == pytest.approx(by_scipy)
    # one value has no spread, and none has nothing
    assert (one := mean_interval([0.5]))
    assert (one.n, one.mean, one.sd, one.low, one.high) == (1, 0.5, None, None, None)
    assert mean_interval([]) is None
    # two have a spread and no interval: Student's would reach from -1.46 to 2.17 about accuracies of 0.21 and 0.50
    assert (two := mean_interval([0.2099, 0.4953]))
    assert (two.n, two.sd, two.low, two.high) == (2, pytest.approx(0.2018, abs=1e-4), None, None)


def test_welch_is_scipys() -> None:
    for a, b in ((A, B), ([1.0, 2.0], [1.5, 9.0])):
        assert welch(a, b) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert welch([1.0], B) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None  # nothing to judge by


def test_permutation_by_hand() -> None:
    assert permutation([1, 2], [3, 4]) == pytest.approx(2 / 6)  # only {1, 2} and {3, 4} lie so far apart
    assert permutation([1, 4], [2, 3]) == 1.0
    assert permutation([0.1, 0.2, 0.3], [0.3, 0.2, 0.1]) == 1.0


def apart(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    difference: np.ndarray = np.abs(x.mean(axis=axis) - y.mean(axis=axis))
    return difference


def test_permutation_is_scipys_and_drawn_above_20_000_ways() -> None:
    by_scipy = stats.permutation_test((A, B), apart, n_resamples=10_000, alternative="greater", vectorized=True)
    assert permutation(A, B) == pytest.approx(by_scipy.pvalue)
    many, others = np.sqrt(np.arange(12.0)), np.sqrt(np.arange(12.0) + 3)
    assert math.comb(24, 12) > 20_000
    sides = (many, others)
    by_scipy = stats.permutation_test(sides, apart, n_resamples=40_000, alternative="greater", rng=0, vectorized=True)
    assert permutation(many.tolist(), others.tolist()) == pytest.approx(by_scipy.pvalue, rel=0.1)  # both are drawn


def test_the_least_p_is_what_the_most_extreme_deal_gets() -> None:
    for n, m in ((2, 2), (3, 3), (4, 4), (2, 3)):
        low, high = list(range(n)), [100 + k for k in range(m)]
        assert permutation(low, high) >= least_permutation_p(n, m) - 1e-12
    assert permutation([1, 2, 3, 4], [5, 6, 7, 8]) == pytest.approx(least_permutation_p(4, 4))
    assert least_permutation_p(3, 3) == pytest.approx(0.1)


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_pooled_sd() -> None:
    assert pooled_sd([1, 3], [5, 5]) == pytest.approx(1.0)  # variances 2 and 0
    assert pooled_sd([1, 3], [7]) == pytest.approx(math.sqrt(2))
    assert pooled_sd([1], [2]) is None
    assert pooled_sd([1, 1], [2, 2]) is None


@pytest.mark.parametrize(("effect", "tabulated"), [(0.5, 64), (0.8, 26), (1.0, 17), (1.5, 9), (2.0, 6)])
def test_seeds_needed_are_cohens(effect: float, tabulated: int) -> None:
    """Cohen 1988, table 2.4.1: two-sided 0.05, power 0.80."""
    assert seeds_needed(-effect * 3, sd=3) == tabulated


@pytest.mark.parametrize(("effect", "alpha"), [(1.0, 0.05), (2.5, 0.005), (0.6, 0.01)])
def test_seeds_needed_have_the_power(effect: float, alpha: float) -> None:
    assert (n := seeds_needed(effect, 1.0, alpha))

    def power(n: int) -> float:
        critical = stats.t.ppf(1 - alpha / 2, 2 * n - 2)
        return float(stats.nct.sf(critical, 2 * n - 2, effect * math.sqrt(n / 2)))

    assert power(n) >= 0.799
    assert power(n - 1) < 0.801
    assert seeds_needed(1e-6, 1.0) is None
    assert seeds_needed(1000.0, 1.0, 1e-5) in (2, 3)
