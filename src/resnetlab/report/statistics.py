"""Statistics of few runs: confidence intervals, Welch's, one-sided and permutation tests, Holm, and the seeds needed.

Why not scipy.stats and statsmodels, to which they are equal within 5e-16: docs/decisions.md.
"""

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.special import betaincinv, nctdtrinc, stdtr, stdtrit

MOST_PERMUTATIONS = 20_000  # up to so many, all are counted; above, as many are drawn
POWER = 0.8  # chance of a test to find a difference that is there
MOST_SEEDS = 10_000
LEAST_RUNS = 3  # for an interval: at n = 2 it is 13 times as wide as the runs are apart


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """Mean of n values; sd of a sample (n - 1), None for n = 1; 95 % confidence interval of the mean, None below 3."""

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def mean_interval(values: Sequence[float]) -> MeanInterval | None:
    """Student's interval, mean +- t sd / sqrt(n); None without a value."""
    n = len(values)
    if n == 0:
        return None
    mean = statistics.fmean(values)
    if n == 1:
        return MeanInterval(1, mean)
    sd = statistics.stdev(values)
    if sd < 1e-12 * max(map(abs, values)):  # rounding
        sd = 0.0
    if n < LEAST_RUNS:
        return MeanInterval(n, mean, sd)
    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    return MeanInterval(n, mean, sd, mean - half, mean + half)


def welch(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of Welch's t-test, which allows for unequal sd; None where a side has n = 1 or neither has an sd."""
    if (found := mean_difference(a, b)) is None:
        return None
    difference, error, freedom = found
    return float(2 * stdtr(freedom, -abs(difference) / error))


def mean_difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float] | None:
    """mean(a) - mean(b), its standard error, Welch's degrees of freedom; None where a side has n = 1 or none an sd."""
    if min(len(a), len(b)) < 2:
        return None
    errors = [statistics.variance(side) / len(side) for side in (a, b)]
    total = sum(errors)
    if total <= 1e-24 * max(map(abs, (*a, *b))) ** 2:  # rounding
        return None
    freedom = total**2 / sum(error**2 / (len(side) - 1) for error, side in zip(errors, (a, b), strict=True))
    return statistics.fmean(a) - statistics.fmean(b), math.sqrt(total), freedom


@dataclass(frozen=True)
class OneSidedTest:
    """Result of a test for and against a claim.

    p_for: of data this favourable to the claim if it were just false; p_against: this unfavourable if just true.
    distance and sd: how far the estimate is from what would be just false, and the scatter, for the number of seeds.
    """

    p_for: float
    p_against: float
    distance: float = 0.0
    sd: float = 0.0

    @property
    def p(self) -> float:
        """Two-sided."""
        return min(1.0, 2 * min(self.p_for, self.p_against))


def difference_test(a: Sequence[float], b: Sequence[float], expect: str, margin: float) -> OneSidedTest | None:
    """Welch's test that mean(a) is higher or lower than mean(b) by more than margin, or equal to within it.

    equal: two one-sided tests. None where a side has one run, or no run differs from its side.
    """
    found = mean_difference(a, b)
    if found is None:
        return None
    apart, error, freedom = found
    inside = {"higher": [apart - margin], "lower": [-apart - margin], "equal": [margin - apart, margin + apart]}
    return bounds_test(inside[expect], error, freedom, error * math.sqrt(min(len(a), len(b)) / 2))


def level_test(values: Sequence[float], at_least: float | None, at_most: float | None) -> OneSidedTest | None:
    """Student's test of the mean against a bound, or of its lying between two. None with one run or no scatter."""
    found = mean_interval(values)
    if found is None or not found.sd:
        return None
    inside = [found.mean - at_least] if at_least is not None else []
    inside += [at_most - found.mean] if at_most is not None else []
    return bounds_test(inside, found.sd / math.sqrt(found.n), found.n - 1, found.sd)


def bounds_test(inside: Sequence[float], error: float, freedom: float, sd: float) -> OneSidedTest:
    """The test that an estimate is inside all bounds. inside: by how much it is, negative where it is outside."""
    p = float(stdtr(freedom, -min(inside) / error))  # P(T > t) of Student's t
    return OneSidedTest(p, min(1.0, len(inside) * (1 - p)), min(inside), sd)


def permutation(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the permutation test of the means: all permutations, or 20,000 random ones."""
    pooled = np.array([*a, *b])
    matrix = permutation_matrix(len(a), len(b))
    first = matrix @ pooled
    differences = np.abs(first / len(a) - (pooled.sum() - first) / len(b))
    observed = abs(statistics.fmean(a) - statistics.fmean(b))
    extreme = int((differences >= observed - 1e-9 * (1e-9 + np.abs(pooled).max())).sum())  # ties survive rounding
    exact = math.comb(len(pooled), len(a)) <= MOST_PERMUTATIONS
    return extreme / len(matrix) if exact else (extreme + 1) / (len(matrix) + 1)


@lru_cache(maxsize=64)
def permutation_matrix(n: int, m: int) -> np.ndarray:
    """Rows of n ones among n + m: the members of the first group."""
    if math.comb(n + m, n) <= MOST_PERMUTATIONS:
        chosen = np.array(list(combinations(range(n + m), n)))
    else:
        chosen = np.argsort(np.random.default_rng(0).random((MOST_PERMUTATIONS, n + m)), axis=1)[:, :n]
    rows = np.zeros((len(chosen), n + m))
    np.put_along_axis(rows, chosen, 1.0, axis=1)
    return rows


def least_permutation_p(n: int, m: int) -> float:
    """The smallest p that the permutation test can give: 1/3 at n = 2 and 2, 0.1 at 3 and 3, 0.029 at 4 and 4."""
    return (2 if n == m else 1) / math.comb(n + m, n)


def pooled_sd(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The common sd of both sides; None where both have n = 1, or no run differs from its side."""
    freedom = len(a) + len(b) - 2
    if freedom < 1:
        return None
    square = sum((len(side) - 1) * statistics.variance(side) for side in (a, b) if len(side) > 1) / freedom
    return math.sqrt(square) or None


def share_interval(k: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share, of which k in n are seen."""
    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    return low, float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p values; None stays None and is not counted."""
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    floor = 0.0
    for rank, (p, place) in enumerate(known):
        floor = max(floor, min(1.0, (len(known) - rank) * p))
        adjusted[place] = floor
    return adjusted


def seeds_needed(difference: float, sd: float, alpha: float = 0.05) -> int | None:
    """Seeds on each side at which a t-test finds that difference in four of five tries; None above 10,000."""
    counts, effects = detectable_effects(alpha)
    place = bisect_left(effects, -abs(difference) / sd)  # ascending, because negated
    return counts[place] if place < len(counts) else None


@lru_cache(maxsize=64)
def detectable_effects(alpha: float) -> tuple[list[int], list[float]]:
    """(n, minus the difference in sd that n and n runs show with POWER): n from 2, above 100 in steps of 4 %."""
    counts = sorted({*range(2, 101), *(round(100 * 1.04**k) for k in range(118)), MOST_SEEDS})
    n = np.array(counts, dtype=float)
    critical = stdtrit(2 * n - 2, 1 - alpha / 2)
    effects = nctdtrinc(2 * n - 2, 1 - POWER, critical) / np.sqrt(n / 2)
    return counts, (-effects).tolist()
