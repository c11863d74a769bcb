"""Two sides that differ in what a claim names: which runs are set against which, and the test."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from resnetlab.claims.data import Part
from resnetlab.claims.departures import Departures, away, departures
from resnetlab.claims.evidence import Tails, difference
from resnetlab.claims.figures import COSTS
from resnetlab.claims.finding import Finding, asleep, never, scaled, short_of_swings
from resnetlab.claims.pools import Pool, fits
from resnetlab.claims.words import name, short, told
from resnetlab.report.statistics import least_permutation_p, permutation

__all__ = ["contrast"]


@dataclass(frozen=True)
class Pair:
    """Two sides that may be compared; order: of settings and numbers of runs alone, the least is looked at."""

    a: Pool
    b: Pool
    scope: Departures
    order: tuple[float, ...]


def contrast(part: Part, pools: Sequence[Pool]) -> Finding:
    found = sorted(pairs(part, pools), key=lambda pair: pair.order)
    if not found:
        return Finding(part)
    a, b, scope = found[0].a, found[0].b, found[0].scope
    sides = [(a, name(a, part, "a")), (b, name(b, part, "b"))]
    text = "; ".join(f"{side} {told(pool, part.figure)}" for pool, side in sides)
    text = f"{short(part.figure)}: {text}{others(part, found)}"
    first, second = (scaled(pool.values(part.figure), part.figure) for pool in (a, b))
    counts = len(first), len(second)
    if why := never(part.figure, sides) or asleep(part, (a, b), (b,), scope):
        return Finding(part, text, why, None, scope, counts=counts)
    dealt = permutation(first, second) if part.expect != "equal" and not part.margin else None
    reachable = least_permutation_p(*counts) < 0.05
    tails = difference(first, second, part.expect, part.margin) or flat(first, second, part, dealt)
    why = "one run on a side" if min(counts) < 2 else "the seeds do not differ"
    return Finding(part, text, why, tails, scope, None, dealt if reachable else None, counts)


def flat(first: Sequence[float], second: Sequence[float], part: Part, dealt: float | None) -> Tails | None:
    """Where no run differs from its side there is no sd, but the runs can still be dealt out anew."""
    apart = statistics.fmean(first) - statistics.fmean(second)
    if dealt is None or apart == 0 or min(len(first), len(second)) < 2:
        return None
    towards = (apart > 0) == (part.expect == "higher")
    return Tails(dealt / 2, 1 - dealt / 2) if towards else Tails(1 - dealt / 2, dealt / 2)


def others(part: Part, found: Sequence[Pair]) -> str:
    """How many of the pairs that are not tested have the difference's sign, for the reader alone."""
    values = [(pair.a.values(part.figure), pair.b.values(part.figure)) for pair in found]
    signs = [statistics.fmean(a) > statistics.fmean(b) for a, b in values if a and b]
    if not all(values[0]) or len(signs) < 2 or part.expect == "equal":
        return ""
    same = sum(sign == signs[0] for sign in signs[1:])
    return f"; of {len(signs) - 1} other pairs {same} with this sign"


def pairs(part: Part, pools: Sequence[Pool]) -> Iterator[Pair]:
    """Every pair that may be compared."""
    left, right = ([pool for pool in pools if fits(pool, side)] for side in (part.a, part.b))
    varied = {*part.a, *part.b} - {"preset"}
    for a, b in ((x, y) for one in left for other in right if one is not other for x, y in alike(part, one, other)):
        n = min(pool.looked_at(part.figure) for pool in (a, b))
        apart = {key for key in {*a.settings, *b.settings} if a.setting(key) != b.setting(key)} - varied
        allowed = {key for key in apart if any(fnmatchcase(key, also) for also in part.also)}
        if n == 0 or (apart != allowed and "preset" not in part.a):
            continue
        untold = {*varied, *allowed, *part.where, *({"schedule.milestones"} & {*part.also})}
        scope = departures((a, b), part, untold if "preset" not in part.a else {*apart, *varied})
        if scope.foreign:
            continue
        more = sum(pool.looked_at(part.figure) for pool in (a, b))
        order = (not (scope.full and n > 1), short_of_swings(part, (a, b)), -n, len(allowed))
        rest = (len(scope.reduced + scope.other), -stretch(part, a, b), -more, away((a, b), part.home))
        yield Pair(a, b, scope, (*order, *rest))


def alike(part: Part, a: Pool, b: Pool) -> Iterator[tuple[Pool, Pool]]:
    """Both sides; of costs, their runs on one machine, with as many threads and validations, and so for each load."""
    if part.figure not in COSTS:
        yield a, b
    else:
        yield from ((a.under(conditions), b.under(conditions)) for conditions in sorted(a.loads & b.loads))


def stretch(part: Part, a: Pool, b: Pool) -> float:
    """How far apart the sides are in the keys that vary: of two pairs alike, the farther apart tells more."""
    numbers = [(a.setting(key), b.setting(key)) for key in {*part.a, *part.b}]
    return sum(
        abs(x - y) / max(abs(x), abs(y), 1e-300)
        for x, y in numbers
        if isinstance(x, float | int) and isinstance(y, float | int)
    )
