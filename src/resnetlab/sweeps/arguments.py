"""The arguments of train.py: overrides on both sides of -m, and those of Hydra's flags that are supported."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from resnetlab.config.overrides import normalize_arguments
from resnetlab.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ConfigErrors, and so one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """overrides; multirun: whether there is a -m; shows: the arguments that ask to look at a job and train nothing.

    Raises ConfigError for what is not supported.
    """
    parser = Parser(prog="train.py", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--package", "-p")
    parser.add_argument("--resolve", action="store_true")
    options, unknown = parser.parse_known_intermixed_args(arguments)
    overrides = normalize_arguments([*options.overrides, *unknown, *(["-m"] if options.multirun else [])])
    if unknown:
        cure = "a setting is KEY=VALUE without dashes; python train.py --help lists them"
        raise ConfigError(f"{unknown[0]} is not supported; {cure}")
    options.multirun = "-m" in overrides
    options.shows = [a for a in arguments if a not in (*options.overrides, "-m", "--multirun")]
    options.overrides = [override for override in overrides if override != "-m"]
    if options.shows and options.multirun:
        raise ConfigError("-m trains a sweep; leave it out to look at a job with --cfg")
    if options.shows and not options.cfg:
        raise ConfigError(f"{options.shows[0]} goes with --cfg")
    return options
