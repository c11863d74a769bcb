"""A process for each job, forked where all is imported: one that is killed loses only itself, and is tried again.

Python's own fork server, and not a library's pool: those of loky, joblib and concurrent.futures break as a whole when
one worker is killed. pebble's does not, but its workers train on unseen when the parent is killed.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from resnetlab.runs.sweep_records import Outcome
from resnetlab.sweeps.child_process import import_path
from resnetlab.sweeps.jobs import POLL_SECONDS, Job, log_style, lost_outcome
from resnetlab.sweeps.resources import JobResources
from resnetlab.sweeps.worker import SERVER_LOG_VARIABLE

GRACE_SECONDS = 10.0  # for a job to end in order when the sweep is interrupted
SERVER_LOG = "server.log"
SERVER_LOST = 255  # multiprocessing's exit status of a process whose fork server was killed


@dataclass(frozen=True)
class ForkedJob:
    """A process, and the pipe in which its outcome, which is short, waits until the process has ended."""

    process: BaseProcess
    outcome: Connection


class Processes:
    """`share.jobs` processes at a time, in each train(pipe for the outcome's fields, log, overrides, environment).

    retries: how often a job whose process was killed is started again.
    """

    elsewhere = False

    def __init__(self, train: Callable[..., None], share: JobResources, retries: int) -> None:
        self.train, self.share, self.retries = train, share, retries

    def free(self, running: Sequence[Job]) -> bool:
        return len(running) < self.share.jobs

    def start(self, job: Job, log: Path, running: Sequence[Job]) -> None:
        job.slot = min(set(range(self.share.jobs)) - {other.slot for other in running})
        environment = {**os.environ, **self.share.environment(job.slot, job.config.threads)}
        overrides = [*job.overrides, f"trainer.progress={log_style(job.config)}"]
        job.handle = fork(self.train, log, overrides, environment)

    def ended(self, job: Job) -> bool:
        return job.handle.process.exitcode is not None

    def conclusion(self, job: Job, log: Path) -> Outcome | None:
        status = job.handle.process.exitcode
        if (outcome := close(job)) is not None:
            return outcome
        if (cause := cause_of_death(status)) is None:
            reason = f"ended with exit status {status} and without a word (its server: {SERVER_LOG} beside the log)"
            return Outcome("failed", reason=reason, log=str(log), folder=str(job.run.path))
        return None if job.starts <= self.retries else lost_outcome(job, f"killed by {cause}", log)

    def stop(self, running: Sequence[Job]) -> list[tuple[Job, Outcome]]:
        """Asks first, and kills what has not ended after a while."""
        processes, deadline = [job.handle.process for job in running], time.monotonic() + GRACE_SECONDS
        try:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:  # a second Ctrl-C does not wait
            for process in processes:
                process.kill()
                process.join()
        return [(job, outcome) for job in running if (outcome := close(job)) is not None]


def fork(train: Callable[..., None], log: Path, overrides: list[str], environment: dict[str, str]) -> ForkedJob:
    """The process. The first waits for its server, which imports for seconds. Raises OSError if there is no server."""
    server_log, arguments = log.with_name(SERVER_LOG), (str(log), overrides, environment)
    try:
        return fork_once(train, arguments, server_log)
    except (EOFError, ConnectionError):  # a server that has just been killed may still have looked alive
        time.sleep(POLL_SECONDS)
    try:
        return fork_once(train, arguments, server_log)
    except (EOFError, ConnectionError) as error:
        raise OSError(f"the process from which jobs are forked has ended: see {server_log}") from error


def fork_once(train: Callable[..., None], arguments: tuple[Any, ...], server_log: Path) -> ForkedJob:
    """Raises EOFError or ConnectionError where the server has gone meanwhile."""
    context = get_context("forkserver")
    context.set_forkserver_preload(
        ["resnetlab.sweeps.worker", "resnetlab.training.run"]
    )  # the log first, then all imports
    start_server(server_log)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(theirs, *arguments))
    with theirs, hidden_main():
        process.start()
    return ForkedJob(process, ours)


@contextmanager
def hidden_main() -> Iterator[None]:
    """multiprocessing would run the caller's script again in each process, for names that we do not need."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def start_server(log: Path) -> None:
    """Unless it runs. A Ctrl-C is for us alone: the server, and so all that it forks, inherits that it is blocked."""
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:  # closed by the shell, >&-: the server's pipes go elsewhere
        pass
    os.close(lowest)
    inherited = dict(os.environ)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update({"PYTHONPATH": import_path(), "PYTHONSAFEPATH": "1", SERVER_LOG_VARIABLE: str(log)})
    try:
        ensure_running()
    except OSError as error:
        raise OSError(f"{error}: set TMPDIR to a shorter one") if "too long" in str(error) else error from None
    finally:
        os.environ.clear()
        os.environ.update(inherited)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def cause_of_death(status: int) -> str | None:
    """What has killed a process of that exit status, None if it has ended by itself."""
    if status == SERVER_LOST:
        return "the loss of the process it was forked from"
    number = -status if status < 0 else max(0, status - 128)  # a shell's way, and Lightning's, to say the same
    return describe_signal(number) if number else None


def describe_signal(number: int) -> str:
    """For example "signal 9 (SIGKILL; the system does that when memory runs out)"."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    cause = "; the system does that when memory runs out" if number == signal.SIGKILL else ""
    return f"signal {number} ({name}{cause})"


def close(job: Job) -> Outcome | None:
    """What an ended process has said, its pipe closed; None if that is nothing, or cut off by its end."""
    forked, job.handle = job.handle, None
    with forked.outcome, suppress(EOFError, OSError, TypeError):
        if forked.outcome.poll():  # else its server was killed, and it has not ended yet
            return Outcome(**forked.outcome.recv())
    return None
