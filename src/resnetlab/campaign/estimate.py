"""How long a run will take, from the epochs that were trained so far."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from resnetlab.config.identity import run_folder
from resnetlab.config.schema import Config
from resnetlab.runs.files import read_rows
from resnetlab.sweeps.jobs import Job

__all__ = ["START_SECONDS", "Pace", "epochs_left", "hours"]

START_SECONDS = 20.0  # of a process, with its imports, its data and what it writes at the end
LAST = 20  # epochs of a run that are looked at
MARGIN = 1.05


class Pace:
    """Seconds an epoch, by what an epoch's work depends on; medians over the campaign's runs."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        seen: dict[Any, list[float]] = {}
        images: list[float] = []
        for job in jobs:
            seconds = epoch_seconds(job)
            seen.setdefault(work(job.config), []).extend(seconds)
            images += [s / job.config.data.images() for s in seconds]
        self.seconds = {key: statistics.median(values) for key, values in seen.items() if values}
        self.per_image = statistics.median(images) if images else None

    def of_epoch(self, config: Config) -> float | None:
        """As seen for the same work; else an image's share of other work; None before the first epoch of all."""
        if (seconds := self.seconds.get(work(config))) is not None:
            return seconds
        return None if self.per_image is None else self.per_image * config.data.images()

    def of_run(self, job: Job) -> float | None:
        """Of what is left of it, process and all."""
        seconds = self.of_epoch(job.config)
        return None if seconds is None else START_SECONDS + MARGIN * seconds * epochs_left(job)


def work(config: Config) -> tuple[Any, ...]:
    """What the time of an epoch depends on, as far as the campaign's runs differ in it."""
    return (
        *(repr(config.model), config.data.name, config.data.limit, config.data.resolution, config.batch_size),
        *(config.trainer.resolved_precision, config.recalibrate_bn, config.averaging.name, config.optimizer.name),
    )


def epoch_seconds(job: Job) -> Sequence[float]:
    """Without the first epoch's, which holds what happens once, if there are others."""
    rows = rows_of(job)
    return [row["time/epoch"] for row in (rows[1:] or rows)[-LAST:] if "time/epoch" in row]


def epochs_left(job: Job) -> int:
    return max(0, job.config.epochs - len(rows_of(job)))


def rows_of(job: Job) -> list[dict[str, float]]:
    try:
        return read_rows(run_folder(job.config).metrics)
    except (OSError, ValueError, KeyError):
        return []


def hours(seconds: float | None) -> str:
    """For example "1:04:30", or "?"."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
