"""A child whose life hangs on its parent's, however that ends."""

import os
import threading

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """Standard input is a pipe that nobody writes to: its end is the parent's end.

    A run may be killed at any moment. PR_SET_PDEATHSIG would do the same, but on Linux only, and not for a parent that
    was gone before the child could ask for it.
    """

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
