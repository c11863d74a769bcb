"""Sequential comparison of configurations: after every seed, which pairs are decided and which need another seed.

Repeated confidence intervals (Jennison and Turnbull 1989) of the mean difference of two configurations, paired by seed:
all of them, after every number of seeds, hold together with probability 1 - alpha, so one may look each time and stop.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

FEWEST, MOST = 4, 50  # looked at; with three configurations, a look at 3 would show only some 17 sd
PATHS = 100_000  # simulated
SAME = 1e-9  # an sd of differences that are equal but for rounding: accuracies are multiples of 1 / images


class Verdict(NamedTuple):
    """What n common seeds say of two configurations: the mean difference (the other's subtracted) +- half."""

    other: int
    n: int
    difference: float
    half: float
    least: float  # difference that matters

    @property
    def relation(self) -> str:
        """To the other, "" while it is open."""
        if abs(self.difference) + self.half < self.least:
            return f"no difference of {self.least:g} from"
        return "" if abs(self.difference) <= self.half else "lower than" if self.difference < 0 else "higher than"


def running(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of the first 1, 2, ... values, along the last axis; of one value 0."""
    n, moved = np.arange(1, values.shape[-1] + 1), values - values[..., :1]
    sums, squares = np.cumsum(moved, axis=-1), np.cumsum(moved**2, axis=-1)
    return values[..., :1] + sums / n, np.sqrt(np.maximum(0, squares - sums**2 / n) / np.maximum(1, n - 1))


def half_widths(alpha: float, most: int) -> np.ndarray:
    """Half widths of intervals after 1 to `most` seeds, in sd of a difference, which together hold with 1 - alpha.

    Infinite below FEWEST. Pocock's: Student's, of one level simulated with a fixed seed; for a tiny alpha Bonferroni's.
    """
    n, level = np.arange(FEWEST, most + 1), alpha / (most - FEWEST + 1)
    if alpha * PATHS >= 100:
        means, sd = running(np.random.default_rng(0).normal(size=(PATHS, most)))
        t = np.sqrt(n) * (means / np.maximum(sd, SAME))[:, FEWEST - 1 :]
        level = np.quantile((2 * stdtr(n - 1, -np.abs(t))).min(axis=1), alpha)
    return np.concatenate([np.full(FEWEST - 1, np.inf), stdtrit(n - 1, 1 - level / 2) / np.sqrt(n)])


def compare(own: Sequence[float], others: Sequence[float], other: int, half: np.ndarray, least: float) -> Verdict:
    """The verdict at the first look that decides, or the last. own, others: by seed. Equal differences do not."""
    count = min(len(own), len(others), len(half))
    means, sd = running(np.subtract(own[:count], others[:count]))
    width = half[:count] * np.where(sd < SAME, np.inf, sd)
    at = next(iter(np.flatnonzero(width < np.maximum(np.abs(means), least - np.abs(means)))), count - 1)
    return Verdict(other, int(at) + 1, float(means[at]), float(width[at]), least)


def assess(
    values: Mapping[int, Sequence[float]], half: np.ndarray, least: float, baseline: int | None = None
) -> tuple[int | None, dict[int, Verdict], dict[int, int]]:
    """(best, {other configuration: verdict}, {configuration: how many seeds it should have}), the last {} at the end.

    values: {configuration: its metric of seeds 0, 1, ...}. half: of half_widths, for alpha / pairs. best: the baseline,
    or the best mean among those that are not shown to be lower than another. A verdict that was reached stays.
    """
    if begun := {place: FEWEST for place, own in values.items() if len(own) < FEWEST}:
        return None, {}, begun
    rivals = [place for place in values if baseline in (None, place)]
    against = {p: {o: compare(values[p], values[o], o, half, least) for o in rivals if o != p} for p in values}
    lower = {p: [v for v in found.values() if v.relation == "lower than"] for p, found in against.items()}
    best = max([p for p in rivals if not lower[p]] or rivals, key=lambda p: statistics.fmean(values[p]), default=None)
    verdicts, wanted = {}, dict[int, int]()
    for place, found in against.items():
        if best is not None and place != best:
            verdicts[place] = next((v for v in (found[best], *lower[place]) if v.relation), found[best])
            n = min(len(values[place]), len(values[best])) + 1
            if not verdicts[place].relation and n <= len(half):
                wanted |= {side: n for side in (place, best) if len(values[side]) < n}
    return best, verdicts, wanted
