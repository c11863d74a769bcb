"""Before Hydra starts anything: every job of the command line is composed and checked, and refused in one line."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.utils import get_args_parser

from resnetlab.arguments import (
    expand_arguments,
    hydra_settings,
    labelled_jobs,
    launcher_of,
    refuse_several_devices,
    searches,
)
from resnetlab.config import Config, conf_dir
from resnetlab.containment import contained
from resnetlab.errors import ConfigError, LabError
from resnetlab.multirun import failures, job, run_sweep
from resnetlab.refusals import REFUSALS, complain, interrupted
from resnetlab.sweeps.outcomes import SweepFolder

if TYPE_CHECKING:
    from resnetlab.search.door import Door

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python train.py [OVERRIDES] [-m] [OVERRIDES]`; returns the exit status."""
    try:
        sys.argv[1:] = arguments = expand_arguments(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        return complain(error)
    asked = get_args_parser().parse_args(arguments)
    looks_only = asked.help or asked.hydra_help or asked.info or asked.cfg or asked.shell_completion
    if looks_only and asked.multirun:
        return complain(ConfigError("-m trains a sweep; leave it out to look at one of its jobs with --cfg or --info"))
    found: list[tuple[str, Config]] = []
    search: Door | None = None
    launcher = ""
    if not looks_only:
        try:
            with contained():  # schedule=lambda is called here
                with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
                    settings = hydra_settings(asked.overrides)
                launcher = launcher_of(settings)
                if searches(settings):
                    search = open_door(asked.overrides)
                    sys.argv[1:] = ["-m", *(argument for argument in arguments if argument != "-m")]
                else:
                    found = checked_jobs(asked.overrides, asked.multirun)
        except REFUSALS as error:
            return complain(error)
        except KeyboardInterrupt as stop:
            return interrupted(stop)
    os.environ.pop(SweepFolder.VARIABLE, None)  # of a sweep that this process was started from
    application = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)
    if search is not None:
        return run_search(application, search, launcher)
    if asked.multirun and found:
        return run_sweep(application, found[0][1], found, launcher)
    failures.clear()
    try:
        application()
    except KeyboardInterrupt:
        return 130  # the shell's number for it
    return max(failures, default=0)


def checked_jobs(overrides: Sequence[str], multirun: bool) -> list[tuple[str, Config]]:
    """(label, configuration) of every job. Raises ConfigError, or one of Hydra's, for the first that is wrong."""
    found = labelled_jobs(overrides, multirun)
    if not found:
        raise ConfigError("the sweep has no jobs; one of its ranges or lists is empty")
    if multirun:
        refuse_several_devices(config for _, config in found)
    return found


def open_door(overrides: Sequence[str]) -> "Door":
    """The search, checked."""
    if find_spec("optuna") is None:
        raise ConfigError("hydra/sweeper=optuna needs Optuna: pip install 'resnetlab[optuna]'")
    from resnetlab.search.door import Door

    door = Door(overrides)
    refuse_several_devices([door.plan.config])
    return door


def run_search(application: Callable[[], Any], search: "Door", launcher: str) -> int:
    """Runs what is missing of the search, and says what came out; returns the exit status."""
    try:
        with search.alone():
            status = run_sweep(application, search.plan.config, [], launcher) if search.unfinished else 0
            if status <= 128:
                search.conclude()
    except (LabError, OSError) as error:
        return complain(error)
    return status
