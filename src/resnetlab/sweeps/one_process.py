"""Backend of hydra/launcher=one_process: several runs in this process, which compute in turn.

On a GPU each run has a stream and a graph of its own, so a turn is as many launches as there are steps in a chunk, and
kernels of small runs run at the same time. A run is a greenlet, left and entered again between two chunks, and not a
thread: signals reach the main thread only, and nothing needs a lock.
"""

import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import torch
from greenlet import greenlet

from resnetlab.config.schema import Config
from resnetlab.console import say
from resnetlab.runs.sweep_records import Outcome
from resnetlab.sweeps.jobs import Backend, Job
from resnetlab.sweeps.parallelism import gpus_per_job
from resnetlab.sweeps.process_setup import signal_handlers
from resnetlab.sweeps.run_job import failure
from resnetlab.sweeps.worker import train_job
from resnetlab.training import isolation
from resnetlab.training.build import AFTER_CHUNK


class OneProcess(Backend):
    """Up to `jobs` runs in turn, on a GPU no more than its memory holds: measured in the first run's first epoch."""

    def __init__(self, configs: Sequence[Config], jobs: int) -> None:
        self.jobs, self.progress = jobs, configs[0].trainer.progress
        self.memory_known = not gpus_per_job(configs, None)
        self.received = list[signal.Signals]()  # in a turn but outside its run: raised there they would mix up states
        self.handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.deferred = dict.fromkeys(self.handlers, lambda number, _: self.received.append(number))

    def has_room(self, running: Sequence[Job]) -> bool:
        return len(running) < (self.jobs if self.memory_known else 1)

    def start(self, job: Job, log: Path, running: Sequence[Job]) -> None:
        if not self.memory_known:
            torch.cuda.reset_peak_memory_stats()  # initialises CUDA too, or the process's stream would be a run's
        job.handle = InterleavedRun(self, log, job)

    def wait(self, running: Sequence[Job]) -> None:
        """One turn of each. After each, the handlers of signals that came meanwhile are called."""
        for job in running:
            job.handle.turn()
            while self.received:
                signal.raise_signal(self.received.pop())
            if not self.memory_known and job.handle.trained_an_epoch and gpus_per_job([job.config], None):
                self.limit_jobs()

    def has_ended(self, job: Job) -> bool:
        return job.handle.outcome is not None

    def outcome_of(self, job: Job, log: Path) -> Outcome | None:
        run, job.handle = job.handle, None
        with suppress(OSError):  # a full disk
            run.log.close()
        return run.outcome

    def stop(self, running: Sequence[Job]) -> list[tuple[Job, Outcome]]:
        """Interrupts the runs where they are: after a chunk."""
        for job in running:
            with suppress(BaseException):  # what stops the sweep is being raised already
                job.handle.turn(KeyboardInterrupt)
        return [(job, outcome) for job in running if (outcome := self.outcome_of(job, Path())) is not None]

    def limit_jobs(self) -> None:
        """Lowers `jobs` to what the GPU holds of runs such as the first, and says so."""
        self.memory_known = True
        each, (free, total) = torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()
        fit = max(1, int((free + torch.cuda.memory_reserved()) / max(1, each)))
        if self.progress != "off":
            less = f"; {fit} at once, not {self.jobs}" if fit < self.jobs else ""
            say(f"sweep: the first run takes {each / 2**30:.2f} of the GPU's {total / 2**30:.0f} GiB{less}")
        self.jobs = min(self.jobs, fit)


class InterleavedRun:
    """A run that computes chunk after chunk, each in a turn; in between the process is as it was for the others.

    outcome: once it has ended. epochs: the numbers of those that it has trained in.
    """

    def __init__(self, backend: OneProcess, log: Path, job: Job) -> None:
        self.backend, self.job, self.path = backend, job, log
        self.log = log.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")
        self.outcome: Outcome | None = None
        self.epochs = set[int]()
        self.greenlet: Any = greenlet(self.train)
        self.state: list[tuple[Any, ...]] = []  # of the process, where the run has left it

    @property
    def trained_an_epoch(self) -> bool:
        finished = self.outcome is not None and self.outcome.status == "finished"
        return len(self.epochs) > (0 if finished else 1)

    def turn(self, error: type[BaseException] | None = None) -> None:
        """Computes a chunk, or raises the error where the run is. What else the run raises leaves it here too."""
        with signal_handlers(self.backend.deferred):
            before = process_state()
            isolation.apply(self.state)
            try:
                found = self.greenlet.switch() if error is None else self.greenlet.throw(error)
                if self.greenlet.dead:
                    self.outcome = found
                else:
                    self.epochs.add(found)
            finally:
                self.state = process_state()
                isolation.apply(before)

    def train(self) -> Outcome:
        """The greenlet's function. What the run prints goes to its log."""
        with ExitStack() as stack:
            stack.enter_context(redirect_stdout(self.log))
            stack.enter_context(redirect_stderr(self.log))
            stack.enter_context(signal_handlers(self.backend.handlers))
            if gpus_per_job([self.job.config], None):
                stack.enter_context(torch.cuda.stream(torch.cuda.Stream()))
            AFTER_CHUNK.set(self.pause)
            try:
                return Outcome(**train_job(self.path, self.job.overrides))
            except (Exception, SystemExit) as end:
                if isinstance(end, SystemExit) and isinstance(end.code, int) and end.code > 128:  # a signal's, for all
                    raise
                return failure(end, self.path, str(self.job.config.folder.path))

    def pause(self, trainer: Any, *_: object) -> None:
        """Ends the turn; returns in the run's next one."""
        with signal_handlers(self.backend.deferred):
            self.greenlet.parent.switch(trainer.current_epoch)


def process_state() -> list[tuple[Any, ...]]:
    """Calls that bring back all that a run changes in the process: isolation's, the stream and the output."""
    streams = [(torch.cuda.set_stream, torch.cuda.current_stream())] if torch.cuda.is_initialized() else []
    output = [(setattr, sys, name, getattr(sys, name)) for name in ("stdout", "stderr")]
    return [*isolation.process_state(), *streams, *output]
