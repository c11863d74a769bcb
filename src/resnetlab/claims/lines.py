"""Configurations that differ in one key alone: does a figure rise along it, and where is it best?"""

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from resnetlab.claims.data import Part
from resnetlab.claims.evidence import Tails, difference, slope
from resnetlab.claims.pools import Departures, Pool, departures
from resnetlab.claims.words import short, told
from resnetlab.report.configurations import plain

__all__ = ["ASLEEP", "asleep", "optimum", "trend"]

SWINGING = 0.5  # a swing of val ce below it is none; the published ones are 0.7 and more
ASLEEP = "nothing swings in these runs, which may be too small or too short for it"


def asleep(pools: Iterable[Pool], part: Part, scope: Departures) -> bool:
    """Whether a claim of swings is asked of runs other than the published, of which none swings."""
    if scope.full or "amplitude" not in (part.figure, part.against):
        return False
    means = [statistics.fmean(found) for pool in pools if (found := pool.values("amplitude"))]
    return max(means, default=0.0) < SWINGING


Line = dict[float, list[Pool]]  # the key's value -> the configurations with it, ascending
Scaled = Callable[[Iterable[float], str], list[float]]
Shown = tuple[str, str, Tails | None, Departures, int]  # figures, why not, test, departures, runs
NOTHING: Shown = ("", "no such runs", None, Departures(), 0)


def longest(part: Part, pools: Sequence[Pool]) -> tuple[Line, Departures] | None:
    """The line along part.key to look at: as published first, then the most levels, then the most runs."""
    groups: dict[str, list[Pool]] = defaultdict(list)
    for pool in pools:
        value = pool.setting(part.key)
        if isinstance(value, int | float) and pool.values(part.figure):
            kept = {k: v for k, v in pool.settings.items() if k != part.key and not allowed(k, part)}
            groups[json.dumps(kept, sort_keys=True, default=str)].append(pool)
    found = []
    for group in groups.values():
        line: Line = defaultdict(list)
        for pool in sorted(group, key=lambda pool: pool.setting(part.key)):
            line[pool.setting(part.key)].append(pool)
        scope = departures(group, part.home, {part.key, *part.where, *({"schedule.milestones"} & {*part.also})})
        runs = sum(len(pool.values(part.figure)) for pool in group)
        if len(line) > 1 and not scope.foreign:
            still = asleep(group, part, scope)
            found.append(((not (scope.full and runs > len(line)), still, -len(line), -runs), line, scope))
    return min(found, key=lambda item: item[0])[1:] if found else None


def allowed(key: str, part: Part) -> bool:
    return any(fnmatchcase(key, also) for also in part.also)


def values(pools: Sequence[Pool], figure: str) -> list[float]:
    return [value for pool in pools for value in pool.values(figure)]


def listed(part: Part, line: Line) -> str:
    levels = ", ".join(
        f"{part.key} {plain(level)}: {told(values(pools, part.figure))}" for level, pools in line.items()
    )
    return f"{short(part.figure)}: {levels}"


def trend(part: Part, pools: Sequence[Pool], scaled: Scaled) -> Shown:
    """A straight line through all runs: over the rank of the key's value, or over the figure `against`."""
    found = longest(part, pools)
    if found is None:
        return NOTHING
    line, scope = found
    xs: list[float] = []
    ys: list[float] = []
    for rank, members in enumerate(line.values()):
        for pool in members:
            x, y = pool.values(part.against) if part.against else [], pool.values(part.figure)
            if part.against and len(x) != len(y):
                continue
            xs += scaled(x, part.against) if part.against else [float(rank)] * len(y)
            ys += scaled(y, part.figure)
    r = f"; correlation {statistics.correlation(xs, ys):+.2f}" if len(set(xs)) > 1 and len(set(ys)) > 1 else ""
    over = f" with {short(part.against)}" if part.against else ""
    if asleep([pool for members in line.values() for pool in members], part, scope):
        return listed(part, line), ASLEEP, None, scope, len(ys)
    why = "a trend needs three values of the key, and runs beyond one a value"
    enough = len(line) > 2 and len(ys) > len(line)
    text = f"{listed(part, line)}{r}{over if r else ''}"
    return text, why, slope(xs, ys, part.expect) if enough else None, scope, len(ys)


def optimum(part: Part, pools: Sequence[Pool], scaled: Scaled) -> Shown:
    """The best value inside the range against the best one below it and the best one above it.

    The best of k means is chosen by its height, so its p is multiplied by k.
    """
    found = longest(part, pools)
    if found is None:
        return NOTHING
    line, scope = found
    low, high = part.at_least or 0.0, part.at_most or 0.0
    text = f"{listed(part, line)}; claimed best: {part.key} {low:g} to {high:g}"
    levels = {level: scaled(values(members, part.figure), part.figure) for level, members in line.items()}
    inside = [v for level, v in levels.items() if low <= level <= high]
    sides = [[v for level, v in levels.items() if level < low], [v for level, v in levels.items() if level > high]]
    runs = sum(map(len, levels.values()))
    if not inside or not all(sides):
        return text, f"needs values of {part.key} below, inside and above that range", None, scope, runs
    top = max(inside, key=statistics.fmean)
    tests = [difference(top, max(side, key=statistics.fmean), "higher", 0.0) for side in sides]
    if any(test is None for test in tests):
        return text, "one run at a value", None, scope, runs
    p_for = max(min(1.0, test.p_for * len(inside)) for test in tests if test)
    p_against = min(min(1.0, test.p_against * sum(map(len, sides))) for test in tests if test)
    closest = min((test for test in tests if test), key=lambda test: test.distance)
    return text, "", Tails(p_for, p_against, closest.distance, closest.sd), scope, runs
