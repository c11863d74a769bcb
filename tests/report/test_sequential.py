"""Sequential comparison: its intervals against scipy.stats, its verdicts by hand, its errors in simulated sweeps."""

import numpy as np
import pytest
from scipy import stats
from scripts.simulate_seeds import DISTRIBUTIONS, PAIRS, K, draw, ever_wrong, fixed_power, is_wrong, sequential

from resnetlab.report.sequential import FEWEST, Verdict, assess, compare, half_widths

WIDE = half_widths(0.05, 12)


@pytest.mark.parametrize(("alpha", "most"), [(0.05, 4), (0.05 / 3, 20), (0.2, 8)])
def test_all_intervals_hold_together_as_often_as_they_say(alpha: float, most: int) -> None:
    """Against scipy's t-test of other samples: the p of every look, compared with the level of the intervals."""
    paths, looks = 20_000, range(FEWEST, most + 1)
    half = half_widths(alpha, most)
    assert np.isinf(half[: FEWEST - 1]).all()
    levels = [2 * stats.t.sf(half[n - 1] * np.sqrt(n), n - 1) for n in looks]
    assert levels == pytest.approx([levels[0]] * len(levels))  # Pocock's rule
    samples = np.random.default_rng(99).standard_normal((paths, most))
    missed = np.zeros(paths, dtype=bool)
    for n in looks:
        missed |= stats.ttest_1samp(samples[:, :n], 0.0, axis=1).pvalue < levels[0]
    low, high = stats.binom.ppf([0.0005, 0.9995], paths, alpha)
    assert 0.97 * low <= missed.sum() <= 1.03 * high  # the level is simulated too
    if most == FEWEST:
        assert levels[0] == pytest.approx(alpha, rel=0.04)


def test_a_very_small_alpha_is_divided_among_the_looks() -> None:
    half = half_widths(1e-5, 13)
    assert half[12] == pytest.approx(stats.t.isf(1e-5 / 10 / 2, 12) / np.sqrt(13))


def test_a_look_is_students_paired_interval() -> None:
    """An open pair's verdict is of all seeds; scipy's interval at the same level is the same."""
    a, b = np.random.default_rng(3).normal(0.9, 0.02, (2, 9))
    found = compare(a, b, 5, WIDE, 1e-6)
    level = 2 * stats.t.sf(WIDE[8] * 3, 8)
    interval = stats.ttest_rel(a, b).confidence_interval(1 - level)
    assert (found.other, found.n, found.relation) == (5, 9, "")
    assert (found.difference - found.half, found.difference + found.half) == pytest.approx(
        (interval.low, interval.high)
    )


def test_a_verdict_by_hand() -> None:
    """Differences 0.1, 0.2, 0.1, 0.2, 0.1: mean 0.15 and sd 0.1 / sqrt(3) of four, 0.14 and 0.1 sqrt(0.3) of five."""
    a, b = [0.6, 0.7] * 3, [0.5] * 6
    four, five = WIDE[3] * 0.1 / np.sqrt(3), WIDE[4] * 0.1 * np.sqrt(0.3)
    assert (four > 0.15, five < 0.14) == (True, True)
    found = compare(a[:4], b[:4], 1, WIDE, 0.01)
    assert (found.difference, found.half, found.relation) == (pytest.approx(0.15), pytest.approx(four), "")
    found = compare(a, b, 1, WIDE, 0.01)
    assert found[:4] == (1, 5, pytest.approx(0.14), pytest.approx(five))
    assert (found.relation, compare(b, a, 1, WIDE, 0.01).relation) == ("higher than", "lower than")
    assert compare(a, b, 1, WIDE, 0.14 + five - 1e-9).relation == "higher than"
    equal = compare(a, b, 1, WIDE, 0.16 + four)
    assert (equal.n, equal.relation) == (4, f"no difference of {0.16 + four:g} from")


def test_a_verdict_stays_whatever_follows() -> None:
    a, b = [0.9, 0.91, 0.9, 0.91], [0.1, 0.1, 0.11, 0.11]
    early = compare(a, b, 0, WIDE, 0.01)
    assert early.relation == "higher than"
    assert compare([*a, 0.0, 0.0], [*b, 1.0, 1.0], 0, WIDE, 0.01) == early


def test_differences_that_are_all_equal_decide_nothing() -> None:
    """They have no sd, but for rounding; accuracies of a few hundred images are often equal."""
    a = [0.9333333, 0.9361111, 0.9277777, 0.95, 0.9]
    for shift in (0.0, 0.0111111):
        assert compare(a, [value - shift for value in a], 0, WIDE, 0.005).relation == ""
    assert compare(a, [0.92, *a[1:]], 0, WIDE, 0.9).relation == "no difference of 0.9 from"


def by_seed(*means: float, n: int = 6, sd: float = 0.01) -> dict[int, list[float]]:
    generator = np.random.default_rng(0)
    return {place: list(mean + sd * generator.standard_normal(n)) for place, mean in enumerate(means)}


