"""The command `python -m benchmarks`."""

import sys
from collections.abc import Sequence

from benchmarks.bench import bench
from benchmarks.options import Options
from resnetlab.config.messages import USAGE_ERRORS, print_error
from resnetlab.console import interrupted
from resnetlab.errors import LabError
from resnetlab.sweeps.process_setup import sigterm_as_exit


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; returns the exit status: 2 if the command is wrong, 1 if something else is."""
    try:
        with sigterm_as_exit():
            bench(Options.from_command_line(argv))
    except (LabError, OSError, *USAGE_ERRORS) as error:
        return print_error(error)
    except KeyboardInterrupt as stop:
        return interrupted(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
