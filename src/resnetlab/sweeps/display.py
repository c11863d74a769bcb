"""One display for a whole sweep: a live table on a terminal, a line now and then in a log file."""

import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from resnetlab.files import read_rows
from resnetlab.speech import on_terminal, speak
from resnetlab.sweeps.jobs import Job

__all__ = ["Display"]

LINE_SECONDS = 10.0  # between two lines of a log file, at least
LOOK_SECONDS = 1.0  # between two looks at the runs' files


class Display:
    """done, running with epoch and val_acc of each, left, and the time left. Call it often; it looks once a second.

    style: auto | bar | lines | off, as trainer.progress.
    """

    def __init__(self, jobs: Sequence[Job], style: str) -> None:
        self.style = ("bar" if on_terminal() else "lines") if style == "auto" else style
        self.jobs = jobs
        self.live: Live | None = None
        self.began = self.looked = time.monotonic()
        self.said = self.began - LINE_SECONDS
        self.line = ""
        self.epochs = {job.number: self.trained(job)[0] for job in jobs}
        self.before = self.work_done()

    def __enter__(self) -> "Display":
        if self.style == "bar":
            self.live = Live(console=Console(highlight=False), auto_refresh=False)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.look()
            self.live.stop()

    def __call__(self) -> None:
        if self.style != "off" and time.monotonic() - self.looked >= LOOK_SECONDS:
            self.looked = time.monotonic()
            self.look()

    def look(self) -> None:
        """Reads how far the runs are and shows it."""
        states = [self.state(job) for job in self.jobs if job.handle is not None]
        head = self.head(len(states))
        if self.live is not None:
            grid = Table.grid(padding=(0, 2))
            grid.add_row(head)
            for state in states:
                grid.add_row(f"  {state}")
            self.live.update(grid, refresh=True)
            return
        line = "; ".join([head.rpartition(", ")[0], *states])
        if line != self.line and time.monotonic() - self.said >= LINE_SECONDS:
            self.line, self.said = line, time.monotonic()
            speak("; ".join([head, *states]))

    def head(self, running: int) -> str:
        done = sum(job.outcome is not None for job in self.jobs)
        waiting = len(self.jobs) - done - running
        return (
            f"sweep: {done} of {len(self.jobs)} done, {running} running, {waiting} left, time left {self.time_left()}"
        )

    def state(self, job: Job) -> str:
        """For example "wd=0.1: epoch 3/10 val_acc 0.9131"."""
        epochs, accuracy = self.trained(job)
        self.epochs[job.number] = epochs
        again = f" (start {job.starts})" if job.starts > 1 else ""
        reached = "" if accuracy is None else f" val_acc {accuracy:.4f}"
        return f"{job.label or job.run.path}{again}: epoch {epochs}/{job.config.epochs}{reached}"

    def trained(self, job: Job) -> tuple[int, float | None]:
        """The epochs that are in the run's metrics.csv, and its last val_acc."""
        try:
            rows = read_rows(job.run.metrics)
            return len(rows), rows[-1]["val/acc"]
        except (OSError, ValueError, KeyError, IndexError):
            return 0, None

    def work_done(self) -> float:
        """Images trained so far."""
        done = (job.config.epochs if job.outcome is not None else self.epochs[job.number] for job in self.jobs)
        return sum(e * job.config.data.images() for e, job in zip(done, self.jobs, strict=True))

    def time_left(self) -> str:
        """At the pace since the sweep's start, with every image worth the same."""
        done = self.work_done()
        if done <= self.before:
            return "?"
        total = sum(job.config.epochs * job.config.data.images() for job in self.jobs)
        seconds = (time.monotonic() - self.began) / (done - self.before) * (total - done)
        return str(timedelta(seconds=round(seconds)))
