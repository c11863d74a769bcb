"""Processes of ours: a child whose life hangs on its parent's, however that ends, and a parent that ends in order."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

LOOK_SECONDS = 1.0  # between two looks whether the process has still the parent that it began with


def end_with_parent(descriptor: int = 0) -> None:
    """Ends this process with the one it works for, and with its own parent, if that is another (a fork server).

    descriptor: of a pipe that nobody writes to, the standard input or multiprocessing's; its end is the other's end. A
    run may be killed at any moment. PR_SET_PDEATHSIG would do the same, but on Linux only, and not for a parent that
    was gone before the child could ask for it.
    """
    parent = os.getppid()

    def watch() -> None:
        while not wait([descriptor], LOOK_SECONDS) and os.getppid() == parent:
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def import_path() -> str:
    """The PYTHONPATH of a process, in any folder, that finds the packages that this one has found."""
    return os.pathsep.join(place or os.getcwd() for place in sys.path)


def redirect_output(log: str | Path) -> None:
    """Has all that this process and its children print in the log."""
    with Path(log).open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Within, SIGTERM raises SystemExit, so that processes are ended and folders removed on the way out."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
