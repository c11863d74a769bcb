"""Child processes: a child ends with its parent, its output goes to a log, SIGTERM raises SystemExit."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from resnetlab.console import tolerant_output

PARENT_CHECK_SECONDS = 1.0


def end_with_parent(descriptors: Sequence[int] = (), parent: int | None = None) -> None:
    """Ends this process with those that hold the other ends of the pipes, and with its parent (a fork server).

    descriptors: of pipes that nobody writes to, the standard input or multiprocessing's. parent: its number, if it may
    have ended already. Why not PR_SET_PDEATHSIG: docs/decisions.md.
    """
    parent = parent or os.getppid()

    def exit_after_parent() -> None:
        while os.getppid() == parent and not wait(descriptors, PARENT_CHECK_SECONDS):
            pass
        os._exit(1)

    threading.Thread(target=exit_after_parent, daemon=True).start()


def import_path() -> str:
    """The PYTHONPATH with which another process, in any folder, finds the packages that this one has found."""
    return os.pathsep.join(place or os.getcwd() for place in sys.path)


def redirect_output(log: str | Path) -> None:
    """Sends all that this process and its children print to the log."""
    tolerant_output()
    with Path(log).open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


@contextmanager
def signal_handlers(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Inside, these handle the signals."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def sigterm_as_exit() -> AbstractContextManager[Any]:
    """Makes SIGTERM raise SystemExit, so that processes are ended and folders removed on the way out."""
    return signal_handlers({signal.SIGTERM: lambda number, _: sys.exit(128 + number)})
