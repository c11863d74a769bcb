"""Backend of hydra/launcher=processes: a process for each job, from Python's fork server (why: docs/decisions.md)."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from resnetlab.config.schema import Config
from resnetlab.console import say
from resnetlab.runs.sweep_records import Outcome
from resnetlab.sweeps.jobs import POLL_SECONDS, Backend, Job, cause_of_death, killed_outcome
from resnetlab.sweeps.parallelism import resources_per_job
from resnetlab.sweeps.process_setup import import_path
from resnetlab.sweeps.worker import SERVER_LOG_VARIABLE, train_forked

GRACE_SECONDS = 10.0  # for a job to end in order when the sweep is interrupted
SERVER_LOG = "server.log"
PRELOAD = ["resnetlab.sweeps.worker", "resnetlab.training.run"]  # first the server's log, then all that a job imports


class ForkedJob(NamedTuple):
    """A process, and the pipe in which its outcome, which is short, waits until the process has ended."""

    process: BaseProcess
    outcome: Connection


class Processes(Backend):
    """`resources.jobs` processes at a time. retries: how often a job whose process was killed is started again."""

    def __init__(self, configs: Sequence[Config], jobs: int | None, runs_per_device: int, retries: int) -> None:
        self.resources, self.retries = resources_per_job(configs, jobs, runs_per_device), retries
        if configs[0].trainer.progress != "off":
            say(f"sweep: {len(configs)} jobs, {self.resources.jobs} at once; the first starts in some seconds")

    def has_room(self, running: Sequence[Job]) -> bool:
        return len(running) < self.resources.jobs

    def start(self, job: Job, log: Path, running: Sequence[Job]) -> None:
        job.slot = min(set(range(self.resources.jobs)) - {other.slot for other in running})
        environment = {**os.environ, **self.resources.environment(job.slot, job.config.threads)}
        job.handle = fork(log, job.overrides, environment)

    def has_ended(self, job: Job) -> bool:
        return job.handle.process.exitcode is not None

    def outcome_of(self, job: Job, log: Path) -> Outcome | None:
        status = job.handle.process.exitcode
        if (outcome := receive_outcome(job)) is not None:
            return outcome
        if (cause := cause_of_death(status)) is not None:
            return killed_outcome(job, f"killed by {cause}", log, self.retries)
        reason = f"ended with exit status {status} and no outcome (its server: {SERVER_LOG} beside the log)"
        return Outcome("failed", reason=reason, log=str(log), folder=str(job.config.folder.path))

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
        return [(job, outcome) for job in running if (outcome := receive_outcome(job)) is not None]


def receive_outcome(job: Job) -> Outcome | None:
    """The outcome that an ended process has sent, its pipe closed; None without one, or if it is cut off."""
    forked, job.handle = job.handle, None
    with forked.outcome, suppress(EOFError, OSError, TypeError):
        if forked.outcome.poll():  # else its server was killed, and it has not ended yet
            return Outcome(**forked.outcome.recv())
    return None


def fork(log: Path, overrides: list[str], environment: dict[str, str]) -> ForkedJob:
    """Forks a process. The first waits for its server, which imports for 8 s. Raises OSError if there is no server."""
    context, server_log = get_context("forkserver"), log.with_name(SERVER_LOG)
    context.set_forkserver_preload(PRELOAD)
    for _ in range(2):  # a server that has just been killed may still look alive
        with suppress(EOFError, ConnectionError):
            start_server(server_log)
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=train_forked, args=(theirs, str(log), overrides, environment))
            main = sys.modules["__main__"]  # the caller's script, which multiprocessing would run again in each process
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                with theirs:
                    process.start()
            finally:
                sys.modules["__main__"] = main
            return ForkedJob(process, ours)
        time.sleep(POLL_SECONDS)
    raise OSError(f"the process from which jobs are forked has ended: see {server_log}")


def start_server(log: Path) -> None:
    """Starts the fork server, unless it runs. It, and so all that it forks, inherits that Ctrl-C is blocked."""
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
