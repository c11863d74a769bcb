"""The jobs of a sweep, and the loop that gives each its outcome, whatever it is that trains them."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from resnetlab.config.identity import run_folder
from resnetlab.config.schema import Config
from resnetlab.errors import first_line
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.sweep_records import Outcome, SweepFolder
from resnetlab.sweeps.attempt import failure, skip_if_completed

POLL_SECONDS = 0.1


@dataclass
class Job:
    """One run. handle: by which its backend knows what trains it, while something does: a process, or a task of Ray."""

    number: int
    label: str
    overrides: Sequence[str]
    config: Config
    outcome: Outcome | None = None
    starts: int = 0
    slot: int = 0
    handle: Any = None
    run: RunFolder = field(init=False)

    def __post_init__(self) -> None:
        self.run = run_folder(self.config)


class Backend(Protocol):
    """What trains jobs."""

    elsewhere: bool  # on machines whose GPUs are not this one's, which decide what run it is, and if it is finished

    def free(self, running: Sequence[Job]) -> bool:
        """Whether one more can be started."""

    def start(self, job: Job, log: Path, running: Sequence[Job]) -> None:
        """Has the job trained, and gives it its handle. Raises OSError if that cannot be."""

    def ended(self, job: Job) -> bool:
        """Whether what trains the job has come to an end, in whatever way."""

    def conclusion(self, job: Job, log: Path) -> Outcome | None:
        """What became of a job that has ended, its handle taken from it; None if it shall be started again."""

    def stop(self, running: Sequence[Job]) -> list[tuple[Job, Outcome]]:
        """Ends the training of these jobs, and returns the outcomes of those that came to their own end before."""


def run_jobs(jobs: Sequence[Job], folder: SweepFolder, backend: Backend, watch: Callable[[], None]) -> Sequence[Job]:
    """Gives every job its outcome: those that are finished at once, the others as the backend has room.

    watch: called several times a second. When interrupted it ends the training, and raises KeyboardInterrupt.
    """
    waiting = [job for job in jobs if job.outcome is None]
    running: list[Job] = []
    try:
        while waiting or running:
            while backend.free(running) and (job := next_job(waiting, running)) is not None:
                waiting.remove(job)
                start(job, folder, backend, running)
                running += [job] if job.handle else []
            for job in [job for job in running if backend.ended(job)]:
                running.remove(job)
                set_outcome(job, backend.conclusion(job, folder.log(job.number)), folder)
                if job.outcome is None:
                    waiting.append(job)
                    print(f"note: {job.label or job.run.path}: killed; started again after the others", file=sys.stderr)
            watch()
            time.sleep(POLL_SECONDS)
    finally:
        for job, outcome in backend.stop(running):
            set_outcome(job, outcome, folder)
    return jobs


def next_job(waiting: Sequence[Job], running: Sequence[Job]) -> Job | None:
    """The first whose run is not being trained by another job of the sweep, as equal jobs would be."""
    busy = {job.run.path for job in running}
    return next((job for job in waiting if job.run.path not in busy), None)


def start(job: Job, folder: SweepFolder, backend: Backend, running: Sequence[Job]) -> None:
    """Starts the job, if there is something to train."""
    try:
        set_outcome(job, None if backend.elsewhere else skip_if_completed(job.config), folder)
        if job.outcome is None:
            backend.start(job, folder.log(job.number), running)
            job.starts += 1
    except OSError as error:
        set_outcome(job, failure(error, first_line(error), folder.log(job.number), str(job.run.path)), folder)


def set_outcome(job: Job, outcome: Outcome | None, folder: SweepFolder) -> None:
    """Keeps the outcome, and says at once what failed."""
    if outcome is not None:
        job.outcome = replace(outcome, label=job.label)
        record(folder, job.number, job.outcome, job.label or str(job.run.path))


def fail_job(folder: SweepFolder, number: int, label: str, outcome: Outcome) -> None:
    """The same for a job that there is no configuration of."""
    record(folder, number, replace(outcome, label=label), label or f"job {number}")


def record(folder: SweepFolder, number: int, outcome: Outcome, name: str) -> None:
    folder.record(number, outcome)
    if outcome.status == "failed":
        print(f"error: {name}: {outcome.reason}", file=sys.stderr, flush=True)


def lost_outcome(job: Job, reason: str, log: Path) -> Outcome:
    """The outcome of a job that has left none itself: the reason, how often, and where its log is."""
    times = f", {job.starts} times" if job.starts > 1 else ""
    return Outcome("failed", reason=reason + times, log=str(log), folder=str(job.run.path))


def log_style(config: Config) -> str:
    """A bar is of no use in a log."""
    return "off" if config.trainer.progress == "off" else "lines"
