"""`resnetlab published --claims`: judges the claims by the runs below folders; prints a table or JSON."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from resnetlab.console import TRAIN_COMMAND, Console
from resnetlab.errors import ConfigError, require_one_of
from resnetlab.published.claims.data import claims
from resnetlab.published.claims.part_results import PartResult
from resnetlab.published.claims.run_groups import RunGroup, group_runs
from resnetlab.published.claims.verdicts import CANNOT, FAILS, HOLDS, PARTLY, Verdict, judge
from resnetlab.report.groups import Collection, collect
from resnetlab.runs.load import require_folders

NARROWEST, WIDEST = 120, 220
SEEDS = 5


def print_claims(folders: Sequence[Path], form: str = "table", post: str | None = None, wide: bool = False) -> None:
    """Judges all claims by the runs below the folders, and prints those of one post, or all.

    Raises ConfigError for the form, the post, or a folder that is missing or holds no finished run.
    """
    require_one_of("--format", form, ("table", "json"))
    shown = {claim.id for claim in claims(post)}
    require_folders(folders)
    collection = collect(folders)
    if not collection.runs:
        raise ConfigError(f"{', '.join(map(str, folders))}: no finished run below{unused(collection)}; train one first")
    groups = group_runs(collection)
    verdicts = judge(claims(), groups)  # all of them, so that --post does not change the correction
    notes = [used_runs(collection, groups), correction(verdicts)]
    chosen = [verdict for verdict in verdicts if verdict.claim.id in shown]
    if form == "table":
        print_table(chosen, notes, wide)
    else:
        print(json.dumps({"notes": notes, "claims": [entry(verdict) for verdict in chosen]}, indent=2))


def unused(collection: Collection) -> str:
    """Counts of the skipped runs, for example " (2 diverged, 1 unreadable)"."""
    kinds = Counter(run.kind for run in collection.skipped)
    return f" ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))})" if kinds else ""


def used_runs(collection: Collection, groups: Sequence[RunGroup]) -> str:
    used = sum(len(group.runs) for group in groups)
    unknown = sum(not run.manifest for run in collection.runs)
    repeated = len(collection.runs) - used - unknown
    text = f"{used} runs of {len(groups)} configurations; a seed of a configuration counts once, whatever its study"
    text += f" ({repeated} left out)" if repeated else ""
    text += f"; {unknown} without a manifest left out" if unknown else ""
    return text + (f"; not used{unused(collection)}" if collection.skipped else "")


def correction(verdicts: Sequence[Verdict]) -> str:
    tests = sum(part.adjusted is not None for verdict in verdicts for part in verdict.parts)
    return (
        f"{tests} tests, each at 5 %: about one in twenty false claims would look shown, so p is Holm's over all of "
        "them, those of other posts too. n = 1 decides nothing."
    )


def print_table(verdicts: Sequence[Verdict], notes: Sequence[str], wide: bool = False) -> None:
    """Every column on 120 characters or more, or if wide is asked for; else id, claim and verdict."""
    width = min(WIDEST, Console().width) if Console().is_terminal else WIDEST
    narrow = width < NARROWEST and not wide
    table = Table(*("id", "claim", "verdict", "figures", "would decide it")[: 3 if narrow else 5], show_lines=True)
    for column, share in zip(table.columns, (0, 4, 3, 6, 5), strict=False):
        column.ratio, column.overflow = share or None, "fold"
    table.columns[0].no_wrap = True
    for verdict in verdicts:
        cells = (verdict.claim.text, str(verdict), "\n".join(lines(verdict)), "\n".join(commands(verdict)))
        table.add_row(verdict.claim.id, *(cell.replace("[", r"\[") for cell in cells[: len(table.columns) - 1]))
    console = Console(width=width if narrow else max(NARROWEST, width))
    console.print(table)
    notes = [*notes, *(["figures, and what would decide a claim: --wide"] if narrow else [])]
    for line in (*notes, counts(verdicts)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def counts(verdicts: Sequence[Verdict]) -> str:
    """How many of each, those in full apart from those of reduced or other runs, and from those that hold in part."""
    kinds = Counter((verdict.verdict, bool(verdict.scope)) for verdict in verdicts)
    verbs = {HOLDS: "hold", FAILS: "do not hold"}
    parts = [f"{kinds[key, False]} {verb}" for key, verb in verbs.items()]
    parts += [f"{kinds[key, True]} {verb} in runs other than the published" for key, verb in verbs.items()]
    return (
        f"Of {len(verdicts)} claims: {', '.join(parts)}, {kinds[CANNOT, False]} cannot be told.\n"
        f"{kinds[PARTLY, True]} hold in part: reduced runs show the relation, and only full runs decide the levels."
    )


def lines(verdict: Verdict) -> Iterator[str]:
    """The result of each part, or why the claim is not judged by runs."""
    claim = verdict.claim
    heads = {"settled by": claim.settled, "looked at with:": claim.look, "left out:": claim.left_out}
    yield from (f"{head} {text}" for head, text in heads.items() if text)
    yield from (part_line(part, single=len(verdict.parts) == 1) for part in verdict.parts)


def part_line(result: PartResult, single: bool) -> str:
    """Values, p, and the part's own verdict where a claim has several."""
    cannot = result.verdict == CANNOT
    if not result.text:
        presets = f" ({', '.join(result.part.presets)})" if result.part.presets else ""
        return f"{result.part.metric}: {result.why}{presets}"
    text = result.text if result.adjusted is None else f"{result.text}; p = {result.adjusted:.2g}"
    text += f" -> {result.verdict}" if cannot or not single else ""
    text += f": {result.why}" if result.why else ""
    return f"{text} ({result.scope})" if cannot and not result.scope.none else text


def commands(verdict: Verdict) -> list[str]:
    """The commands that would decide a claim that is not decided in full."""
    decide = () if verdict.full else verdict.claim.decided_by
    return [f"{TRAIN_COMMAND} {arguments} seeds={SEEDS}" for arguments in decide]


def entry(verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    head = {"id": claim.id, "post": claim.post, "claim": claim.text, "verdict": verdict.verdict}
    parts = [
        {
            "verdict": part.verdict,
            "figure": part.part.metric,
            "rule": part.part.rule,
            "figures": part.text,
            "n": list(part.counts),
            "p_two_sided": part.test and part.test.p,
            "p_holm": part.adjusted,
            "departures": str(part.scope),
            "why": part.why,
        }
        for part in verdict.parts
    ]
    rest = {"settled_by": claim.settled, "look": claim.look, "left_out": claim.left_out}
    return {**head, "departures": verdict.scope, "parts": parts, **rest, "would_decide": commands(verdict)}
