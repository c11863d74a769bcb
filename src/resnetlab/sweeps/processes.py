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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from resnetlab.sweeps.jobs import Job, log_style, lost
from resnetlab.sweeps.machine import Share
from resnetlab.sweeps.outcomes import Outcome

__all__ = ["Processes"]

GRACE_SECONDS = 10.0  # for a job to end in order when the sweep is interrupted


class Processes:
    """`share.jobs` processes at a time. retries: how often a job whose process was killed is started again."""

    elsewhere = False

    def __init__(self, share: Share, retries: int) -> None:
        self.share, self.retries = share, retries

    def free(self, running: Sequence[Job]) -> bool:
        return len(running) < self.share.jobs

    def start(self, job: Job, log: Path, running: Sequence[Job]) -> None:
        job.slot = min(set(range(self.share.jobs)) - {other.slot for other in running})
        job.handle = spawn(job, log, self.share)

    def ended(self, job: Job) -> bool:
        return job.handle.poll() is not None

    def conclusion(self, job: Job, log: Path) -> Outcome | None:
        status = job.handle.returncode
        if (outcome := close(job)) is not None:
            return outcome
        number = -status if status < 0 else max(0, status - 128)  # a shell's way, and Lightning's, to say the same
        if not number:
            reason = f"ended with exit status {status} and without a word"
            return Outcome("failed", reason=reason, log=str(log), folder=str(job.run.path))
        return None if job.starts <= self.retries else lost(job, f"killed by {describe(number)}", log)

    def stop(self, running: Sequence[Job]) -> list[tuple[Job, Outcome]]:
        """Asks first, and kills what has not ended after a while."""
        for job in running:
            job.handle.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for job in running:
            try:
                job.handle.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.handle.kill()
                job.handle.wait()
        return [(job, outcome) for job in running if (outcome := close(job)) is not None]


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


def describe(number: int) -> str:
    """For example "signal 9 (SIGKILL; the system does that when memory runs out)"."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    cause = "; the system does that when memory runs out" if number == signal.SIGKILL else ""
    return f"signal {number} ({name}{cause})"


def close(job: Job) -> Outcome | None:
    """What an ended process has said, its pipes closed; None if that is nothing, or cut off by its end."""
    said: bytes = job.handle.communicate()[0]
    job.handle = None
    with suppress(ValueError, TypeError):
        return Outcome(**json.loads(said))
    return None
