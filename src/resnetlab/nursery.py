"""What the process imports first from which the jobs of a sweep are forked: its words go into a log, and all that a job
needs is imported, once for all of them."""

import os

from resnetlab.lifeline import write_to

__all__ = ["LOG"]

LOG = "RESNETLAB_FORK_LOG"

if LOG in os.environ:
    write_to(os.environ[LOG])
