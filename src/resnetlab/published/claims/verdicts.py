"""Verdicts: Holm's correction over all parts that can be tested, and a claim's parts combined."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from resnetlab.published.claims.data import Claim
from resnetlab.published.claims.part_results import PartResult, evaluate
from resnetlab.published.claims.run_groups import Differences, RunGroup
from resnetlab.report.compare import ALPHA
from resnetlab.report.statistics import OneSidedTest, holm, seeds_needed

HOLDS, FAILS, PARTLY, CANNOT = "holds", "does not hold", "holds in part", "cannot tell"


@dataclass(frozen=True)
class Verdict:
    """Verdict on a claim: HOLDS, FAILS, PARTLY or CANNOT. scope: how its runs differ from the published ones."""

    claim: Claim
    verdict: str
    scope: str
    parts: Sequence[PartResult]

    @property
    def full(self) -> bool:
        """Whether nothing is left to decide."""
        return self.verdict in (HOLDS, FAILS) and not self.scope

    def __str__(self) -> str:
        return f"{self.verdict} ({self.scope})" if self.scope else self.verdict


def judge(claims: Sequence[Claim], groups: Sequence[RunGroup]) -> list[Verdict]:
    """One verdict a claim. More claims judged together ask more of each: a false one is shown in 5 % of such lists."""
    found = [[evaluate(part, groups) for part in claim.parts] for claim in claims]
    tested = [result for results in found for result in results]
    adjusted = holm([None if result.test is None else result.test.p for result in tested])
    alpha = ALPHA / max(1, sum(p is not None for p in adjusted))
    judged = iter([judge_part(result, p, alpha) for result, p in zip(tested, adjusted, strict=True)])
    return [combine(claim, [next(judged) for _ in results]) for claim, results in zip(claims, found, strict=True)]


def judge_part(result: PartResult, adjusted: float | None, alpha: float) -> PartResult:
    """Verdict on one part. alpha: of the strictest step of Holm's, by which the seeds are counted that would do."""
    if result.test is None or adjusted is None:
        return replace(result, verdict=CANNOT)
    if adjusted < ALPHA and (result.permutation_p is None or result.permutation_p < ALPHA):
        favourable = result.test.p_for < result.test.p_against
        return replace(result, adjusted=adjusted, verdict=HOLDS if favourable else FAILS, why="")
    return replace(result, adjusted=adjusted, verdict=CANNOT, why=seeds_missing(result, result.test, alpha))


def seeds_missing(result: PartResult, test: OneSidedTest, alpha: float) -> str:
    """A sentence that n is too small, and how large it must be if the true effect is the estimated one."""
    unknown = f"not shown at n = {' and '.join(map(str, result.counts))}"
    if not test.sd or not test.distance:
        return unknown
    seeds = seeds_needed(test.distance, test.sd, alpha)
    if seeds is None:
        return f"{unknown}; more than 10,000 seeds would be needed"
    if result.part.rule == "level":  # one mean against a number has half the variance of two means
        seeds = seeds // 2 + 2
    return f"{unknown}; about {max(seeds, *(n + 1 for n in result.counts))} seeds would do"


def combine(claim: Claim, parts: Sequence[PartResult]) -> Verdict:
    """Verdict on a claim: it holds if all parts do, and does not if one does not.

    In part if the relations do, and the levels, which reduced runs never decide, have no run.
    """
    if claim.settled:
        return Verdict(claim, HOLDS, "", parts)
    failed = [part for part in parts if part.verdict == FAILS]
    held = [part for part in parts if part.verdict == HOLDS]
    levels = [part for part in parts if not part.counts and not part.part.is_relation]
    if failed or (held and len(held) == len(parts)):
        return Verdict(claim, FAILS if failed else HOLDS, scopes(failed or held), parts)
    reduced = any(not part.scope.none for part in held)
    if reduced and len(held) + len(levels) == len(parts):
        return Verdict(claim, PARTLY, f"{scopes(held)}; the relation, not the levels", parts)
    return Verdict(claim, CANNOT, "", parts)


def scopes(parts: Sequence[PartResult]) -> str:
    """All differences of the runs that decided, each once."""
    reduced = dict.fromkeys(text for part in parts for text in part.scope.reduced)
    other = dict.fromkeys(text for part in parts for text in part.scope.other)
    return str(Differences(tuple(reduced), tuple(other)))