def test_first_all_get_the_fewest_seeds() -> None:
    values = {0: [0.9] * 2, 1: [0.9] * 4, 2: []}
    assert assess(values, WIDE, 0.01) == (None, {}, {0: FEWEST, 2: FEWEST})
    assert assess({}, WIDE, 0.01) == (None, {}, {})


def test_the_best_and_what_is_not_told_apart_from_it_get_another_seed() -> None:
    values = by_seed(0.8, 0.5, 0.801)
    best, verdicts, wanted = assess(values, WIDE, 1e-4)
    assert best in (0, 2)
    other = 2 - best
    assert (verdicts[1].relation, verdicts[other].relation) == ("lower than", "")
    assert wanted == {0: 7, 2: 7}
    assert assess({p: v * 2 for p, v in values.items()}, WIDE, 1e-9)[2] == {}  # all 12 are there


def test_one_that_is_shown_to_be_lower_than_any_other_is_out() -> None:
    """1 is lower than 2 after four seeds; whether it is lower than 0, the best after ten, need not be known."""
    values = {0: [0.8, 0.2, 0.8, 0.7, *[0.99] * 6], 1: [0.5, 0.51, 0.5, 0.51], 2: [0.7, 0.71, 0.72, 0.7, *[0.7] * 6]}
    best, verdicts, wanted = assess(values, WIDE, 0.001)
    assert best == 0
    assert (verdicts[1].relation, verdicts[1].other, verdicts[1].n) == ("lower than", 2, 4)
    assert wanted == {0: 11, 2: 11}


def test_what_is_behind_catches_up_before_the_best_goes_on() -> None:
    values = by_seed(0.8, 0.8)
    values[1] = values[1][:4]
    assert assess(values, WIDE, 1e-6)[2] == {1: 5}


def test_a_baseline_is_compared_with_all_others_and_nothing_else() -> None:
    values = by_seed(0.5, 0.9, 0.1, 0.5)
    best, verdicts, wanted = assess(values, WIDE, 1e-4, baseline=0)
    assert best == 0
    assert {place: (v.relation, v.other) for place, v in verdicts.items()} == {
        **{1: ("higher than", 0), 2: ("lower than", 0), 3: ("", 0)}
    }
    assert wanted == {0: 7, 3: 7}
    del values[0]
    assert assess(values, WIDE, 1e-4, baseline=0) == (None, {}, {})


def test_what_is_wrong_is_known_by_hand() -> None:
    lower, equal = Verdict(0, 5, -1.0, 0.5, 0.1), Verdict(0, 5, 0.0, 0.05, 0.1)
    assert [is_wrong(lower, x) for x in (-1.0, 0.0, 1.0)] == [False, True, True]
    assert [is_wrong(equal, x) for x in (-0.1, 0.0, 0.09, 0.1)] == [True, False, False, True]
    assert not is_wrong(Verdict(0, 5, 0.0, 1.0, 0.1), 5.0)


def test_wrong_verdicts_in_simulated_sweeps_are_at_most_alpha() -> None:
    """As in docs/sweeps.md, with fewer sweeps. By itself, one sweep in 20 may be wrong."""
    sweeps = 200
    most = stats.binom.ppf(0.9999, sweeps, 0.05)
    none, strong = (sequential(effect, 2.0, 20, 0.0, sweeps) for effect in (0.0, 4.0))
    assert none["wrong"] <= most
    assert strong["wrong"] <= most
    assert none["equal"] > 0.85 * sweeps
    assert strong["shown"] > 0.99 * sweeps
    fixed = next(n for n in range(2, 40) if fixed_power(n, 2.0, 0.0, 2000) > 0.97)
    assert strong["seeds"] / sweeps / K < 0.6 * fixed
    assert none["seeds"] / sweeps / K < 1.1 * fixed


@pytest.mark.parametrize("name", ["sd of 1, 4 and 16", "correlation of 0.5", "exponential"])
def test_no_distribution_makes_more_wrong_verdicts(name: str) -> None:
    """But a difference that is skewed: of an exponential and a normal value, 5 % and more (docs/sweeps.md)."""
    sweeps = 4000
    values = DISTRIBUTIONS[name](np.random.default_rng(11), sweeps)
    assert ever_wrong(values) * sweeps <= stats.binom.ppf(0.9999, sweeps, 0.05)


def test_a_test_that_does_not_pay_for_its_looks_is_wrong_more_often() -> None:
    """So that the tests above can fail: one look's interval at every look."""
    values = draw(np.random.default_rng(5), 2000, 20)
    differences = values[:, 0] - values[:, 1]
    p = np.array([stats.ttest_1samp(differences[:, :n], 0.0, axis=1).pvalue for n in range(FEWEST, 21)])
    assert (p < 0.05 / PAIRS).any(axis=0).mean() > 0.05
