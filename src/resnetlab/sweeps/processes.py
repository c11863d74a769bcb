"""A process for each job: one that is killed loses only itself, and is tried again.

Plain subprocesses, and not a library's pool: those of loky, joblib and concurrent.futures break as a whole when one
worker is killed. pebble's does not, but like them it starts workers that train on unseen when the parent is killed, and
that cannot be given an environment of their own (threads, GPU) before torch is imported.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from resnetlab.config import Config
from resnetlab.errors import first_line
from resnetlab.folders import RunFolder, run_folder
from resnetlab.sweeps.machine import Share
from resnetlab.sweeps.outcomes import Outcome, SweepFolder, failure, skip_if_completed

__all__ = ["Job", "refuse", "work_off"]

POLL_SECONDS = 0.1
GRACE_SECONDS = 10.0  # for a job to end in order when the sweep is interrupted


@dataclass
class Job:
    """One run, and the process that trains it while there is one."""

    number: int
    label: str
    overrides: Sequence[str]
    config: Config
    outcome: Outcome | None = None
    starts: int = 0
    slot: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    run: RunFolder = field(init=False)

    def __post_init__(self) -> None:
        self.run = run_folder(self.config)


def work_off(
    jobs: Sequence[Job], folder: SweepFolder, share: Share, retries: int, watch: Callable[[], None]
) -> Sequence[Job]:
    """Gives every job its outcome: those that are finished at once, the others `share.jobs` at a time.

    retries: how often a job whose process was killed is started again. watch: called several times a second.
    When interrupted it ends the processes, and raises KeyboardInterrupt.
    """
    waiting = [job for job in jobs if job.outcome is None]
    running: list[Job] = []
    try:
        while waiting or running:
            while len(running) < share.jobs and (job := next_job(waiting, running)) is not None:
                waiting.remove(job)
                start(job, folder, share, {other.slot for other in running})
                running += [job] if job.process else []
            for job in [job for job in running if ended(job)]:
                running.remove(job)
                settle(job, conclusion(job, folder, retries), folder)
                waiting += [job] if job.outcome is None else []
            watch()
            time.sleep(POLL_SECONDS)
    finally:
        stop(running)
    return jobs


def next_job(waiting: Sequence[Job], running: Sequence[Job]) -> Job | None:
    """The first whose run is not being trained by another job of the sweep, as equal jobs would be."""
    busy = {job.run.path for job in running}
    return next((job for job in waiting if job.run.path not in busy), None)


def start(job: Job, folder: SweepFolder, share: Share, taken: set[int]) -> None:
    """Starts the job's process in a free slot, if there is something to train."""
    try:
        settle(job, skip_if_completed(job.config), folder)
        if job.outcome is None:
            job.slot = min(set(range(share.jobs)) - taken)
            job.process = spawn(job, folder.log(job.number), share)
            job.starts += 1
    except OSError as error:
        settle(job, failure(error, first_line(error), folder.log(job.number), str(job.run.path)), folder)


def spawn(job: Job, log: Path, share: Share) -> "subprocess.Popen[bytes]":
    """The process, in a session of its own, so that a Ctrl-C reaches it through its parent only."""
    path = os.pathsep.join(place or os.getcwd() for place in sys.path)
    environment = {**os.environ, "PYTHONPATH": path, **share.environment(job.slot, job.config.threads)}
    overrides = [*job.overrides, f"trainer.progress={log_style(job.config)}"]
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "resnetlab.worker", str(log), *overrides],
            stdin=subprocess.PIPE,  # its end tells the process that this one is gone
            stdout=subprocess.PIPE,  # the outcome: short, so it waits in the pipe until the process has ended
            stderr=file,
            env=environment,
            start_new_session=True,
        )


def log_style(config: Config) -> str:
    """A bar is of no use in a log."""
    return "off" if config.trainer.progress == "off" else "lines"


def ended(job: Job) -> bool:
    return job.process is not None and job.process.poll() is not None


def conclusion(job: Job, folder: SweepFolder, retries: int) -> Outcome | None:
    """What a process that has ended leaves; None if it was killed and shall be started again."""
    assert job.process is not None
    status = job.process.returncode
    if said := close(job):
        return Outcome(**json.loads(said))
    number = -status if status < 0 else max(0, status - 128)  # a shell's way, and Lightning's, to say the same
    if number and job.starts <= retries:
        return None
    reason = f"killed by {describe(number)}" if number else f"ended with exit status {status} and without a word"
    times = f", {job.starts} times" if number and job.starts > 1 else ""
    return Outcome("failed", reason=reason + times, log=str(folder.log(job.number)), folder=str(job.run.path))


def describe(number: int) -> str:
    """For example "signal 9 (SIGKILL; the system does that when memory runs out)"."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    cause = "; the system does that when memory runs out" if number == signal.SIGKILL else ""
    return f"signal {number} ({name}{cause})"


def settle(job: Job, outcome: Outcome | None, folder: SweepFolder) -> None:
    """Keeps the outcome, and says at once what failed."""
    if outcome is not None:
        job.outcome = replace(outcome, label=job.label)
        record(folder, job.number, job.outcome, job.label or str(job.run.path))


def refuse(folder: SweepFolder, number: int, label: str, outcome: Outcome) -> None:
    """The same for a job that there is no configuration of."""
    record(folder, number, replace(outcome, label=label), label or f"job {number}")


def record(folder: SweepFolder, number: int, outcome: Outcome, name: str) -> None:
    folder.record(number, outcome)
    if outcome.status == "failed":
        print(f"error: {name}: {outcome.reason}", file=sys.stderr, flush=True)


def stop(running: Sequence[Job]) -> None:
    """Ends the processes: asks first, and kills what has not ended after a while."""
    for job in running:
        if job.process is not None:
            job.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for job in running:
        if job.process is not None:
            try:
                job.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            close(job)


def close(job: Job) -> bytes:
    """What an ended process has said, its pipes closed."""
    assert job.process is not None
    said, _ = job.process.communicate()
    job.process = None
    return said
