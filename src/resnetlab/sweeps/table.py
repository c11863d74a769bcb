"""The table at the end of a sweep: what became of every job, the means over seeds, and the exit status."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from resnetlab.config.schema import Config
from resnetlab.report.columns import mean_sd
from resnetlab.report.groups import interval_of
from resnetlab.report.table import count_text
from resnetlab.runs.sweep_records import Outcome, SweepFolder

ORDER = ("finished", "diverged", "pruned", "failed", "skipped", "interrupted")


def collect(folder: SweepFolder, labels: Mapping[int, str], missing: Outcome) -> dict[int, Outcome]:
    """The outcome of every job; `missing` for those that have left none.

    labels: of the expected jobs. A search expects those that it has made up so far.
    """
    found = folder.outcomes()
    return {number: found.get(number, missing) for number in sorted({*labels, *found})}


def table_lines(outcomes: Mapping[int, Outcome], labels: Mapping[int, str], objective: str) -> list[str]:
    """One line a job: number, label, status, objective, reason and log; and a line that counts."""
    rows = [("job", "", "outcome", objective, "")]
    for number, outcome in outcomes.items():
        value = "-" if outcome.objective is None or outcome.diverged else f"{outcome.objective:.4f}"
        reason = f"{outcome.reason}; log: {outcome.log}" if outcome.log else outcome.reason
        rows.append((str(number), labels.get(number, outcome.label), outcome.status, value, reason))
    return [*aligned(rows), f"{count(outcome.status for outcome in outcomes.values())} of {len(outcomes)} jobs"]


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns, left-justified and two spaces apart; plain text on a terminal and in a file."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def exit_status(outcomes: Mapping[int, Outcome]) -> int:
    """1 if a job failed; 0 otherwise: that a run diverges is a result like any other."""
    return int(any(outcome.status == "failed" for outcome in outcomes.values()))


def seed_lines(outcomes: Mapping[int, Outcome], jobs: Sequence[tuple[str, Config]], objective: str) -> list[str]:
    """One line a configuration; nothing for a sweep with one seed of each.

    jobs: (label, configuration), in the order of the outcomes' numbers. Runs that diverged or failed have no part in
    the mean, as in the report, and are counted.
    """
    configurations = by_configuration(jobs)
    if all(len(numbers) == 1 for numbers in configurations):
        return []
    rows = [("over seeds", objective, "")]
    for numbers in configurations:
        ends = [outcomes[number] for number in numbers if number in outcomes]
        values, label = objectives(ends), without_seed(jobs[numbers[0]][0]) or "all seeds"
        left_out = count("diverged" if e.diverged else e.status for e in ends if e.diverged or e.objective is None)
        n = count_text(len(values), len(numbers)) + (f"; {left_out}" if left_out else "")
        rows.append((label, mean_sd(interval_of(objective, values), len(values), 4), n))
    return aligned(rows)


def seed_metrics(ends: Mapping[int, Outcome], jobs: Sequence[tuple[str, Config]], objective: str) -> dict[str, float]:
    """{"final_val_acc/mean": ...}, also n, sd, and low and high of the 95 % interval; behind "wd 0.1/" of several."""
    found: dict[str, float] = {}
    for numbers in (configurations := by_configuration(jobs)):
        label = re.sub(r"[^\w/. -]+", " ", without_seed(jobs[numbers[0]][0]))
        start = f"{label}/{objective}" if len(configurations) > 1 else objective
        if interval := interval_of(objective, objectives(ends[n] for n in numbers if n in ends)):
            found |= {f"{start}/{name}": float(value) for name, value in asdict(interval).items() if value is not None}
    return found


def objectives(ends: Iterable[Outcome]) -> list[float]:
    return [end.objective for end in ends if end.objective is not None and not end.diverged]


def without_seed(label: str) -> str:
    return ", ".join(part for part in label.split(", ") if not part.startswith("seed="))


def by_configuration(jobs: Sequence[tuple[str, Config]]) -> list[list[int]]:
    """The numbers of each configuration's jobs, one for each seed; a run that is there twice counts once."""
    found: dict[Path, dict[int, int]] = {}
    for number, (_, config) in enumerate(jobs):
        found.setdefault(config.folder.path.parent, {}).setdefault(config.seed, number)
    return [list(numbers.values()) for numbers in found.values()]


def count(statuses: Iterable[str]) -> str:
    """For example "1 diverged, 1 failed"."""
    counts = Counter(statuses)
    return ", ".join(f"{counts[status]} {status}" for status in ORDER if counts[status])
