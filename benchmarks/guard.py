"""That nothing of a bench stays behind, however it ends."""

import subprocess

__all__ = ["guard"]

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
