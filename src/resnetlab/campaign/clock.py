"""The time that a campaign has."""

import time
from dataclasses import dataclass, field

__all__ = ["Clock"]

RESERVE_SECONDS = 45.0  # for the last report, and for runs to end in order


@dataclass
class Clock:
    """The budget, in seconds since the campaign began."""

    budget: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Until runs are told to end."""
        return self.budget - min(RESERVE_SECONDS, self.budget / 10) - (time.monotonic() - self.began)
