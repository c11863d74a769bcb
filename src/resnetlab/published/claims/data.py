"""claims.toml as typed claims: a sentence with its numbers, how runs decide it, and the commands of such runs."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from resnetlab.errors import require_one_of

FILE = Path(__file__).with_name("claims.toml")

# key -> the value, a list of values that will do, or {min, max}; "preset" is the published configuration's name
Where = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """One decidable statement. rule, with the fields that it reads:

    contrast  metric of the runs at `a` against that at `b`, which differ in no key but those that a and b name and
              `also` allows; expect higher | lower | equal (means apart by less than margin)
    level     metric of one configuration; at_least, at_most, or both. Of `presets` (never of reduced runs), or of any
              configuration at `where` if the metric compares a run with itself; full: never of reduced runs

    context: name of the published configuration from which differences are counted. where: of both sides.
    needs_fluctuation: of a level's runs or a contrast's b, without which there is nothing to show.
    margin: of metrics that are compared as logarithms in powers of ten, and -0.3 of a "higher" reads: higher than half.
    """

    rule: str
    metric: str
    context: str
    a: Where = field(default_factory=dict)
    b: Where = field(default_factory=dict)
    where: Where = field(default_factory=dict)
    also: Sequence[str] = ()
    presets: Sequence[str] = ()
    expect: str = ""
    margin: float = 0.0
    at_least: float | None = None
    at_most: float | None = None
    needs_fluctuation: bool = False
    full: bool = False

    @property
    def named_presets(self) -> set[str]:
        sides = [side.get("preset", []) for side in (self.a, self.b)]
        return {*self.presets, *(name for side in sides for name in ([side] if isinstance(side, str) else side))}

    @property
    def is_relation(self) -> bool:
        """Whether reduced runs may decide it."""
        return not (self.full or self.named_presets)


@dataclass(frozen=True)
class Claim:
    """One published claim. decided_by: arguments of train.py that would decide it in full.

    settled: the test that decides it once for all. look: why runs alone do not decide it, or where to look at it.
    left_out: why it is not judged.
    """

    id: str
    post: str
    text: str
    parts: Sequence[Part] = ()
    decided_by: Sequence[str] = ()
    settled: str = ""
    look: str = ""
    left_out: str = ""


def claims(post: str | None = None) -> list[Claim]:
    """All claims, or those of one source, in the sources' order. Raises ConfigError for a source that has none."""
    found = [
        Claim(**raw | {"parts": [Part(**part) for part in raw.get("parts", ())]}) for raw in claims_file()["claim"]
    ]
    if post is not None:
        require_one_of("post", post, dict.fromkeys(claim.post for claim in found))
    return [claim for claim in found if post in (None, claim.post)]


def contexts() -> dict[str, dict[str, Any]]:
    """By the context's name its published configuration, under "preset", and settings that its row does not show."""
    return claims_file()["context"]


@cache
def claims_file() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))
