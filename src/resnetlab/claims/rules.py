"""From a part of a claim and the runs to what they show of it: which runs are set against which, and the test."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from resnetlab.claims.data import Part
from resnetlab.claims.evidence import Tails, clopper_pearson, difference, share, within
from resnetlab.claims.figures import COSTS, LOGARITHMIC
from resnetlab.claims.lines import ASLEEP, asleep, optimum, trend
from resnetlab.claims.pools import Departures, Pool, departures, fits, same_network
from resnetlab.claims.words import name, short, told
from resnetlab.report.statistics import least_permutation_p, permutation

__all__ = ["Finding", "find"]


@dataclass(frozen=True)
class Finding:
    """What the runs have on one part. tails: None where no test is possible, `why` says why not.

    dealt: the permutation test's p where n is large enough for it to get below 5 %. settled: of a count, without
    chance. counts: runs on each side.
    """

    part: Part
    figures: str = ""
    why: str = "no such runs"
    tails: Tails | None = None
    scope: Departures = field(default_factory=Departures)
    settled: bool | None = None
    dealt: float | None = None
    counts: tuple[int, ...] = ()


def find(part: Part, pools: Sequence[Pool]) -> Finding:
    """The test of the part, on the runs that suit it best: as published first, then the most seeds."""
    suited = [pool for pool in pools if fits(pool, part.where) and (part.rule == "contrast" or shows(pool, part))]
    return RULES[part.rule](part, suited)


def shows(pool: Pool, part: Part) -> bool:
    """Whether the runs have what the part needs to be looked for in them at all."""
    means = {figure: pool.values(figure) for figure in part.needs}
    return all(means[f] and statistics.fmean(means[f]) >= least for f, least in part.needs.items())


def scaled(values: Iterable[float], figure: str) -> list[float]:
    return [math.log10(value) if figure in LOGARITHMIC else value for value in values]


def contrast(part: Part, pools: Sequence[Pool]) -> Finding:
    found = sorted(pairs(part, pools), key=lambda pair: pair[:-2])
    if not found:
        return Finding(part)
    still, (a, b), scope = found[0][1], *found[0][-2:]
    raw = [pool.values(part.figure) for pool in (a, b)]
    first, second = (scaled(values, part.figure) for values in raw)
    text = "; ".join(
        f"{name(pool, part, side)} {told(values)}" for pool, side, values in zip((a, b), "ab", raw, strict=True)
    )
    dealt = permutation(first, second) if part.expect != "equal" and not part.margin else None
    reachable = least_permutation_p(len(first), len(second)) < 0.05
    tails = difference(first, second, part.expect, part.margin) or flat(first, second, part, dealt)
    text = f"{short(part.figure)}: {text}{others(part, [pair[-2] for pair in found])}"
    counts = len(first), len(second)
    if still:
        return Finding(part, text, ASLEEP, None, scope, counts=counts)
    why = "one run on a side" if min(counts) < 2 else "the seeds do not differ"
    return Finding(part, text, why, tails, scope, None, dealt if reachable else None, counts)


def flat(first: Sequence[float], second: Sequence[float], part: Part, dealt: float | None) -> Tails | None:
    """Where no run differs from its side there is no sd, but the runs can still be dealt out anew."""
    apart = statistics.fmean(first) - statistics.fmean(second)
    if dealt is None or apart == 0 or min(len(first), len(second)) < 2:
        return None
    towards = (apart > 0) == (part.expect == "higher")
    return Tails(dealt / 2, 1 - dealt / 2) if towards else Tails(1 - dealt / 2, dealt / 2)


def others(part: Part, compared: Sequence[tuple[Pool, Pool]]) -> str:
    """How many of the pairs that are not tested have the difference's sign, for the reader alone."""
    signs = [mean(a, part.figure) > mean(b, part.figure) for a, b in compared]
    if len(signs) < 2 or part.expect == "equal":
        return ""
    same = sum(sign == signs[0] for sign in signs[1:])
    return f"; of {len(signs) - 1} other pairs {same} with this sign"


def mean(pool: Pool, figure: str) -> float:
    return statistics.fmean(pool.values(figure))


Pair = tuple[bool, bool, int, int, int, float, int, tuple[Pool, Pool], Departures]


def pairs(part: Part, pools: Sequence[Pool]) -> Iterator[Pair]:
    """Every pair that may be compared, with its departures, behind what orders them: the best is the least."""
    left, right = (
        [pool for pool in pools if fits(pool, side) and pool.values(part.figure)] for side in (part.a, part.b)
    )
    right = [pool for pool in right if shows(pool, part)]  # what b has not, a cannot have lost
    varied = {*part.a, *part.b} - {"preset"}
    for a in left:
        for b in right:
            if a is b or (part.figure in COSTS and a.machines != b.machines):
                continue
            apart = {key for key in {*a.settings, *b.settings} if a.setting(key) != b.setting(key)} - varied
            allowed = {key for key in apart if any(fnmatchcase(key, also) for also in part.also)}
            if apart != allowed and "preset" not in part.a:
                continue
            untold = {*varied, *allowed, *part.where, *({"schedule.milestones"} & {*part.also})}
            scope = departures((a, b), part.home, untold if "preset" not in part.a else {*apart, *varied})
            if scope.foreign:
                continue
            n = min(len(pool.values(part.figure)) for pool in (a, b))
            more = len(a.values(part.figure)) + len(b.values(part.figure))
            full, still = scope.full and n > 1, asleep((a, b), part, scope)
            order = (not full, still, -n, len(allowed), len(scope.reduced + scope.other))
            yield *order, -stretch(part, a, b), -more, (a, b), scope


