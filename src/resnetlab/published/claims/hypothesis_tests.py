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
