"""That nothing of a bench stays behind, however it ends."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["guard", "sigterm_exits"]

# its standard input ends when we do
WATCH = 'read -r _; kill -KILL "-$1"; rm -rf "$2"'


def guard(group: int, folder: str) -> "subprocess.Popen[bytes]":
    """A process that kills the group and removes the folder when this process is gone, killed or not.

    A stopped process sees no pipe's end. The system ends a stopped group that is orphaned, but it is not orphaned where
    its adoptive parent is of the same session, such as the first process of a container. The guard has a group of its
    own, so that what is sent to ours does not end it.
    """
    return subprocess.Popen(
        ["sh", "-c", WATCH, "sh", str(group), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Within, SIGTERM raises SystemExit, so that processes are ended and folders removed on the way out."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
