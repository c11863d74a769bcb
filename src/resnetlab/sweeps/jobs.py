"""The loop that gives the jobs of a sweep their outcomes, on any backend: processes, one process or Ray."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from resnetlab.config.schema import Config
from resnetlab.console import print_stderr
from resnetlab.runs.sweep_records import Outcome, SweepFolder
from resnetlab.sweeps.run_job import failure, record, skip_if_completed

POLL_SECONDS = 0.1
SERVER_LOST = 255  # multiprocessing's exit status of a process whose fork server was killed


@dataclass
class Job:
    """One run. overrides: its worker's. trunk: of sweeps/trunk_plan.py. handle: of its backend, while one trains it."""

    number: int
    label: str
    overrides: list[str]
    config: Config
    trunk: tuple[int, int] = (-1, 0)
    outcome: Outcome | None = None
    starts: int = 0
    slot: int = 0
    handle: Any = None

    @property
    def name(self) -> str:
        return self.label or str(self.config.folder.path)


class Backend(Protocol):
    """Trains jobs in workers."""

    elsewhere: bool = False  # on other machines, whose GPUs decide what run it is: only they can tell if it is finished

    def has_room(self, running: Sequence[Job]) -> bool:
        """Whether one more job can be started."""

    def start(self, job: Job, log: Path, running: Sequence[Job]) -> None:
        """Starts a worker, the job's handle. Raises OSError if that cannot be."""

    def wait(self, running: Sequence[Job]) -> None:
        """Waits a moment for the workers."""
        time.sleep(POLL_SECONDS)

    def has_ended(self, job: Job) -> bool:
        """Whether the job's worker has ended, in any way."""

    def outcome_of(self, job: Job, log: Path) -> Outcome | None:
        """The outcome of a job that has ended; None if it shall be started again. Its handle is closed."""

    def stop(self, running: Sequence[Job]) -> list[tuple[Job, Outcome]]:
        """Ends these jobs' workers; returns the outcomes of those that had ended by themselves."""


def run_jobs(jobs: Sequence[Job], folder: SweepFolder, backend: Backend, on_poll: Callable[[], None]) -> None:
    """Gives every job its outcome: those that are finished at once, the others as the backend has room.

    on_poll: called several times a second. When interrupted it ends the workers, and raises KeyboardInterrupt.
    """
    waiting, running = list(jobs), list[Job]()
    try:
        while waiting or running:
            while backend.has_room(running) and (job := next_job(waiting, running)) is not None:
                waiting.remove(job)
                start(job, folder, backend, running)
                running += [job] if job.handle else []
            for job in [job for job in running if backend.has_ended(job)]:
                running.remove(job)
                set_outcome(job, backend.outcome_of(job, folder.log(job.number)), folder)
                if job.outcome is None:
                    waiting.append(job)
                    print_stderr(f"note: {job.name}: killed; started again after the others")
            on_poll()
            backend.wait(running)
    finally:
        for job, outcome in backend.stop(running):
            set_outcome(job, outcome, folder)


def next_job(waiting: Sequence[Job], running: Sequence[Job]) -> Job | None:
    """The first whose run is not being trained by another job of the sweep, as equal jobs would be, or its trunk."""
    busy = {job.config.folder.path for job in running}
    left = {job.number: job.config.folder for job in (*waiting, *running)}
    waits = {j.number for j in waiting if (run := left.get(j.trunk[0])) and not run.snapshot(j.trunk[1]).exists()}
    return next((job for job in waiting if job.config.folder.path not in busy and job.number not in waits), None)


def start(job: Job, folder: SweepFolder, backend: Backend, running: Sequence[Job]) -> None:
    """Starts the job, if there is something to train."""
    try:
        set_outcome(job, None if backend.elsewhere else skip_if_completed(job.config), folder)
        if job.outcome is None:
            backend.start(job, folder.log(job.number), running)
            job.starts += 1
    except Exception as error:
        set_outcome(job, failure(error, folder.log(job.number), str(job.config.folder.path)), folder)


def set_outcome(job: Job, outcome: Outcome | None, folder: SweepFolder) -> None:
    """Sets and records the outcome, if there is one."""
    if outcome is not None:
        job.outcome = outcome
        record(folder, job.number, outcome, job.label)


def cause_of_death(status: int) -> str | None:
    """Names what killed a process, from its exit status; None if it ended by itself."""
    if status == SERVER_LOST:
        return "the loss of the process it was forked from"
    number = -status if status < 0 else max(0, status - 128)  # a shell's way, and Lightning's, to say the same
    if not number:
        return None
    name = signal.Signals(number).name if number in set(signal.Signals) else "unknown"
    cause = "; the system does that when memory runs out" if number == signal.SIGKILL else ""
    return f"signal {number} ({name}{cause})"


def killed_outcome(job: Job, reason: str, log: Path, retries: int) -> Outcome | None:
    """The outcome of a job whose worker was killed; None if it shall be started again."""
    if job.starts <= retries:
        return None
    times = f", {job.starts} times" if job.starts > 1 else ""
    return Outcome("failed", reason=reason + times, log=str(log), folder=str(job.config.folder.path))
