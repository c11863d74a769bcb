"""One-sided tests: how surprising the runs would be if a claim were false (p_for), and if it were true (p_against)."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import bdtr, bdtrc, betaincinv, stdtr

from resnetlab.report.statistics import mean_difference

__all__ = ["Tails", "clopper_pearson", "difference", "share", "slope", "within"]


@dataclass(frozen=True)
class Tails:
    """p_for: of data this favourable to the claim if it were just false; p_against: this unfavourable if just true.

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

    @property
    def favourable(self) -> bool:
        return self.p_for < self.p_against


def upper(t: float, freedom: float) -> float:
    """P(T > t) of Student's t."""
    return float(stdtr(freedom, -t))


def difference(a: Sequence[float], b: Sequence[float], expect: str, margin: float) -> Tails | None:
    """Welch's test that mean(a) is higher or lower than mean(b) by more than margin, or equal to within it.

    equal: two one-sided tests. None where a side has one run, or no run differs from its side.
    """
    found = mean_difference(a, b)
    if found is None:
        return None
    sd = found.error * math.sqrt(min(len(a), len(b)) / 2)
    return tails(found.difference, found.error, found.freedom, expect, margin, sd)


def tails(apart: float, error: float, freedom: float, expect: str, margin: float, sd: float) -> Tails:
    if expect == "equal":
        above, below = upper((apart - margin) / error, freedom), upper((-apart - margin) / error, freedom)
        inside = max(1 - above, 1 - below)
        return Tails(inside, min(1.0, 2 * min(above, below)), margin - abs(apart), sd)
    towards = apart if expect == "higher" else -apart
    p = upper((towards - margin) / error, freedom)
    return Tails(p, 1 - p, towards - margin, sd)


def within(values: Sequence[float], at_least: float | None, at_most: float | None) -> Tails | None:
    """Student's test of the mean against a bound, or of its lying between two. None with one run or no scatter."""
    if len(values) < 2 or (sd := statistics.stdev(values)) <= 1e-12 * max(map(abs, values)):
        return None
    mean, error, freedom = statistics.fmean(values), sd / math.sqrt(len(values)), len(values) - 1
    sides = [mean - at_least] if at_least is not None else []
    sides += [at_most - mean] if at_most is not None else []
    ps = [upper(inside / error, freedom) for inside in sides]
    return Tails(max(ps), min(1.0, len(ps) * (1 - max(ps))), min(sides), sd)


def share(successes: int, n: int, least: float, most: float) -> Tails:
    """The exact binomial test of a success rate of at least `least`, at most `most`, or between."""
    ps, others = [], []
    if least > 0:  # P(X >= k) at the bound, P(X <= k) at the bound
        ps.append(float(bdtrc(successes - 1, n, least)) if successes else 1.0)
        others.append(float(bdtr(successes, n, least)))
    if most < 1:
        ps.append(float(bdtr(successes, n, most)))
        others.append(float(bdtrc(successes - 1, n, most)) if successes else 1.0)
    return Tails(max(ps), min(1.0, len(ps) * min(others)))


def clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a success rate."""
    low = float(betaincinv(successes, n - successes + 1, 0.025)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 0.975)) if successes < n else 1.0
    return low, high


def slope(xs: Sequence[float], ys: Sequence[float], expect: str) -> Tails | None:
    """The t-test of a straight line's slope, as of a correlation. None with fewer than four points or none apart."""
    n = len(xs)
    if n < 4 or len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    r = statistics.correlation(xs, ys)
    t = math.inf if abs(r) >= 1 else r * math.sqrt((n - 2) / (1 - r * r))
    t = math.copysign(t, r)
    p = upper(t if expect == "rising" else -t, n - 2)
    return Tails(p, 1 - p)
