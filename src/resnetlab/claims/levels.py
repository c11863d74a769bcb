"""The runs of one configuration against a bound: their mean, or the share of them."""

from collections.abc import Sequence

from resnetlab.claims.data import Part
from resnetlab.claims.departures import Departures, away, departures
from resnetlab.claims.evidence import Tails, clopper_pearson, share, within
from resnetlab.claims.finding import Finding, asleep, never, scaled, short_of_swings
from resnetlab.claims.pools import Pool
from resnetlab.claims.words import name, short, told

__all__ = ["level", "rate"]


def level(part: Part, pools: Sequence[Pool]) -> Finding:
    found = best(part, pools)
    if found is None:
        return Finding(part)
    pool, scope = found
    raw = pool.values(part.figure)
    text = f"{short(part.figure)}, {bound_text(part)}: {name(pool, part)} {told(pool, part.figure)}"
    counts = (len(raw),)
    if why := never(part.figure, [(pool, name(pool, part))]) or asleep(part, (pool,), (pool,), scope):
        return Finding(part, text, why, None, scope, counts=counts)
    bounds = [bound and scaled([bound], part.figure)[0] for bound in (part.at_least, part.at_most)]
    tails = within(scaled(raw, part.figure), *bounds) or exactly(raw, part)
    why = "one run" if len(raw) < 2 else "the seeds do not differ"
    return Finding(part, text, why, tails, scope, counts=counts)


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
    """The configuration to look at, of the part's presets, or else any: as published first, then the most seeds.

    Not by what came out of it.
    """
    found = []
    for pool in pools:
        n = pool.looked_at(part.figure)
        if n and (not part.presets or pool.preset in part.presets):
            scope = departures([pool], part, part.where)
            if not scope.foreign and (part.relation or scope.full):
                published = scope.full and len(pool.runs) > 1
                order = (not published, short_of_swings(part, [pool]), -n, away([pool], part.home))
                found.append((order, pool, scope))
    return min(found, key=lambda item: item[0])[1:] if found else None


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
