"""A sweep, or a search, from its first job to the table at its end."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from resnetlab.completion import objective
from resnetlab.config import Config, parse
from resnetlab.errors import LabError, first_line
from resnetlab.folders import OUTPUTS
from resnetlab.refusals import REFUSALS, complain, refusal
from resnetlab.report.asked import plan
from resnetlab.search.assignment import watch_of
from resnetlab.speech import speak
from resnetlab.submission import patient_submitit
from resnetlab.sweeps.outcomes import Outcome, SweepFolder, attempt, failure
from resnetlab.sweeps.seeds import seed_lines
from resnetlab.sweeps.table import collect, exit_status, table_lines

__all__ = ["failures", "job", "run_sweep"]


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
        return complain(error)
    status, missing = 0, Outcome("failed", reason="left no outcome")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # an error of a launcher's is raised here, and not printed by Hydra
    try:
        with patient_submitit(launcher, folder):
            application()
    except KeyboardInterrupt:
        status, missing = 130, INTERRUPTED
    except SystemExit as end:  # a termination
        status = end.code if isinstance(end.code, int) else 1
        missing = INTERRUPTED if status > 128 else missing
    except Exception as error:  # the launcher's
        status = complain(error) if isinstance(error, (LabError, *REFUSALS)) else 1
        advice = "; hydra/launcher=processes loses only the one that is killed" if launcher == "joblib" else ""
        missing = Outcome("failed", reason=f"left no outcome: {type(error).__name__}: {first_line(error)}{advice}")
    finally:
        os.environ.pop(SweepFolder.VARIABLE, None)
        os.environ.pop("HYDRA_FULL_ERROR", None)
    expected = expected or folder.labels()
    outcomes = collect(folder, expected, missing)
    for line in (*table_lines(outcomes, expected, config.objective), *seed_lines(outcomes, found, config.objective)):
        speak(line)
    speak(f"runs: resnetlab report {OUTPUTS / config.study}; logs and outcomes: {folder.path}")
    return status or exit_status(outcomes)


INTERRUPTED = Outcome("interrupted", reason="the same command goes on")
failures: list[int] = []  # the exit status of this process's job, if it could not be run


def job(node: DictConfig) -> float:
    """One run; returns the objective to the sweeper, not a number for a job that has none, so that the others go on."""
    folder = SweepFolder.current()
    if folder is not None:
        return job_of_sweep(node, folder)
    from resnetlab.run import run  # brings Lightning

    try:
        config = parse(node)
        return objective(config, run(config))
    except (LabError, OSError) as error:
        failures.append(complain(error))
        return math.nan


def job_of_sweep(node: DictConfig, folder: SweepFolder) -> float:
    """The same as one of many: a failure of any kind is said, kept for the table, and does not end the others."""
    hydra_job = HydraConfig.get().job
    log, planned = folder.log(hydra_job.num), {job.number: job.label for job in plan(folder.path)}
    label = (planned or folder.labels()).get(hydra_job.num, hydra_job.override_dirname)
    try:
        config = parse(node)
        announce(hydra_job.num, label, config, len(planned))
        outcome = attempt(config, log, refusal, watch_of(folder, hydra_job.num))
    except REFUSALS as error:  # what a sweeper made up
        outcome = failure(error, refusal(error), log)
    folder.record(hydra_job.num, replace(outcome, label=label))
    if outcome.status == "failed":
        print(f"error: {outcome.reason}", file=sys.stderr, flush=True)
    return outcome.value


def announce(number: int, label: str, config: Config, jobs: int) -> None:
    """For example "job 1 (2 of 4): wd=0.1, seed=1". jobs: 0 if nobody knows."""
    if config.trainer.progress != "off":
        speak(f"job {number}{f' ({number + 1} of {jobs})' if jobs else ''}: {label}")
