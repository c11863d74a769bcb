"""The time that the measurement has, and what is said of it."""

import time
from datetime import timedelta

from resnetlab.speech import speak

__all__ = ["Clock"]


class Clock:
    """Counts from now on; budget: seconds for everything."""

    def __init__(self, budget: float) -> None:
        self.budget, self.start = budget, time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.start

    @property
    def left(self) -> float:
        return self.budget - self.elapsed

    def share(self, number: int, of: int, reserve: float) -> float:
        """Seconds for part `number` (from 0) of what is left: the first has twice as much as each of the others."""
        left = max(0.0, self.left - reserve)
        return 2 * left / (of + 1) if number == 0 else left / (of - number)

    def say(self, what: str) -> None:
        left = timedelta(seconds=max(0, round(self.left)))
        speak(f"[{timedelta(seconds=round(self.elapsed))}, at most {left} left] {what}")
