"""The line to the bench, as a peer sees it: one JSON object a line, orders on stdin, answers on what was stdout.

An order is {"steps": n} or {"seconds": s}: train until so many steps are done, or so long. The answer is
{"grains": {name: [[images, seconds], ...]}, "losses": {name: x}, "peak_mib": {name: x}, "between_epochs": [s, ...]}.
Between an answer and the next order the bench stops the peer and its children (SIGSTOP), so that what they fetch ahead
is fetched on their own time.
"""

import json
import os
import sys
from typing import Any

__all__ = ["Wire"]


class Wire:
    """Takes stdout for itself: what a library prints goes to stderr."""

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def say(self, **what: Any) -> None:
        print(json.dumps(what), file=self.answers)

    def hear(self) -> dict[str, Any]:
        """The next order. Raises SystemExit when there will be none."""
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        order: dict[str, Any] = json.loads(line)
        return order
