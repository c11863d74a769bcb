"""Configurations that differ in one key alone: does a figure rise along it, and where is it best?"""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase

from resnetlab.claims.data import Part
from resnetlab.claims.departures import Departures, away, departures
from resnetlab.claims.evidence import Tails, difference, slope
from resnetlab.claims.finding import Finding, asleep, scaled, short_of_swings
from resnetlab.claims.pools import Pool
from resnetlab.claims.words import short, told
from resnetlab.report.groups import format_value

__all__ = ["optimum", "trend"]

Line = dict[float, Pool]  # the key's value -> the configuration with it, ascending


def longest(part: Part, pools: Sequence[Pool]) -> tuple[Line, Departures] | None:
    """The line along part.key to look at: as published first, then the most levels, then the most runs."""
    groups: dict[str, list[Pool]] = defaultdict(list)
    for pool in pools:
        if isinstance(pool.setting(part.key), int | float) and pool.values(part.figure):
            kept = {k: v for k, v in pool.settings.items() if k != part.key and not allowed(k, part)}
            groups[json.dumps(kept, sort_keys=True, default=str)].append(pool)
    found = []
    for group in groups.values():
        for members in (group, [pool for pool in group if departures([pool], part, untold(part)).full]):
            line = one_a_level(part, members)
            scope = departures(line.values(), part, untold(part))
            if len(line) < 2 or scope.foreign:
                continue
            runs = sum(len(pool.values(part.figure)) for pool in line.values())
            order = (not (scope.full and runs > len(line) > 2), short_of_swings(part, line.values()), -len(line), -runs)
            found.append((order, line, scope))
    return min(found, key=lambda item: item[0])[1:] if found else None


def one_a_level(part: Part, group: Sequence[Pool]) -> Line:
    """Where `also` lets several have the same level, the one as published, then the one with the most seeds."""

    def order(pool: Pool) -> tuple[float, ...]:
        scope = departures([pool], part, untold(part))
        n = len(pool.values(part.figure))
        return pool.setting(part.key), scope.foreign, not (scope.full and n > 1), -n, away([pool], part.home)

    line: Line = {}
    for pool in sorted(group, key=order):
        line.setdefault(pool.setting(part.key), pool)
    return line


def untold(part: Part) -> set[str]:
    return {part.key, *part.where, *({"schedule.milestones"} & {*part.also})}


def allowed(key: str, part: Part) -> bool:
    return any(fnmatchcase(key, also) for also in part.also)


def listed(part: Part, line: Line) -> str:
    levels = ", ".join(f"{part.key} {format_value(level)}: {told(pool, part.figure)}" for level, pool in line.items())
    return f"{short(part.figure)}: {levels}"


def trend(part: Part, pools: Sequence[Pool]) -> Finding:
    """A straight line over the rank of the key's value, through all runs; or over the figure `against`, through one
    point a value, the means: runs of one value are no further ones, and what ties two figures there is their seed."""
    found = longest(part, pools)
    if found is None:
        return Finding(part)
    line, scope = found
    xs, ys = means(part, line) if part.against else ranks(part, line)
    text = listed(part, line)
    if why := asleep(part, tuple(line.values()), (), scope):
        return Finding(part, text, why, None, scope, counts=(len(ys),))
    if len(set(xs)) > 1 and len(set(ys)) > 1:
        with_what = f" of {len(xs)} means with {short(part.against)}" if part.against else ""
        text += f"; correlation {statistics.correlation(xs, ys):+.2f}{with_what}"
    enough = len(line) > 2 and (bool(part.against) or len(ys) > len(line))
    why = "a trend needs three values of the key, and runs beyond one a value"
    why = "a correlation of means needs four values of the key" if part.against else why
    tails = slope(xs, ys, part.expect) if enough else None
    return Finding(part, text, why, tails, scope, counts=(len(ys),))


def ranks(part: Part, line: Line) -> tuple[list[float], list[float]]:
    values = [scaled(pool.values(part.figure), part.figure) for pool in line.values()]
    return [float(rank) for rank, ys in enumerate(values) for _ in ys], [y for ys in values for y in ys]


def means(part: Part, line: Line) -> tuple[list[float], list[float]]:
    points = [found for pool in line.values() if (found := pool.together(part.against, part.figure))]
    xs = [statistics.fmean(scaled((x for x, _ in runs), part.against)) for runs in points]
    return xs, [statistics.fmean(scaled((y for _, y in runs), part.figure)) for runs in points]


def optimum(part: Part, pools: Sequence[Pool]) -> Finding:
    """The best value inside the range against every one outside it, and the best one outside against every one inside.

    The largest p of those tests counts, and times k, because the best of k means is chosen by its height.
    """
    found = longest(part, pools)
    if found is None:
        return Finding(part)
    line, scope = found
    low, high = part.at_least or 0.0, part.at_most or 0.0
    text = f"{listed(part, line)}; claimed best: {part.key} {low:g} to {high:g}"
    levels = {level: scaled(pool.values(part.figure), part.figure) for level, pool in line.items()}
    counts = (sum(map(len, levels.values())),)
    inside = [values for level, values in levels.items() if low <= level <= high]
    outside = [values for level, values in levels.items() if not low <= level <= high]
    if not inside or not min(levels) < low or not max(levels) > high:
        why = f"needs values of {part.key} below, inside and above that range"
        return Finding(part, text, why, None, scope, counts=counts)
    better, worse = beats(inside, outside), beats(outside, inside)
    if better is None or worse is None:
        why = "one run at a value" if min(map(len, levels.values())) < 2 else "the seeds do not differ"
        return Finding(part, text, why, None, scope, counts=counts)
    return Finding(part, text, "", Tails(better.p_for, worse.p_for, better.distance, better.sd), scope, counts=counts)


def beats(own: Sequence[list[float]], others: Sequence[list[float]]) -> Tails | None:
    """That the highest of one's own is higher than all others; None where one of the tests is not possible."""
    top = max(own, key=statistics.fmean)
    tests = [difference(top, other, "higher", 0.0) for other in others]
    known = [test for test in tests if test]
    if len(known) < len(tests) or min(map(len, own)) < 2:
        return None
    closest = min(known, key=lambda test: test.distance)
    p = min(1.0, len(own) * max(test.p_for for test in known))
    return Tails(p, 1 - p, closest.distance, closest.sd)
