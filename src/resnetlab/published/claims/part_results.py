"""Tests of the parts of claims on groups of runs: a contrast of two groups, or a level of one.

Runs are chosen by their settings and their number, never by what came out of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from statistics import fmean

from resnetlab.published.claims.data import Part, Where
from resnetlab.published.claims.metrics import description, may_be_unreached, scaled
from resnetlab.published.claims.run_groups import Differences, RunGroup, differences, distance, matches
from resnetlab.report import statistics
from resnetlab.report.columns import COSTS, mean_sd
from resnetlab.report.groups import format_value
from resnetlab.runs.summary import FLUCTUATION_EPOCHS

FLUCTUATING = 0.5  # least fluctuation of val ce, its trend removed; the published max - min are 0.7 and more
NO_FLUCTUATION = "the validation loss does not fluctuate in these runs, which may be too small or too short for it"


@dataclass(frozen=True)
class PartResult:
    """Result of one part. test: None where none is possible; why: why it cannot be told.

    permutation_p: of a contrast, where n is large enough for it to get below 5 %. counts: runs on each side.
    adjusted: Holm's p over all parts that were tested. verdict: HOLDS, FAILS or CANNOT.
    """

    part: Part
    text: str = ""
    why: str = "no such runs"
    test: statistics.OneSidedTest | None = None
    scope: Differences = field(default_factory=Differences)
    permutation_p: float | None = None
    counts: tuple[int, ...] = ()
    adjusted: float | None = None
    verdict: str = ""


def evaluate(part: Part, groups: Sequence[RunGroup]) -> PartResult:
    """Tests the part on the runs that suit it best: as published first, then the most seeds."""
    contrast = part.rule == "contrast"
    found = (pairs if contrast else levels)(part, [group for group in groups if matches(group, part.where)])
    if not found:
        return PartResult(part)
    scope, chosen = found[0]
    sides = zip(chosen, (part.a, part.b) if contrast else (part.where,), strict=True)
    head = description(part.metric) + ("" if contrast else f", {bound_text(part)}")
    text = f"{head}: {'; '.join(side_text(group, part, keys) for group, keys in sides)}"
    text += other_pairs(part, found) if contrast else ""
    values = [scaled(group.values(part.metric), part.metric) for group in chosen]
    counts = tuple(map(len, values))
    result = PartResult(part, text, scope=scope, counts=counts)
    if why := unreached(part, chosen) or no_fluctuation(part, chosen, scope):
        return replace(result, why=why)
    few = "one run on a side" if contrast else "one run"
    result = replace(result, why=few if min(counts) < 2 else "the seeds do not differ")
    if not contrast:
        low, high = (bound and scaled([bound], part.metric)[0] for bound in (part.at_least, part.at_most))
        return replace(result, test=statistics.level_test(values[0], low, high))
    exact = part.expect != "equal" and not part.margin and statistics.least_permutation_p(*counts) < 0.05
    test = statistics.difference_test(values[0], values[1], part.expect, part.margin)
    return replace(result, test=test, permutation_p=statistics.permutation(values[0], values[1]) if exact else None)


Chosen = tuple[Differences, Sequence[RunGroup]]  # and how the runs differ from the published ones


def pairs(part: Part, groups: Sequence[RunGroup]) -> list[Chosen]:
    """Every pair that may be compared, the one to be tested first: as published, with the most seeds, the nearest."""
    left, right = ([group for group in groups if matches(group, side)] for side in (part.a, part.b))
    varied = {*part.a, *part.b} - {"preset"}
    found = []
    for a, b in ((x, y) for one in left for two in right if one is not two for x, y in same_conditions(part, one, two)):
        n = [group.count_informative(part.metric) for group in (a, b)]
        apart = {key for key in {*a.settings, *b.settings} if a.setting(key) != b.setting(key)} - varied
        allowed = {key for key in apart if any(fnmatchcase(key, also) for also in part.also)}
        if min(n) == 0 or (apart != allowed and "preset" not in part.a):
            continue
        free = {*varied, *allowed, *part.where, *({"schedule.milestones"} & {*part.also})}
        scope = differences((a, b), part, free if "preset" not in part.a else {*apart, *varied})
        if not scope.other_recipe:
            order = (not (scope.none and min(n) > 1), ends_too_early(part, (a, b)), -min(n), len(allowed))
            rest = (len(scope.reduced + scope.other), -sum(n), distance((a, b), part.context))
            found.append(((*order, *rest), (scope, (a, b))))
    return [pair for _, pair in sorted(found, key=lambda item: item[0])]


def same_conditions(part: Part, a: RunGroup, b: RunGroup) -> list[tuple[RunGroup, RunGroup]]:
    """Both groups; of costs, their runs on each machine with as many threads and validations."""
    if part.metric not in COSTS:
        return [(a, b)]
    first, second = a.by_conditions(), b.by_conditions()
    return [(first[key], second[key]) for key in sorted(first.keys() & second.keys())]


def other_pairs(part: Part, found: Sequence[Chosen]) -> str:
    """How many of the pairs that are not tested have the difference's sign, for the reader alone."""
    values = [(a.values(part.metric), b.values(part.metric)) for _, (a, b) in found]
    signs = [fmean(a) > fmean(b) for a, b in values if a and b]
    if not all(values[0]) or len(signs) < 2 or part.expect == "equal":
        return ""
    same = sum(sign == signs[0] for sign in signs[1:])
    return f"; of {len(signs) - 1} other pairs {same} with this sign"


