"""The end of a sweep: one table that says what became of every job, and an exit status that tells."""

from collections import Counter
from collections.abc import Mapping, Sequence

from resnetlab.config.identity import run_folder
from resnetlab.config.schema import Config
from resnetlab.report.table import count_text, mean_sd
from resnetlab.runs.sweep_records import Outcome, SweepFolder

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


def seed_lines(outcomes: Mapping[int, Outcome], jobs: Sequence[tuple[str, Config]], objective: str) -> list[str]:
    """One line a configuration; nothing for a sweep with one seed of each.

    jobs: (label, configuration), in the order of the outcomes' numbers. Runs that diverged or failed have no part in
    the mean, as in the report, and are counted.
    """
    rows = [("over seeds", objective, "")]
    several = False
    for name, seeds in by_configuration(jobs).items():
        several |= len(seeds) > 1
        ends = [outcomes[number] for number in seeds.values() if number in outcomes]
        values = [end.objective for end in ends if end.objective is not None and not end.diverged]
        label = without_seed(jobs[next(iter(seeds.values()))][0])
        count = count_text(len(values), len(seeds))
        rows.append((label or name, mean_sd(values, len(values), 4), count + count_missing(ends)))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return ["  ".join([*map(str.ljust, row, widths), row[2]]).rstrip() for row in rows] if several else []


def by_configuration(jobs: Sequence[tuple[str, Config]]) -> dict[str, dict[int, int]]:
    """{configuration's folder: {seed: job's number}}; a run that is there twice counts once."""
    found: dict[str, dict[int, int]] = {}
    for number, (_, config) in enumerate(jobs):
        found.setdefault(run_folder(config).path.parent.as_posix(), {}).setdefault(config.seed, number)
    return found


def without_seed(label: str) -> str:
    return ", ".join(part for part in label.split(", ") if not part.startswith("seed="))


def count_missing(ends: Sequence[Outcome]) -> str:
    """For example "; 1 diverged, 1 failed"."""
    counts = Counter(
        "diverged" if end.diverged else end.status for end in ends if end.diverged or end.objective is None
    )
    return "; " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) if counts else ""
