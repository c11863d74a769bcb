"""What the runs have on one part of a claim, and why the runs that were chosen may have nothing to say."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from resnetlab.claims.data import Part
from resnetlab.claims.departures import Departures
from resnetlab.claims.evidence import Tails
from resnetlab.claims.figures import LOGARITHMIC, reached
from resnetlab.claims.pools import Pool
from resnetlab.runs.summary import FLUCTUATION_EPOCHS as EPOCHS

__all__ = ["Finding", "asleep", "never", "scaled", "short_of_swings"]

SWINGING = 0.5  # a swing of val ce below it is none; the published ones are 0.7 and more
ASLEEP = "nothing swings in these runs, which may be too small or too short for it"


@dataclass(frozen=True)
class Finding:
    """What the runs have on one part. tails: None where no test is possible, `why` says why not.

    dealt: the permutation test's p where n is large enough for it to get below 5 %. settled: of a count, without
    chance. counts: runs on each side, or means.
    """

    part: Part
    figures: str = ""
    why: str = "no such runs"
    tails: Tails | None = None
    scope: Departures = field(default_factory=Departures)
    settled: bool | None = None
    dealt: float | None = None
    counts: tuple[int, ...] = ()


def scaled(values: Iterable[float], figure: str) -> list[float]:
    return [math.log10(value) if figure in LOGARITHMIC else value for value in values]


def asleep(part: Part, compared: Sequence[Pool], needing: Sequence[Pool], scope: Departures) -> str:
    """ASLEEP if a claim of swings is asked of runs other than the published of which none swings, or if those that
    need something to show have it not; else nothing."""
    for name, least in part.needs.items():
        if not all((found := pool.values(name)) and statistics.fmean(found) >= least for pool in needing):
            return ASLEEP
    if scope.full or "amplitude" not in (part.figure, part.against):
        return ""
    means = [statistics.fmean(found) for pool in compared if (found := pool.values("amplitude"))]
    return ASLEEP if max(means, default=0.0) < SWINGING else ""


def never(figure: str, compared: Iterable[tuple[Pool, str]]) -> str:
    """For example "lr 0.1: 7 of 10 runs never reach it": the others alone would be a choice by the outcome."""
    found = [(len(pool.values(figure)), len(pool.runs), name) for pool, name in compared if reached(figure)]
    return "; ".join(f"{name}: {n - had} of {n} runs never reach it" for had, n, name in found if had < n)


def short_of_swings(part: Part, pools: Iterable[Pool]) -> bool:
    """Whether swings are asked of runs that end before the swings do: longer ones are looked at first."""
    asked = "amplitude" in (part.figure, part.against, *part.needs)
    return asked and any(pool.settings["epochs"] < EPOCHS[1] for pool in pools)
