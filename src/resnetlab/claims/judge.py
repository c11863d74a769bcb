"""Verdicts: every part that can be tested, Holm's correction over all of them, and a claim's parts put together."""

from collections.abc import Sequence
from dataclasses import dataclass

from resnetlab.claims.data import Claim
from resnetlab.claims.departures import Departures
from resnetlab.claims.finding import Finding
from resnetlab.claims.pools import Pool
from resnetlab.claims.rules import find
from resnetlab.report.compare import ALPHA
from resnetlab.report.statistics import holm, seeds_needed

__all__ = ["CANNOT", "FAILS", "HOLDS", "PARTLY", "Judged", "Verdict", "judge"]

HOLDS, FAILS, PARTLY, CANNOT = "holds", "does not hold", "holds in part", "cannot tell"


@dataclass(frozen=True)
class Judged:
    """One part: its finding, Holm's p over all parts that were tested, and what follows, with why if nothing does."""

    finding: Finding
    adjusted: float | None
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """A claim. verdict: HOLDS, FAILS, PARTLY, CANNOT; scope: how the runs behind it differ from the published ones."""

    claim: Claim
    verdict: str
    scope: str
    parts: Sequence[Judged]

    @property
    def full(self) -> bool:
        """Whether nothing is left to decide."""
        return self.verdict in (HOLDS, FAILS) and not self.scope

    def __str__(self) -> str:
        return f"{self.verdict} ({self.scope})" if self.scope else self.verdict


def judge(claims: Sequence[Claim], pools: Sequence[Pool]) -> list[Verdict]:
    """One verdict a claim. More claims judged together ask more of each: a false one is shown in 5 % of such lists."""
    found = [[find(part, pools) for part in claim.parts] for claim in claims]
    tested = [finding for findings in found for finding in findings]
    adjusted = holm([None if finding.tails is None else finding.tails.p for finding in tested])
    family = sum(p is not None for p in adjusted)
    judged = iter([one(finding, p, ALPHA / max(1, family)) for finding, p in zip(tested, adjusted, strict=True)])
    return [together(claim, [next(judged) for _ in findings]) for claim, findings in zip(claims, found, strict=True)]


def one(finding: Finding, adjusted: float | None, alpha: float) -> Judged:
    """alpha: of the strictest step of Holm's, by which the seeds are counted that would do."""
    if finding.settled is not None:
        return Judged(finding, None, HOLDS if finding.settled else FAILS)
    if finding.tails is None or adjusted is None:
        return Judged(finding, None, CANNOT, finding.why)
    if adjusted < ALPHA and (finding.dealt is None or finding.dealt < ALPHA):
        return Judged(finding, adjusted, HOLDS if finding.tails.favourable else FAILS)
    return Judged(finding, adjusted, CANNOT, more(finding, alpha))


def more(finding: Finding, alpha: float) -> str:
    """That n is too small, and about how large it must be if what is seen is so."""
    counts = " and ".join(map(str, finding.counts))
    unknown = f"not shown at n = {counts}"
    tails = finding.tails
    if tails is None or finding.part.rule not in ("contrast", "level", "optimum") or not tails.sd or not tails.distance:
        return unknown
    seeds = seeds_needed(tails.distance, tails.sd, alpha)
    if seeds is None:
        return f"{unknown}; more than 10,000 seeds would be needed"
    if finding.part.rule == "level":  # one mean against a number has half the variance of two means
        seeds = seeds // 2 + 2
    return f"{unknown}; about {max(seeds, *(n + 1 for n in finding.counts))} seeds would do"


def together(claim: Claim, parts: Sequence[Judged]) -> Verdict:
    """Holds if all parts do, does not if one does not.

    In part if the relations do, and the levels, which reduced runs never decide, have no run.
    """
    if claim.settled:
        return Verdict(claim, HOLDS, "", parts)
    failed = [part for part in parts if part.verdict == FAILS]
    held = [part for part in parts if part.verdict == HOLDS]
    silent = [part for part in parts if not part.finding.counts and not part.finding.part.relation]
    if failed:
        return Verdict(claim, FAILS, scopes(failed), parts)
    if held and len(held) == len(parts):
        return Verdict(claim, HOLDS, scopes(held), parts)
    reduced = [part for part in held if not part.finding.scope.full]
    if reduced and len(held) + len(silent) == len(parts):
        return Verdict(claim, PARTLY, f"{scopes(held)}; the relation, not the levels", parts)
    return Verdict(claim, CANNOT, "", parts)


def scopes(parts: Sequence[Judged]) -> str:
    """All departures of the runs that decided, each once."""
    found = [part.finding.scope for part in parts]
    reduced = dict.fromkeys(text for scope in found for text in scope.reduced)
    other = dict.fromkeys(text for scope in found for text in scope.other)
    return str(Departures(tuple(reduced), tuple(other)))
