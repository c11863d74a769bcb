"""Wording and outcome when a worker is killed: the cause, how many times, and whether the job is started again."""

import signal
from pathlib import Path

from resnetlab.runs.sweep_records import Outcome
from resnetlab.sweeps.jobs import Job

SERVER_LOST = 255  # multiprocessing's exit status of a process whose fork server was killed


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
    return Outcome("failed", reason=reason + times, log=str(log), folder=str(job.run.path))
