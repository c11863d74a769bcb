"""Before Hydra starts anything: every job of the command line is composed and checked, and refused in one line."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from resnetlab.arguments import expand_arguments, labelled_jobs, searches
from resnetlab.config import Config, conf_dir, parse
from resnetlab.containment import contained
from resnetlab.errors import ConfigError, LabError
from resnetlab.folders import OUTPUTS
from resnetlab.refusals import REFUSALS, complain, interrupted, refusal
from resnetlab.run import objective, run
from resnetlab.search.assignment import watch_of
from resnetlab.speech import speak
from resnetlab.sweeps.outcomes import SweepFolder, attempt, failure
from resnetlab.sweeps.table import collect, exit_status, table_lines

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
    found: list[tuple[str, Config]] = []
    search: Door | None = None
    if not looks_only and "LOCAL_RANK" not in os.environ:  # a child of a distributed run was checked by its parent
        try:
            with contained():  # schedule=lambda is called here
                if searches(asked.overrides):
                    search = open_door(asked.overrides)
                else:
                    found = labelled_jobs(asked.overrides, asked.multirun)
            if not found and search is None:
                raise ConfigError("the sweep has no jobs; one of its ranges or lists is empty")
        except REFUSALS as error:
            return complain(error)
        except KeyboardInterrupt as stop:
            return interrupted(stop)
    os.environ.pop(SweepFolder.VARIABLE, None)  # of a sweep that this process was started from
    application = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)
    if search is not None:
        return run_search(application, search)
    if asked.multirun and found:
        return run_sweep(application, found[0][1], {number: label for number, (label, _) in enumerate(found)})
    failures.clear()
    try:
        application()
    except KeyboardInterrupt:
        return 130  # the shell's number for it
    return max(failures, default=0)


def open_door(overrides: Sequence[str]) -> "Door":
    """The search, checked and with its storage open."""
    if find_spec("optuna") is None:
        raise ConfigError("hydra/sweeper=optuna needs Optuna: pip install 'resnetlab[optuna]'")
    from resnetlab.search.door import Door

    return Door(overrides)


def run_search(application: Callable[[], Any], search: "Door") -> int:
    """Runs what is missing of the search, and says what came out; returns the exit status."""
    try:
        with search.alone():
            status = run_sweep(application, search.plan.config, {}) if search.unfinished else 0
            if status <= 128:
                search.conclude()
    except (LabError, OSError) as error:
        return complain(error)
    return status


def run_sweep(application: Callable[[], Any], config: Config, expected: dict[int, str]) -> int:
    """Runs all jobs, whatever becomes of some, and prints what became of each; returns the exit status.

    config: of any of them. expected: what tells them apart; a search makes its jobs up as it goes.
    """
    try:
        folder = SweepFolder.open(config.study)
    except OSError as error:
        return complain(error)
    status, lost = 0, LOST
    try:
        application()
    except KeyboardInterrupt:
        status, lost = 130, "interrupted"
    except SystemExit as end:  # a termination, or Hydra's after a message of its own
        status = end.code if isinstance(end.code, int) else 1
        lost = "interrupted" if status > 128 else LOST
    finally:
        os.environ.pop(SweepFolder.VARIABLE, None)
    expected = expected or folder.labels()
    outcomes = collect(folder, expected, lost)
    for line in table_lines(outcomes, expected, config.objective):
        speak(line)
    speak(f"runs: resnetlab report {OUTPUTS / config.study}; logs and outcomes: {folder.path}")
    return status or exit_status(outcomes)


LOST = "left no outcome: its process died, or all were ended with one (hydra/launcher=processes loses only the one)"
failures: list[int] = []  # the exit status of this process's job, if it could not be run


def job(node: DictConfig) -> float:
    """One run; returns the objective to the sweeper, not a number for a job that has none, so that the others go on."""
    folder = SweepFolder.current()
    if folder is not None:
        return job_of_sweep(node, folder)
    try:
        config = parse(node)
        return objective(config, run(config))
    except (LabError, OSError) as error:
        failures.append(complain(error))
        return math.nan


def job_of_sweep(node: DictConfig, folder: SweepFolder) -> float:
    """The same as one of many: a failure of any kind is said, kept for the table, and does not end the others."""
    hydra_job = HydraConfig.get().job
    log = folder.log(hydra_job.num)
    try:
        outcome = attempt(parse(node), log, refusal, watch_of(folder, hydra_job.num))
    except REFUSALS as error:  # what a sweeper made up
        outcome = failure(error, refusal(error), log)
    label = folder.labels().get(hydra_job.num, hydra_job.override_dirname)
    folder.record(hydra_job.num, replace(outcome, label=label))
    if outcome.status == "failed":
        print(f"error: {outcome.reason}", file=sys.stderr, flush=True)
    return outcome.value
