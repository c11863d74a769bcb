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

from resnetlab.config.compose import parse
from resnetlab.config.messages import REFUSALS, error_message, interrupted, print_error
from resnetlab.config.overrides import compose_jobs, normalize_arguments
from resnetlab.config.schema import Config, conf_dir
from resnetlab.console import say
from resnetlab.errors import ConfigError, LabError, first_line
from resnetlab.runs.layout import OUTPUTS
from resnetlab.runs.sweep_records import Outcome, SweepFolder, read_plan
from resnetlab.sweeps.attempt import failure, run_job
from resnetlab.sweeps.launchers import checked_settings, is_search, launcher_of, refuse_several_devices
from resnetlab.sweeps.search.pruning import trial_hook
from resnetlab.sweeps.submitit_results import tolerate_lost_jobs
from resnetlab.sweeps.table import collect, exit_status, seed_lines, table_lines
from resnetlab.training.distributed import silence_secondary
from resnetlab.training.isolation import preserve_process_state
from resnetlab.training.result import objective

if TYPE_CHECKING:
    from resnetlab.sweeps.search.loop import SearchSession


@silence_secondary()
def main(argv: Sequence[str] | None = None) -> int:
    """The command `python train.py [OVERRIDES] [-m] [OVERRIDES]`; returns the exit status."""
    try:
        sys.argv[1:] = arguments = normalize_arguments(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        return print_error(error)
    asked = get_args_parser().parse_args(arguments)
    looks_only = asked.help or asked.hydra_help or asked.info or asked.cfg or asked.shell_completion
    if looks_only and asked.multirun:
        return print_error(ConfigError("-m trains a sweep; leave it out to look at a job with --cfg or --info"))
    found: list[tuple[str, Config]] = []
    search: SearchSession | None = None
    launcher = ""
    if not looks_only:
        try:
            with preserve_process_state():  # schedule=lambda is called here
                with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
                    settings = checked_settings(asked.overrides)
                launcher = launcher_of(settings)
                if is_search(settings):
                    search = open_search(asked.overrides)
                    sys.argv[1:] = ["-m", *(argument for argument in arguments if argument != "-m")]
                else:
                    found = checked_jobs(asked.overrides, asked.multirun)
        except REFUSALS as error:
            return print_error(error)
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
    found = compose_jobs(overrides, multirun)
    if not found:
        raise ConfigError("the sweep has no jobs; one of its ranges or lists is empty")
    if multirun:
        refuse_several_devices(config for _, config in found)
    return found


def open_search(overrides: Sequence[str]) -> "SearchSession":
    """The search, checked."""
    if find_spec("optuna") is None:
        raise ConfigError("hydra/sweeper=optuna needs Optuna: pip install 'resnetlab[optuna]'")
    from resnetlab.sweeps.search.loop import SearchSession

    door = SearchSession(overrides)
    refuse_several_devices([door.plan.config])
    return door


def run_search(application: Callable[[], Any], search: "SearchSession", launcher: str) -> int:
    """Runs what is missing of the search, and says what came out; returns the exit status."""
    try:
        with search.alone():
            status = run_sweep(application, search.plan.config, [], launcher) if search.unfinished else 0
            if status <= 128:
                search.conclude()
    except (LabError, OSError) as error:
        return print_error(error)
    return status


def run_sweep(
    application: Callable[[], Any],
    config: Config,
    found: Sequence[tuple[str, Config]],
    launcher: str,
) -> int:
    """Runs all jobs, whatever becomes of some, and prints what became of each; returns the exit status.

    config: of any of them. found: (label, configuration) of those that are known, none of a search. launcher: its name.
    """
    expected = {number: label for number, (label, _) in enumerate(found)}
    try:
        folder = SweepFolder.open(config.study)
        if found:
            folder.plan(found)
    except OSError as error:
        return print_error(error)
    status, missing = 0, Outcome("failed", reason="left no outcome")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # an error of a launcher's is raised here, and not printed by Hydra
    try:
        with tolerate_lost_jobs(launcher, folder):
            application()
    except KeyboardInterrupt:
        status, missing = 130, INTERRUPTED
    except SystemExit as end:  # a termination
        status = end.code if isinstance(end.code, int) else 1
        missing = INTERRUPTED if status > 128 else missing
    except Exception as error:  # the launcher's
        status = print_error(error) if isinstance(error, (LabError, *REFUSALS)) else 1
        advice = "; hydra/launcher=processes loses only the one that is killed" if launcher == "joblib" else ""
        missing = Outcome("failed", reason=f"left no outcome: {type(error).__name__}: {first_line(error)}{advice}")
    finally:
        os.environ.pop(SweepFolder.VARIABLE, None)
        os.environ.pop("HYDRA_FULL_ERROR", None)
    expected = expected or folder.labels()
    outcomes = collect(folder, expected, missing)
    for line in (*table_lines(outcomes, expected, config.objective), *seed_lines(outcomes, found, config.objective)):
        say(line)
    say(f"runs: resnetlab report {OUTPUTS / config.study}; logs and outcomes: {folder.path}")
    return status or exit_status(outcomes)


INTERRUPTED = Outcome("interrupted", reason="the same command goes on")
failures: list[int] = []  # the exit status of this process's job, if it could not be run


def job(node: DictConfig) -> float:
    """One run; returns the objective to the sweeper, not a number for a job that has none, so that the others go on."""
    folder = SweepFolder.current()
    if folder is not None:
        return job_of_sweep(node, folder)
    from resnetlab.training.run import run  # brings Lightning

    try:
        config = parse(node)
        return objective(config, run(config))
    except (LabError, OSError) as error:
        failures.append(print_error(error))
        return math.nan


def job_of_sweep(node: DictConfig, folder: SweepFolder) -> float:
    """The same as one of many: a failure of any kind is said, kept for the table, and does not end the others."""
    hydra_job = HydraConfig.get().job
    log, planned = folder.log(hydra_job.num), {job.number: job.label for job in read_plan(folder.path)}
    label = (planned or folder.labels()).get(hydra_job.num, hydra_job.override_dirname)
    try:
        config = parse(node)
        announce(hydra_job.num, label, config, len(planned))
        outcome = run_job(config, log, error_message, trial_hook(folder, hydra_job.num))
    except REFUSALS as error:  # what a sweeper made up
        outcome = failure(error, error_message(error), log)
    folder.record(hydra_job.num, replace(outcome, label=label))
    if outcome.status == "failed":
        print(f"error: {outcome.reason}", file=sys.stderr, flush=True)
    return outcome.value


def announce(number: int, label: str, config: Config, jobs: int) -> None:
    """For example "job 1 (2 of 4): wd=0.1, seed=1". jobs: 0 if nobody knows."""
    if config.trainer.progress != "off":
        say(f"job {number}{f' ({number + 1} of {jobs})' if jobs else ''}: {label}")