def levels(part: Part, groups: Sequence[RunGroup]) -> list[Chosen]:
    """Every group that may be set beside the bounds, the one to be tested first, as of pairs."""
    found = []
    for group in groups:
        n = group.count_informative(part.metric)
        if n and (not part.presets or group.preset in part.presets):
            scope = differences([group], part, part.where)
            if not scope.other_recipe and (part.is_relation or scope.none):
                published = scope.none and len(group.runs) > 1
                order = (not published, ends_too_early(part, [group]), -n, distance([group], part.context))
                found.append((order, (scope, (group,))))
    return [chosen for _, chosen in sorted(found, key=lambda item: item[0])]


def no_fluctuation(part: Part, groups: Sequence[RunGroup], scope: Differences) -> str:
    """Why a claim about fluctuations cannot be tested: the selected runs do not fluctuate. Empty if it can."""

    def fluctuates(group: RunGroup) -> bool:
        found = group.values("fluctuation")
        return bool(found) and fmean(found) >= FLUCTUATING

    lacking = part.needs_fluctuation and not fluctuates(groups[-1])
    reduced = part.metric == "amplitude" and not scope.none
    return NO_FLUCTUATION if lacking or (reduced and not any(map(fluctuates, groups))) else ""


def ends_too_early(part: Part, groups: Sequence[RunGroup]) -> bool:
    """Whether runs end before a fluctuation that the part asks for does: longer ones are preferred."""
    asked = part.needs_fluctuation or part.metric == "amplitude"
    return asked and any(group.settings["epochs"] < FLUCTUATION_EPOCHS[1] for group in groups)


def unreached(part: Part, groups: Sequence[RunGroup]) -> str:
    """Runs that lack the metric, whose omission would be a choice by the outcome: "lr 0.1: 7 of 10 never reach it"."""
    texts = []
    for group, keys in zip(groups, (part.a or part.where, part.b), strict=False):
        missing = len(group.runs) - len(group.values(part.metric))
        if missing and may_be_unreached(part.metric):
            texts.append(f"{describe_group(group, keys)}: {missing} of {len(group.runs)} runs never reach it")
    return "; ".join(texts)


def bound_text(part: Part) -> str:
    if part.at_least is None:
        return f"at most {part.at_most:g}"
    return f"at least {part.at_least:g}" if part.at_most is None else f"{part.at_least:g} to {part.at_most:g}"


def side_text(group: RunGroup, part: Part, keys: Where) -> str:
    """Mean and sd of one side: "wd 0.2 0.9231 ± 0.0012 (n = 3)"; "(n = 3 of 10)" where others lack the metric."""
    found, head = statistics.mean_interval(group.values(part.metric)), describe_group(group, keys)
    if found is None:
        return f"{head} none (n = 0 of {len(group.runs)})"
    of = f" of {len(group.runs)}" if found.n < len(group.runs) else ""
    return f"{head} {mean_sd(found, found.n)} (n = {found.n}{of})"


def describe_group(group: RunGroup, keys: Where) -> str:
    """What distinguishes this side from the other: "wd 0.2", or the preset's name."""
    if not keys or "preset" in keys:
        return group.preset or "these runs"
    return ", ".join(f"{key.split('.')[-1]} {format_value(group.setting(key))}" for key in keys)
