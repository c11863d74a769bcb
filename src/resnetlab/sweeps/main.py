"""The command `resnetlab train [OVERRIDES] [-m] [OVERRIDES]`, or train.py. Its help does without torch: seconds."""

import sys
from collections.abc import Sequence

from resnetlab.config.option_files import take_config_dir
from resnetlab.console import guarded, print_stderr, say
from resnetlab.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status: 0, 1 if something failed, 2 if it is refused, 130 after Ctrl-C."""
    return guarded(lambda: command(sys.argv[1:] if argv is None else argv))


def command(arguments: Sequence[str]) -> int:
    """The help, or what run_command makes of the arguments; returns the exit status."""
    try:
        arguments = take_config_dir(arguments)
    except ConfigError as error:
        print_stderr(f"error: {error}")
        return 2
    if {"-h", "--help"} & set(arguments):
        from resnetlab.config.help import help_text

        say(help_text())
        return 0
    try:
        from resnetlab.sweeps.command import run_command  # takes seconds, in which an impatient user may interrupt
    except KeyboardInterrupt:
        print("interrupted; nothing was begun", file=sys.stderr)
        return 130
    return run_command(arguments)
