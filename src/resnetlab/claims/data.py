"""claims.toml as typed claims: a sentence with its numbers, how runs decide it, and which runs would."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from resnetlab.errors import ConfigError

__all__ = ["Claim", "Part", "Where", "claims", "homes"]

FILE = Path(__file__).with_name("claims.toml")

# key -> the value, a list of values that will do, or {min, max}; "preset" is the published configuration's name
Where = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """One decidable statement. rule and what it reads:

    contrast  figure of the runs at `a` against that at `b`, which differ in no key but those that a and b name and
              `also` allows; expect higher | lower | equal (means apart by less than margin)
    level     figure of one configuration; at_least, at_most, or both. Of `presets` (never of reduced runs), or of any
              configuration at `where` if the figure compares a run with itself; full: never of reduced runs
    rate      the share of runs whose figure is at_least; share: [least, most] of that share
    trend     figure along `key`, or against the figure `against` along it; expect rising | falling
    optimum   the best figure along `key` lies inside [at_least, at_most] of the key
    count     a number of the network's, value +- margin or at_least: no chance in it

    home: the name of the published surroundings from which departures are told. where: of all sides.
    needs: {"amplitude": its least mean}, of a level's or a contrast's b, without which there is nothing to show.
    margin: of figures that are compared as logarithms in powers of ten, and -0.3 of a "higher" reads: higher than half.
    """

    rule: str
    figure: str
    home: str
    what: str = ""
    a: Where = field(default_factory=dict)
    b: Where = field(default_factory=dict)
    where: Where = field(default_factory=dict)
    also: Sequence[str] = ()
    presets: Sequence[str] = ()
    expect: str = ""
    margin: float = 0.0
    key: str = ""
    against: str = ""
    at_least: float | None = None
    at_most: float | None = None
    value: float | None = None
    share: Sequence[float] = (0.0, 1.0)
    needs: Mapping[str, float] = field(default_factory=dict)
    full: bool = False

    @property
    def named(self) -> set[str]:
        """The published configurations that it names."""
        sides = [side.get("preset", []) for side in (self.a, self.b)]
        return {*self.presets, *(name for side in sides for name in ([side] if isinstance(side, str) else side))}

    @property
    def relation(self) -> bool:
        """Whether reduced runs may speak to it."""
        return not (self.full or self.presets or "preset" in self.a or "preset" in self.b)


@dataclass(frozen=True)
class Claim:
    """One published claim. decided_by: arguments of train.py that would decide it in full.

    settled: the test that decides it once for all. look: why runs alone do not decide it, or with what it is looked at.
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


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@cache
def _claims() -> tuple[Claim, ...]:
    return tuple(
        Claim(**claim | {"parts": tuple(Part(**part) for part in claim.get("parts", ()))}) for claim in _file()["claim"]
    )


def claims(post: str | None = None) -> list[Claim]:
    """All claims, or those of one source, in the sources' order. Raises ConfigError for a source that has none."""
    valid = list(dict.fromkeys(claim.post for claim in _claims()))
    if post is not None and post not in valid:
        raise ConfigError(f"post (={post}) must be one of {', '.join(valid)}")
    return [claim for claim in _claims() if post in (None, claim.post)]


def homes() -> dict[str, dict[str, Any]]:
    """{name: settings of the preset that it names under "preset"}: the surroundings in which claims were made."""
    found: dict[str, dict[str, Any]] = _file()["home"]
    return found
