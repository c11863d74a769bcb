"""What `resnetlab published --claims` prints: verdicts with their figures, and what would decide the others."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from resnetlab.claims.data import claims
from resnetlab.claims.judge import CANNOT, FAILS, HOLDS, Judged, Verdict, judge
from resnetlab.claims.pools import pooled
from resnetlab.errors import ConfigError
from resnetlab.report.collect import Collection, collect

__all__ = ["FORMATS", "print_claims"]

NARROWEST, WIDEST = 120, 220
SEEDS = 5


def print_claims(folders: Sequence[Path], form: str = "table", post: str | None = None) -> None:
    """Judges all claims by the runs below the folders, and prints those of one post, or all.

    Raises ConfigError for the form, the post, or a folder that is missing or holds no finished run.
    """
    if form not in FORMATS:
        raise ConfigError(f"format (={form}) must be one of {', '.join(FORMATS)}")
    shown = {claim.id for claim in claims(post)}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder; name one that holds runs, such as outputs")
    collection = collect(folders)
    if not collection.runs:
        raise ConfigError(
            f"{', '.join(map(str, folders))}: no finished run below{remainder(collection)}; train one first"
        )
    verdicts = judge(claims(), pooled(collection))  # all of them, so that --post does not change the correction
    notes = [used(collection), correction(verdicts)]
    FORMATS[form]([verdict for verdict in verdicts if verdict.claim.id in shown], notes)


def remainder(collection: Collection) -> str:
    """For example " (2 diverged, 1 unreadable)"."""
    kinds = Counter(unused.kind for unused in collection.unused)
    return f" ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))})" if kinds else ""


def used(collection: Collection) -> str:
    pools = pooled(collection)
    kept = sum(len(pool.runs) for pool in pools)
    silent = sum(not run.manifest for run in collection.runs)
    again = len(collection.runs) - kept - silent
    text = f"{kept} runs of {len(pools)} configurations; a seed of a configuration counts once, whatever its study"
    text += f" ({again} left out)" if again else ""
    text += f"; {silent} without a manifest left out" if silent else ""
    kinds = remainder(collection)
    return text + (f"; not used{kinds}" if kinds else "")


def correction(verdicts: Sequence[Verdict]) -> str:
    tests = sum(part.adjusted is not None for verdict in verdicts for part in verdict.parts)
    return (
        f"{tests} tests, each at 5 %: about one in twenty false claims would look shown, so p is Holm's over all of "
        "them, those of other posts too. n = 1 decides nothing but a number of parameters."
    )


def print_table(verdicts: Sequence[Verdict], notes: Sequence[str]) -> None:
    table = Table("id", "claim", "verdict", "figures", "would decide it", show_lines=True)
    for column, share in zip(table.columns, (0, 4, 3, 6, 5), strict=True):
        column.ratio, column.overflow = share or None, "fold"
    table.columns[0].no_wrap = True
    for verdict in verdicts:
        cells = (verdict.claim.text, str(verdict), "\n".join(lines(verdict)), wanted(verdict))
        table.add_row(verdict.claim.id, *(cell.replace("[", r"\[") for cell in cells))
    width = Console().width if Console().is_terminal else WIDEST
    console = Console(width=max(NARROWEST, min(WIDEST, width)))
    console.print(table)
    for line in (*notes, tally(verdicts)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many of each, those in full apart from those of reduced or other runs."""
    kinds = Counter((verdict.verdict, bool(verdict.scope)) for verdict in verdicts)
    words = {HOLDS: "hold", FAILS: "do not hold"}
    parts = [f"{kinds[key, False]} {word}" for key, word in words.items()]
    parts += [f"{kinds[key, True]} {word} in runs other than the published" for key, word in words.items()]
    return f"Of {len(verdicts)} claims: {', '.join(parts)}, {kinds[CANNOT, False]} cannot be told."


def lines(verdict: Verdict) -> Iterator[str]:
    """What the runs have, part by part, or why they do not speak to it."""
    claim = verdict.claim
    if claim.settled:
        yield f"settled by {claim.settled}"
    if claim.look or claim.left_out:
        yield f"looked at with: {claim.look}" if claim.look else f"left out: {claim.left_out}"
    for part in verdict.parts:
        yield line(part, alone=len(verdict.parts) == 1)


def line(part: Judged, alone: bool) -> str:
    """Figures, p, and the part's own verdict where a claim has several."""
    found = part.finding
    if not found.figures:
        presets = ", ".join(found.part.presets)
        return f"{found.part.figure}: {part.why}{f' ({presets})' if presets else ''}"
    p = "" if part.adjusted is None else f"; p = {part.adjusted:.2g}"
    said = "" if alone and part.verdict != CANNOT else f" -> {part.verdict}"
    why = f": {part.why}" if part.verdict == CANNOT and part.why else ""
    scope = f" ({found.scope})" if part.verdict == CANNOT and not found.scope.full else ""
    return f"{found.figures}{p}{said}{why}{scope}"


def wanted(verdict: Verdict) -> str:
    """The commands that would decide what is not decided in full."""
    return "" if verdict.full else "\n".join(commands(verdict))


def commands(verdict: Verdict) -> list[str]:
    return [f"python train.py {arguments} seeds={SEEDS}" for arguments in verdict.claim.decided_by]


def plain(verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    head = {"id": claim.id, "post": claim.post, "claim": claim.text, "verdict": verdict.verdict}
    parts = [
        {
            "verdict": part.verdict,
            "figure": part.finding.part.figure,
            "rule": part.finding.part.rule,
            "figures": part.finding.figures,
            "n": list(part.finding.counts),
            "p_two_sided": part.finding.tails and part.finding.tails.p,
            "p_holm": part.adjusted,
            "departures": str(part.finding.scope),
            "why": part.why if part.verdict == CANNOT else "",
        }
        for part in verdict.parts
    ]
    rest = {"settled_by": claim.settled, "look": claim.look, "left_out": claim.left_out}
    decide = [] if verdict.full else commands(verdict)
    return {**head, "departures": verdict.scope, "parts": parts, **rest, "would_decide": decide}


def print_json(verdicts: Sequence[Verdict], notes: Sequence[str]) -> None:
    print(json.dumps({"notes": list(notes), "claims": [plain(verdict) for verdict in verdicts]}, indent=2))


def print_csv(verdicts: Sequence[Verdict], notes: Sequence[str]) -> None:
    """One line a part, with the claim's columns before it; the notes go to standard error."""
    rows = []
    for entry in map(plain, verdicts):
        head = {key: value for key, value in entry.items() if not isinstance(value, list)}
        head["would_decide"] = "; ".join(entry["would_decide"])
        for part in entry["parts"] or [{}]:
            own = {f"part_{key}": value for key, value in part.items()}
            rows.append(head | own | ({"part_n": " ".join(map(str, part["n"]))} if part else {}))
    writer = csv.DictWriter(sys.stdout, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    print(*notes, sep="\n", file=sys.stderr)


FORMATS = {"table": print_table, "csv": print_csv, "json": print_json}
