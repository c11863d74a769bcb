"""From a part of a claim and the runs to what they show of it."""

import math
from collections.abc import Callable, Sequence

from resnetlab.claims.contrasts import contrast
from resnetlab.claims.data import Part
from resnetlab.claims.departures import same_network
from resnetlab.claims.finding import Finding
from resnetlab.claims.levels import level, rate
from resnetlab.claims.lines import optimum, trend
from resnetlab.claims.pools import Pool, fits
from resnetlab.claims.words import short

__all__ = ["RULES", "find"]


def find(part: Part, pools: Sequence[Pool]) -> Finding:
    """The test of the part, on the runs that suit it best: as published first, then the most seeds."""
    return RULES[part.rule](part, [pool for pool in pools if fits(pool, part.where)])


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


RULES: dict[str, Callable[[Part, Sequence[Pool]], Finding]] = {
    "contrast": contrast,
    "level": level,
    "rate": rate,
    "trend": trend,
    "optimum": optimum,
    "count": count,
}