def stretch(part: Part, a: Pool, b: Pool) -> float:
    """How far apart the sides are in the keys that vary: of two pairs alike, the farther apart tells more."""
    numbers = [(a.setting(key), b.setting(key)) for key in {*part.a, *part.b}]
    return sum(
        abs(x - y) / max(abs(x), abs(y), 1e-300)
        for x, y in numbers
        if isinstance(x, float | int) and isinstance(y, float | int)
    )


def level(part: Part, pools: Sequence[Pool]) -> Finding:
    found = best(part, pools)
    if found is None:
        return Finding(part)
    pool, scope = found
    raw = pool.values(part.figure)
    bounds = [bound and scaled([bound], part.figure)[0] for bound in (part.at_least, part.at_most)]
    tails = within(scaled(raw, part.figure), *bounds) or exactly(raw, part)
    text = f"{short(part.figure)}, {bound_text(part)}: {name(pool, part)} {told(raw)}"
    why = "one run" if len(raw) < 2 else "the seeds do not differ"
    return Finding(part, text, why, tails, scope, counts=(len(raw),))


def exactly(values: Sequence[float], part: Part) -> Tails | None:
    """Runs without scatter: how likely they would all lie on this side of the bound if each side were equally so."""
    if len(values) < 2:
        return None
    low, high = part.at_least, part.at_most
    inside = (low is None or values[0] >= low) and (high is None or values[0] <= high)
    p = 0.5 ** len(values)
    return Tails(p, 1 - p) if inside else Tails(1 - p, p)


def bound_text(part: Part) -> str:
    if part.at_least is None:
        return f"at most {part.at_most:g}"
    return f"at least {part.at_least:g}" if part.at_most is None else f"{part.at_least:g} to {part.at_most:g}"


def best(part: Part, pools: Sequence[Pool]) -> tuple[Pool, Departures] | None:
    """The configuration to look at: of the part's presets, or else any; as published first, then the most seeds."""
    suited = [pool for pool in pools if pool.values(part.figure) and (not part.presets or pool.preset in part.presets)]
    ranked = [(pool, departures([pool], part.home, part.where)) for pool in suited]
    ranked = [(pool, scope) for pool, scope in ranked if not scope.foreign]
    if not part.relation:
        ranked = [(pool, scope) for pool, scope in ranked if scope.full]
    order = [(not (scope.full and len(pool.runs) > 1), -len(pool.values(part.figure))) for pool, scope in ranked]
    return min(zip(order, ranked, strict=True), key=lambda item: item[0])[1] if ranked else None


def rate(part: Part, pools: Sequence[Pool]) -> Finding:
    found = best(part, pools)
    if found is None or part.at_least is None:
        return Finding(part)
    pool, scope = found
    values = pool.values(part.figure)
    n, hits = len(values), sum(value >= part.at_least for value in values)
    low, high = clopper_pearson(hits, n)
    text = (
        f"{short(part.figure)}, at least {part.at_least:g}: {name(pool, part)} {hits} of {n} runs "
        f"(95 %: {low:.0%} to {high:.0%}; claimed {part.share[0]:.0%} to {part.share[1]:.0%})"
    )
    return Finding(part, text, "", share(hits, n, *part.share) if n > 1 else None, scope, counts=(n,))


def count(part: Part, pools: Sequence[Pool]) -> Finding:
    """Of a network as the home's, apart from `where`: what the manifest counts, whatever it was trained on."""
    for pool in pools:
        if (values := pool.values(part.figure)) and same_network(pool, part.home, part.where):
            low = part.at_least if part.value is None else part.value - part.margin
            high = math.inf if part.value is None else part.value + part.margin
            assert low is not None
            text = f"{short(part.figure)} {values[0]:,.0f}"
            return Finding(part, text, "", settled=low <= values[0] <= high, counts=(len(values),))
    return Finding(part)


def along(
    test: Callable[..., tuple[str, str, Tails | None, Departures, int]],
) -> Callable[[Part, Sequence[Pool]], Finding]:
    def rule(part: Part, pools: Sequence[Pool]) -> Finding:
        text, why, tails, scope, n = test(part, pools, scaled)
        return Finding(part, text, why, tails, scope, counts=(n,) if n else ())

    return rule


RULES: dict[str, Callable[[Part, Sequence[Pool]], Finding]] = {
    "contrast": contrast,
    "level": level,
    "rate": rate,
    "trend": along(trend),
    "optimum": along(optimum),
    "count": count,
}
