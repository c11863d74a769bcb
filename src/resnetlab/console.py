"""Printing to a console that may be closed, durations, and a countdown."""

import os
import sys
import time


def on_terminal() -> bool:
    """Whether the output goes to a terminal, where it may be drawn over."""
    return sys.stdout is not None and sys.stdout.isatty()  # None: closed by the shell, >&-


def say(line: str) -> None:
    """Print the line at once; discard it and all later ones when the reader has gone (`train.py | head`)."""
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (stays open until the process ends)


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds: "26:03:04"; "?" for None."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def age(seconds: float) -> str:
    """The largest unit alone: "12s", "5m", "3h", "2d"."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


class Countdown:
    """Progress of a long loop, printed with the time left: at most one line every `seconds`."""

    def __init__(self, what: str, total: int, seconds: float = 10.0) -> None:
        self.what, self.total, self.seconds = what, total, seconds
        self.done, self.start = 0, time.monotonic()
        self.said = self.start

    def tick(self) -> None:
        """Count one more part as done."""
        self.done += 1
        now = time.monotonic()
        if now - self.said >= self.seconds and self.done < self.total:
            self.said = now
            left = (now - self.start) / self.done * (self.total - self.done)
            say(f"{self.what} {self.done} of {self.total}  left {duration(left)}")
