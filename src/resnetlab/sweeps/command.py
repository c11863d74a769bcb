"""Checks every job of a command line before the first starts, and then runs them: one run, a sweep or a search."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

import hydra
from hydra.types import TaskFunction
from omegaconf import DictConfig

from resnetlab.config.compose import compose, hydra_context
from resnetlab.config.messages import USAGE_ERRORS, print_error
from resnetlab.config.option_files import conf_dir
from resnetlab.config.overrides import compose_jobs, normalize_arguments
from resnetlab.config.schema import Config
from resnetlab.console import TRAIN_COMMAND, interrupted, say, unexpected
from resnetlab.errors import ConfigError, LabError, first_line
from resnetlab.runs.sweep_records import Outcome, SweepFolder
from resnetlab.sweeps.launchers import AROUND, LAUNCHERS, check_jobs, checked_settings, choice
from resnetlab.sweeps.process_setup import sigterm_as_exit
from resnetlab.sweeps.run_job import SweepTask
from resnetlab.sweeps.seeds import SeedRounds
from resnetlab.sweeps.table import collect, exit_status, seed_lines, seed_metrics, table_lines
from resnetlab.sweeps.trunk_plan import write_trunks
from resnetlab.training.distributed import silence_secondary
from resnetlab.training.isolation import preserve_process_state

if TYPE_CHECKING:  # it needs Optuna
    from resnetlab.sweeps.search.loop import Search

Jobs = Sequence[tuple[str, Config]]  # (label, configuration), the label "" of a single run
INTERRUPTED = Outcome("interrupted", reason="the same command goes on")


@silence_secondary()
def run_command(arguments: Sequence[str]) -> int:
    """Runs what the arguments of train.py ask for; returns the exit status."""
    try:
        options = parse_arguments(arguments)
        if options.shows:
            compose(*options.overrides)  # checked as for training
            call_hydra(lambda node: None, [*options.shows, *options.overrides])  # prints, and calls nothing
            return 0
        with preserve_process_state():  # schedule=lambda is called here
            with hydra_context():
                settings = checked_settings(options.overrides)
            search = make_search(options.overrides, settings)
            jobs = [] if search else compose_jobs(options.overrides, options.multirun)
            configs = search.configs if search else [config for _, config in jobs]
            if search or options.multirun:
                check_jobs(configs, choice(settings, "launcher"))
    except (LabError, OSError, *USAGE_ERRORS) as error:
        return print_error(error)
    except KeyboardInterrupt as stop:
        return interrupted(stop)
    try:
        if search is not None:
            return run_search(search, options.overrides, choice(settings, "launcher"))
        if options.multirun:
            return run_sweep(jobs, configs[0], options.overrides, choice(settings, "launcher"))
        from resnetlab.training.run import run  # brings Lightning

        run(configs[0])  # without Hydra
    except KeyboardInterrupt:
        return 130  # the shell's number for it
    except (LabError, OSError) as error:
        return print_error(error)
    return 0


def make_search(overrides: Sequence[str], settings: DictConfig) -> "Search | SeedRounds | None":
    """The Search or the SeedRounds, checked; None where the sweeper is Hydra's own."""
    if choice(settings, "sweeper") == "seeds":
        return SeedRounds(overrides, settings.sweeper)
    if choice(settings, "sweeper") != "optuna":
        return None
    if find_spec("optuna") is None:
        raise ConfigError("hydra/sweeper=optuna needs Optuna: pip install 'resnetlab[optuna]'")
    from resnetlab.sweeps.search.loop import Search
    from resnetlab.sweeps.search.plan import make_plan

    return Search(make_plan(overrides))


def run_search(search: "Search | SeedRounds", overrides: Sequence[str], launcher: str) -> int:
    """Runs what is missing of the search, and prints its result; returns the exit status."""
    with search.opened():
        status = run_sweep(search.jobs, search.configs[0], overrides, launcher, search) if search.unfinished else 0
        if status <= 128:
            search.conclude()
    return status


