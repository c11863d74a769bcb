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
        """Seconds for part `number` (from 0): half of what is left for the first, then equal parts of the rest."""
        left = max(0.0, self.left - reserve)
        if number == 0 and of > 1:
            return left / 2
        return left / (of - number)

    def say(self, what: str) -> None:
        left = timedelta(seconds=max(0, round(self.left)))
        speak(f"[{timedelta(seconds=round(self.elapsed))}, at most {left} left] {what}")
