"""What a sweep over seeds says of each configuration: mean, sd and n, as the report does."""

from collections import Counter
from collections.abc import Mapping, Sequence

from resnetlab.config import Config
from resnetlab.folders import run_folder
from resnetlab.report.table import count_text, mean_sd
from resnetlab.sweeps.outcomes import Outcome

__all__ = ["seed_lines"]


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
        rows.append((label or name, mean_sd(values, len(values), 4), count + lost(ends)))
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


def lost(ends: Sequence[Outcome]) -> str:
    """For example "; 1 diverged, 1 failed"."""
    counts = Counter(
        "diverged" if end.diverged else end.status for end in ends if end.diverged or end.objective is None
    )
    return "; " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) if counts else ""
