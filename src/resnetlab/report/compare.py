"""Tests of pairs of configurations, with verdicts in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from resnetlab.report.groups import Configuration, differing_keys, format_value
from resnetlab.report.paired import PairedTests, paired_tests
from resnetlab.report.statistics import holm, least_permutation_p, permutation, pooled_sd, seeds_needed, welch

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of two configurations. difference: mean of the first minus mean of the second.

    p: Welch's, or where no run differs from its side the permutation test's; adjusted: that p after Holm over all
    comparisons of the metric. None: not to be had at this n. verdict: in words. seeds: on each side, at which a t-test
    would show this difference in four of five tries; infinite above 10,000, None without a difference or a spread.
    """

    first: Configuration
    second: Configuration
    key: str
    metric: str
    counts: tuple[int, int]
    difference: float
    welch_p: float | None
    permutation_p: float | None
    adjusted: float | None = None
    seeds: float | None = None
    verdict: str = ""
    paired: PairedTests | None = None  # of final_val_acc, where both sides have kept predictions of the same images

    @property
    def sides(self) -> tuple[str, str]:
        """The key's value on each side."""
        first, second = (format_value(c.setting(self.key)) for c in (self.first, self.second))
        if first == second:  # a value that is set here and a default there
            return self.first.label, self.second.label
        return tuple("default" if side == "None" else side for side in (first, second))  # type: ignore[return-value]

    @property
    def p(self) -> float | None:
        return self.permutation_p if self.welch_p is None else self.welch_p


def compare(configurations: Sequence[Configuration], metric: str) -> list[Comparison]:
    """Every pair of one study that differs in exactly one key, and has the metric on each side; the least p first."""
    found = []
    by_name = sorted((c for c in configurations if c.values(metric)), key=lambda c: (c.study, c.name))
    for first, second in combinations(by_name, 2):
        if first.study == second.study and len(keys := differing_keys(first, second) or ()) == 1:
            found += [run_tests(first, second, key, metric) for key in keys]
    return sorted(with_verdicts(found), key=lambda c: (c.p is None, c.p or 0.0))


def compare_with_best(best: Configuration, others: Sequence[Configuration], metric: str) -> list[Comparison]:
    """The best against each other one, whatever the keys in which they differ.

    Holm's correction counts all pairs: which of them are tested has been chosen by the same results.
    """
    found = [run_tests(best, other, "", metric) for other in others if other.values(metric)]
    return with_verdicts(found, untested=math.comb(len(found), 2))


def with_verdicts(found: Sequence[Comparison], untested: int = 0) -> list[Comparison]:
    """The pairs with their adjusted p and verdicts. untested: further pairs to correct for, taken for equal."""
    adjusted = holm([*(c.p for c in found), *[1.0] * untested])
    alpha = ALPHA / max(1, sum(p is not None for p in adjusted))
    tested = [replace(c, adjusted=p, seeds=seeds_to_show(c, alpha)) for c, p in zip(found, adjusted, strict=False)]
    return [replace(c, verdict=verdict_of(c)) for c in tested]


def run_tests(first: Configuration, second: Configuration, key: str, metric: str) -> Comparison:
    """The pair with its tests; each side has runs with the metric."""
    a, b = first.values(metric), second.values(metric)
    p = permutation(a, b) if min(len(a), len(b)) > 1 else None
    difference = first.mean(metric) - second.mean(metric)
    paired = paired_tests(first.answers, second.answers) if metric == "final_val_acc" else None
    return Comparison(first, second, key, metric, (len(a), len(b)), difference, welch(a, b), p, paired=paired)


def seeds_to_show(comparison: Comparison, alpha: float) -> float | None:
    """Comparison.seeds. alpha: of the strictest step of Holm's."""
    sd = pooled_sd(*(c.values(comparison.metric) for c in (comparison.first, comparison.second)))
    if sd is None or comparison.difference == 0:
        return None
    return max(seeds_needed(comparison.difference, sd, alpha) or math.inf, *(n + 1 for n in comparison.counts))


def verdict_of(comparison: Comparison) -> str:
    """Which is higher, or that it cannot be told, and how many seeds would."""
    if is_shown(comparison):
        return f"{comparison.sides[0 if comparison.difference > 0 else 1]} is higher"
    unknown = f"cannot tell at n = {comparison.counts[0]} and {comparison.counts[1]}"
    if comparison.seeds is None:
        return f"{unknown}; " + ("no spread to judge by" if comparison.difference else "the means are equal")
    if comparison.seeds == math.inf:
        return f"{unknown}; more than 10,000 seeds each would be needed"
    return f"{unknown}; about {comparison.seeds:,} seeds each would show this difference"


def is_shown(comparison: Comparison) -> bool:
    """Holm's p below 5 %, and the permutation test's as well where n is large enough for it to get there at all."""
    if comparison.adjusted is None or comparison.adjusted >= ALPHA:
        return False
    reachable = least_permutation_p(*comparison.counts) < ALPHA
    return not reachable or (comparison.permutation_p or 0.0) < ALPHA
