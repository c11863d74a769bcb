"""Verdicts as a table, JSON or CSV, with their figures, and what would decide the others."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from resnetlab.claims.judge import CANNOT, FAILS, HOLDS, PARTLY, Judged, Verdict

__all__ = ["print_csv", "print_json", "print_table"]

NARROWEST, WIDEST = 120, 220
SEEDS = 5


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
    """How many of each, those in full apart from those of reduced or other runs, and from those that hold in part."""
    kinds = Counter((verdict.verdict, bool(verdict.scope)) for verdict in verdicts)
    words = {HOLDS: "hold", FAILS: "do not hold"}
    parts = [f"{kinds[key, False]} {word}" for key, word in words.items()]
    parts += [f"{kinds[key, True]} {word} in runs other than the published" for key, word in words.items()]
    told = f"Of {len(verdicts)} claims: {', '.join(parts)}, {kinds[CANNOT, False]} cannot be told."
    return f"{told}\nIn part hold {kinds[PARTLY, True]}: the relations, in such runs; of levels only full runs tell."


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


def entry(verdict: Verdict) -> dict[str, Any]:
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
    print(json.dumps({"notes": list(notes), "claims": [entry(verdict) for verdict in verdicts]}, indent=2))


def print_csv(verdicts: Sequence[Verdict], notes: Sequence[str]) -> None:
    """One line a part, with the claim's columns before it; the notes go to standard error."""
    rows = []
    for claim in map(entry, verdicts):
        head = {key: value for key, value in claim.items() if not isinstance(value, list)}
        head["would_decide"] = "; ".join(claim["would_decide"])
        for part in claim["parts"] or [{}]:
            own = {f"part_{key}": value for key, value in part.items()}
            rows.append(head | own | ({"part_n": " ".join(map(str, part["n"]))} if part else {}))
    writer = csv.DictWriter(sys.stdout, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    print(*notes, sep="\n", file=sys.stderr)
