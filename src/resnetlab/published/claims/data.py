"""claims.toml as typed claims: a sentence with its numbers, how runs decide it, and the commands of such runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resnetlab.errors import require_one_of
from resnetlab.runs.files import data_beside

CLAIMS_FILE = data_beside(__file__, "claims.toml")
Where = Mapping[str, Any]  # of a, b and where in claims.toml


@dataclass(frozen=True)
class Part:
    """One decidable statement; the head of claims.toml says what its fields mean."""

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
    """One published claim; the head of claims.toml says what its fields mean."""

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
    found = [Claim(**raw | {"parts": [Part(**p) for p in raw.get("parts", ())]}) for raw in CLAIMS_FILE["claim"]]
    if post is not None:
        require_one_of("--post", post, dict.fromkeys(claim.post for claim in found))
    return [claim for claim in found if post in (None, claim.post)]
