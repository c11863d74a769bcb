"""One-sided tests for and against a claim about a mean or a difference of means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtr

from resnetlab.report.statistics import mean_difference, mean_interval


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

    @property
    def favourable(self) -> bool:
        return self.p_for < self.p_against


def upper_tail(t: float, freedom: float) -> float:
    """P(T > t) of Student's t."""
    return float(stdtr(freedom, -t))


def difference_test(a: Sequence[float], b: Sequence[float], expect: str, margin: float) -> OneSidedTest | None:
    """Welch's test that mean(a) is higher or lower than mean(b) by more than margin, or equal to within it.

    equal: two one-sided tests. None where a side has one run, or no run differs from its side.
    """
    found = mean_difference(a, b)
    if found is None:
        return None
    apart, error, freedom = found
    sd = error * math.sqrt(min(len(a), len(b)) / 2)
    if expect == "equal":
        above, below = upper_tail((apart - margin) / error, freedom), upper_tail((-apart - margin) / error, freedom)
        inside = max(1 - above, 1 - below)
        return OneSidedTest(inside, min(1.0, 2 * min(above, below)), margin - abs(apart), sd)
    towards = apart if expect == "higher" else -apart
    p = upper_tail((towards - margin) / error, freedom)
    return OneSidedTest(p, 1 - p, towards - margin, sd)


def level_test(values: Sequence[float], at_least: float | None, at_most: float | None) -> OneSidedTest | None:
    """Student's test of the mean against a bound, or of its lying between two. None with one run or no scatter."""
    found = mean_interval(values)
    if found is None or not found.sd:
        return None
    sides = [found.mean - at_least] if at_least is not None else []
    sides += [at_most - found.mean] if at_most is not None else []
    ps = [upper_tail(inside / (found.sd / math.sqrt(found.n)), found.n - 1) for inside in sides]
    return OneSidedTest(max(ps), min(1.0, len(ps) * (1 - max(ps))), min(sides), found.sd)
