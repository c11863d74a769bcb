"""Printing that never costs a result."""

import os
import sys
import time
from datetime import timedelta


def on_terminal() -> bool:
    """Whether somebody looks at the output, where it may be drawn over."""
    return sys.stdout is not None and sys.stdout.isatty()  # None: closed by the shell, >&-


def say(line: str) -> None:
    """Prints the line at once; goes on in silence when nobody reads the output any more (`train.py | head`)."""
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (stays open until the process ends)


class Countdown:
    """Says how far a long work is and how long it will still take: at most one line every few seconds."""

    def __init__(self, what: str, total: int, seconds: float = 10.0) -> None:
        self.what, self.total, self.seconds = what, total, seconds
        self.done, self.start = 0, time.monotonic()
        self.said = self.start

    def tick(self) -> None:
        """One more part is done."""
        self.done += 1
        now = time.monotonic()
        if now - self.said >= self.seconds and self.done < self.total:
            self.said = now
            left = timedelta(seconds=round((now - self.start) / self.done * (self.total - self.done)))
            say(f"{self.what} {self.done} of {self.total}  left {left}")