def run_sweep(
    jobs: Jobs, config: Config, overrides: Sequence[str], launcher: str, search: "Search | SeedRounds | None" = None
) -> int:
    """Runs all jobs, whatever becomes of some, and prints what became of each; returns the exit status.

    jobs: none at first for a search, which may add to them. config: of any of them. launcher: its name.
    """
    folder = SweepFolder.open(config.study, config.outputs)
    if jobs:
        folder.write_plan(jobs)
        write_trunks([job for _, job in jobs], folder)
    end_parent = None
    if "mlflow" in config.logger.chosen:
        from resnetlab.training.callbacks.loggers import begin_sweep  # brings Lightning

        end_parent = begin_sweep(config, folder.path)
    task = SweepTask(folder, {number: label for number, (label, _) in enumerate(jobs)}, len(jobs), search)
    status, missing = run_task(task, overrides, launcher)
    outcomes = collect(folder, task.labels, missing)
    status = status or exit_status(outcomes)
    if end_parent is not None:
        end_parent(seed_metrics(outcomes, jobs, config.objective), bool(status))
    for line in (*table_lines(outcomes, task.labels, config.objective), *seed_lines(outcomes, jobs, config.objective)):
        say(line)
    where = " ".join(dict.fromkeys(str(job.study_folder) for job in (config, *(job for _, job in jobs))))
    say(f"runs: resnetlab report {where}; logs and outcomes: {folder.path}")
    return status


def run_task(task: SweepTask, overrides: Sequence[str], launcher: str) -> tuple[int, Outcome]:
    """Runs the jobs by Hydra's sweeper and launcher; (0 or the exit status, outcome of those that have left none)."""
    around, failed = AROUND.get(launcher, lambda folder: nullcontext()), Outcome("failed", reason="left no outcome")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # an error of a launcher's is raised here, and not printed by Hydra
    try:
        with sigterm_as_exit(), around(task.folder):
            call_hydra(task, ["-m", *overrides])
        return 0, failed
    except KeyboardInterrupt:
        return 130, INTERRUPTED
    except SystemExit as end:  # of SIGTERM
        status = end.code if isinstance(end.code, int) else 1
        return status, INTERRUPTED if status > 128 else failed
    except Exception as error:  # the launcher's
        status = print_error(error) if isinstance(error, (LabError, OSError, *USAGE_ERRORS)) else unexpected(error)
        advice = LAUNCHERS.get(launcher, {}).get("advice", "")
        reason = f"left no outcome: {type(error).__name__}: {first_line(error)}{advice}"
        return status, Outcome("failed", reason=reason)
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)


def call_hydra(task: TaskFunction, arguments: Sequence[str]) -> None:
    """Calls hydra.main's application, which reads its arguments from sys.argv."""
    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """overrides; multirun: whether there is a -m; shows: the arguments that ask to look at a job and train nothing.

    Raises ConfigError for what is not supported.
    """
    parser = argparse.ArgumentParser(prog="train.py", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--package", "-p")
    parser.add_argument("--resolve", action="store_true")
    try:
        options, unknown = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None
    overrides = normalize_arguments([*options.overrides, *unknown, *(["-m"] if options.multirun else [])])
    if unknown:
        cure = f"a setting is KEY=VALUE without dashes; {TRAIN_COMMAND} --help lists them"
        raise ConfigError(f"{unknown[0]} is not supported; {cure}")
    options.multirun = "-m" in overrides
    options.shows = [a for a in arguments if a not in (*options.overrides, "-m", "--multirun")]
    options.overrides = [override for override in overrides if override != "-m"]
    if options.shows and options.multirun:
        raise ConfigError("-m trains a sweep; leave it out to look at a job with --cfg")
    if options.shows and not options.cfg:
        raise ConfigError(f"{options.shows[0]} goes with --cfg")
    return options
