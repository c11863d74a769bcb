"""The end of a sweep: one table that says what became of every job, and an exit status that tells."""

from collections import Counter
from collections.abc import Mapping

from resnetlab.sweeps.outcomes import Outcome, SweepFolder

__all__ = ["collect", "exit_status", "table_lines"]

ORDER = ("finished", "diverged", "pruned", "failed", "skipped", "interrupted")


def collect(folder: SweepFolder, labels: Mapping[int, str], missing: Outcome) -> dict[int, Outcome]:
    """The outcome of every job; `missing` is that of those that were expected and have left nothing.

    labels: what tells the expected jobs apart. A sweeper that makes its jobs up as it goes expects none.
    """
    found = folder.outcomes()
    return {number: found.get(number, missing) for number in sorted({*labels, *found})}


def table_lines(outcomes: Mapping[int, Outcome], labels: Mapping[int, str], objective: str) -> list[str]:
    """One line a job: number, what tells it from the others, what became of it, its objective, and why; and a line that
    counts."""
    rows = [("job", "", "outcome", objective, "")]
    for number, outcome in outcomes.items():
        value = "-" if outcome.objective is None else f"{outcome.objective:.4f}"
        rows.append((str(number), labels.get(number, outcome.label), outcome.status, value, remark(outcome)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*map(str.ljust, row, widths), row[4]]).rstrip() for row in rows]
    counts = Counter(outcome.status for outcome in outcomes.values())
    counted = ", ".join(f"{counts[status]} {status}" for status in ORDER if counts[status])
    return [*lines, f"{counted} of {len(outcomes)} jobs"]


def remark(outcome: Outcome) -> str:
    """Why, and where to look."""
    return f"{outcome.reason}; log: {outcome.log}" if outcome.log else outcome.reason


def exit_status(outcomes: Mapping[int, Outcome]) -> int:
    """1 if a job failed; 0 otherwise: that a run diverges is a result like any other."""
    return int(any(outcome.status == "failed" for outcome in outcomes.values()))
