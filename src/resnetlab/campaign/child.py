"""A process that works for the campaign beside those that train, and ends with it, however that ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from resnetlab.sweeps.child_process import import_path

__all__ = ["LAB", "PYTEST", "begin", "end", "environment"]

LAB = "import sys; from resnetlab.cli import main; sys.exit(main())"
PYTEST = "import sys; import pytest; sys.exit(pytest.main())"
# of a copy of the standard input: pytest puts /dev/null in its place
LIFELINE = "import os; from resnetlab.lifeline import end_with_parent; end_with_parent(os.dup(0)); "


def begin(code: str, arguments: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """Runs LAB or PYTEST in a session of its own; all that it says is in the log. `end` is to be called in any case."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", LIFELINE + code, *arguments],
            stdin=subprocess.PIPE,  # its end tells the process that this one is gone
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kills it with what it has started, unless it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def environment() -> dict[str, str]:
    """For a process that finds the packages that this one has found."""
    return {**os.environ, "PYTHONPATH": import_path()}
