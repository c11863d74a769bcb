"""The progress of a whole sweep: a live table on a terminal, a line now and then in a log file."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.live import Live

from resnetlab.console import Console, duration, on_terminal, say
from resnetlab.runs.load_runs import rows_there
from resnetlab.sweeps.jobs import Job

LINE_SECONDS = 10.0  # between two lines of a log file, at least
READ_SECONDS = 1.0  # between two readings of the runs' files


class Display:
    """done, running with epoch and val_acc of each, left, and the time left. Call it often; it reads once a second.

    style: auto | bar | lines | off, as trainer.progress.
    """

    def __init__(self, jobs: Sequence[Job], style: str) -> None:
        self.style = ("bar" if on_terminal() else "lines") if style == "auto" else style
        console = Console(highlight=False, markup=False)
        self.live = Live(console=console, auto_refresh=False) if self.style == "bar" else None
        self.jobs = jobs
        self.last_reading = time.monotonic()
        self.last_line = self.last_reading - LINE_SECONDS
        self.line = ""
        self.rows = {job.number: rows_of(job) for job in jobs}

    def __enter__(self) -> "Display":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.update()
            self.live.stop()

    def __call__(self) -> None:
        if self.style != "off" and time.monotonic() - self.last_reading >= READ_SECONDS:
            self.last_reading = time.monotonic()
            self.update()

    def update(self) -> None:
        """Reads the runs' files and shows what they say."""
        running = [job for job in self.jobs if job.handle is not None]
        self.rows |= {job.number: rows_of(job) for job in running}
        done, states = sum(job.outcome is not None for job in self.jobs), [self.state(job) for job in running]
        waiting, left = len(self.jobs) - done - len(running), duration(self.seconds_left(len(running)))
        counts = f"{done} of {len(self.jobs)} done, {len(running)} running, {waiting} left"
        head = f"sweep: {counts}, time left {left}"
        if self.live is not None:
            self.live.update("\n  ".join([head, *states]), refresh=True)
            return
        line = "; ".join([counts, *states])  # without the time left, which always changes
        if line != self.line and time.monotonic() - self.last_line >= LINE_SECONDS:
            self.line, self.last_line = line, time.monotonic()
            say("; ".join([head, *states]))

    def state(self, job: Job) -> str:
        """For example "wd=0.1: epoch 3/10 val_acc 0.9131"."""
        rows = self.rows[job.number]
        again = f" (start {job.starts})" if job.starts > 1 else ""
        reached = f" val_acc {rows[-1]['val/acc']:.4f}" if rows else ""
        return f"{job.name}{again}: epoch {len(rows)}/{job.config.epochs}{reached}"

    def seconds_left(self, running: int) -> float | None:
        """At the pace of the epochs so far, with as many runs at once as now, and every image worth the same."""
        images = {job.number: job.config.data.images() for job in self.jobs}
        seconds = sum(row["time/epoch"] for rows in self.rows.values() for row in rows)
        done = sum(len(rows) * images[number] for number, rows in self.rows.items())
        to_do = (job for job in self.jobs if job.outcome is None)
        left = sum((job.config.epochs - len(self.rows[job.number])) * images[job.number] for job in to_do)
        return seconds / done * left / max(1, running) if done else None


def rows_of(job: Job) -> Sequence[Mapping[str, Any]]:
    """The rows of the run's metrics.csv; none where it cannot be read."""
    rows = rows_there(job.config.folder.path)
    return rows if all("val/acc" in row and "time/epoch" in row for row in rows) else []
