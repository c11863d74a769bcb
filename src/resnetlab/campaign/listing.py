"""What a campaign consists of: a text file, one line a task or a command line of train.py.

    bench 900                                          a task, and the seconds that it may take; it wants half of them
    gpu-tests 600
    [post IV, table 1]                                 a stage
    experiment=post4-table1-00 recalibrate_bn=true seeds=3

Within a stage all lines are run with seed 0 first, then with seed 1 and so on, so that a campaign that is cut short has
every line of it. # begins a comment.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resnetlab.config.compose import compose
from resnetlab.config.messages import REFUSALS, error_message
from resnetlab.config.schema import conf_dir
from resnetlab.errors import ConfigError
from resnetlab.sweeps.jobs import Job

__all__ = ["DEFAULT", "TASKS", "Campaign", "Task", "read"]

DEFAULT = "campaign.txt"  # in conf
TASKS = ("bench", "gpu-tests")
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Task:
    """Something beside training. seconds: that it may take at most."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Campaign:
    """Tasks come first."""

    tasks: list[Task]
    jobs: list[Job]


def read(path: Path | None) -> Campaign:
    """The list in `path` (null: the one in conf), every run composed. Raises ConfigError, naming the line."""
    path = path or conf_dir() / DEFAULT
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"--list (={path}): {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--list (={path}) is not text") from None
    tasks: list[Task] = []
    stages: list[list[tuple[list[str], int, str]]] = [[]]
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        if line.lstrip().startswith("["):
            stages.append([])
        elif not (words := split(line, place)):
            continue
        elif words[0] in TASKS:
            tasks.append(task(words, place))
        else:
            stages[-1].append((*with_seeds(words, place), place))
    jobs: list[Job] = []
    for overrides, place in (pair for stage in stages for pair in in_turn(stage)):
        jobs.append(job(len(jobs), overrides, place))
    if not tasks and not jobs:
        raise ConfigError(f"--list (={path}) names nothing to do")
    if len({job.run.path for job in jobs}) < len(jobs):
        twice = next(a.label for a in jobs for b in jobs if a.run.path == b.run.path and a.number < b.number)
        raise ConfigError(f"--list (={path}) names a run twice: {twice}")
    return Campaign(tasks, jobs)


def split(line: str, place: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None


def task(words: list[str], place: str) -> Task:
    if len(words) != 2 or not words[1].isdecimal() or words[1] == "0":
        raise ConfigError(
            f"{place}: {' '.join(words)}: {words[0]} wants the seconds that it may take, as {words[0]} 600"
        )
    return Task(words[0], float(words[1]))


def with_seeds(words: list[str], place: str) -> tuple[list[str], int]:
    """(overrides, number of seeds); without seeds=N, what the overrides say or the default: one."""
    counts = [word.removeprefix("seeds=") for word in words if word.startswith("seeds=")]
    overrides = [word for word in words if not word.startswith("seeds=")]
    if not counts:
        return overrides, 0
    several = len(counts) > 1 or any(word.startswith("seed=") for word in overrides)
    if several or not counts[0].isdecimal() or not 1 <= int(counts[0]) <= MOST_SEEDS:
        wanted = f"one number of seeds, 1..{MOST_SEEDS}, and no seed beside it"
        raise ConfigError(f"{place}: seeds (={', '.join(counts)}) must be {wanted}")
    return overrides, int(counts[0])


def in_turn(stage: list[tuple[list[str], int, str]]) -> Iterator[tuple[list[str], str]]:
    """Every line with its first seed, then with its second, and so on."""
    for seed in range(max((max(seeds, 1) for _, seeds, _ in stage), default=0)):
        for overrides, seeds, place in stage:
            if seed < max(seeds, 1):
                yield [*overrides, *([f"seed={seed}"] if seeds else [])], place


def job(number: int, overrides: list[str], place: str) -> Job:
    try:
        return Job(number, " ".join(overrides), overrides, compose(*overrides))
    except REFUSALS as error:
        raise ConfigError(f"{place}: {error_message(error)}") from None
