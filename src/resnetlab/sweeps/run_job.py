"""One job of a sweep: trains it in this process, and turns whatever happens into its outcome."""

import gc
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from resnetlab.config.compose import parse
from resnetlab.config.messages import USAGE_ERRORS, error_message
from resnetlab.config.schema import Config
from resnetlab.console import print_stderr, tolerant_output
from resnetlab.errors import LabError, RunLocked, RunPruned, first_line
from resnetlab.runs.layout import SWEEP_START
from resnetlab.runs.summary import Summary
from resnetlab.runs.sweep_records import Outcome, SweepFolder
from resnetlab.sweeps.trunk_plan import with_branch_points
from resnetlab.training.result import EpochHook, completed, objective, print_line

MAX_REASON = 500  # characters: it has to fit into a pipe and into a table


@dataclass
class SweepTask:
    """Hydra's task function of a sweep, in which its launchers and sweepers also find what the sweep is.

    labels: by job number; a search adds its own. jobs: how many, 0 where that is unknown.
    """

    folder: SweepFolder
    labels: dict[int, str]
    jobs: int
    search: Any = None  # a Search or SeedRounds, which says what is run next

    def __getstate__(self) -> dict[str, Any]:
        """Without the search, which stays in the process that asks for trials."""
        return {**vars(self), "search": None}

    def __call__(self, node: DictConfig) -> float:
        """Trains one job and records its outcome; returns the objective, NaN if there is none."""
        tolerant_output()
        hydra_config = HydraConfig.get()
        number, overrides = hydra_config.job.num, list(hydra_config.overrides.task)
        label, left = self.labels.get(number, ""), self.jobs - number - 1
        try:
            config = parse(node)
            print_line(config, f"job {number}: {label}{f' ({left} more behind it)' if left > 0 else ''}")
            outcome = run_job(config, self.folder, number, overrides)
        except Exception as error:  # what a sweeper made up
            outcome = failure(error, self.folder.log(number))
        record(self.folder, number, outcome, label)
        return outcome.value


def run_job(config: Config, folder: SweepFolder, number: int, overrides: Sequence[str]) -> Outcome:
    """Trains what is left to train. A failure is an outcome like any other, its traceback in the job's log.

    overrides: of this job, for the run's manifest, which holds a command that repeats it alone.
    """
    from resnetlab.training.run import train  # brings Lightning, whose seconds a sweep of other processes does without

    path = str(config.folder.path)
    config = force_only_once(config, folder.path)
    try:
        if (done := skip_if_completed(config)) is not None:
            return done
        config, command = with_branch_points(config, folder, number), ["train.py", *overrides]
        summary = train(config, epoch_hook=trial_hook(folder, number), sweep=folder.path, command=command)
        return outcome_of(config, summary, summary["status"])
    except RunLocked:
        return Outcome("skipped", reason="is being trained by another process", folder=path)
    except RunPruned as stop:
        return Outcome("pruned", reason=str(stop), folder=path)
    except Exception as error:
        return failure(error, folder.log(number), path)
    finally:
        gc.collect()  # a module and its trainer refer to each other; the next job may need their memory
        torch.cuda.empty_cache()


def trial_hook(folder: SweepFolder, number: int) -> EpochHook | None:
    """Reports the job's epochs to its search, which may prune it; None without a search or without a pruner."""
    assignment = folder.assignment(number)
    if assignment is None or assignment["options"]["pruner"] == "none":
        return None
    from resnetlab.sweeps.search.journal import TrialReporter  # needs Optuna

    return TrialReporter(assignment)


def force_only_once(config: Config, sweep: Path) -> Config:
    """Without force if the run has begun since the sweep did: by this job, killed or requeued, or by an equal one."""
    try:
        begun = config.folder.manifest.stat().st_mtime_ns > (sweep / SWEEP_START).stat().st_mtime_ns
    except OSError:
        return config
    return replace(config, force=config.force and not begun)


def skip_if_completed(config: Config) -> Outcome | None:
    """The outcome of a run that has ended before; None if there is something to train."""
    if (summary := completed(config)) is None:
        return None
    return outcome_of(config, summary, "skipped", f"already {summary['status']}")


def outcome_of(config: Config, summary: Summary, status: str, reason: str = "") -> Outcome:
    folder, diverged = str(config.folder.path), summary["status"] == "diverged"
    return Outcome(status, objective(config, summary), reason, folder=folder, diverged=diverged)


def failure(error: BaseException, log: Path, folder: str = "", cause: BaseException | None = None) -> Outcome:
    """A failed outcome, its traceback appended to the log if that can be written. cause: named instead of the error."""
    cause = cause or error
    expected = isinstance(cause, (LabError, OSError, *USAGE_ERRORS))
    reason = error_message(cause) if expected else f"{type(cause).__name__}: {first_line(cause)}"
    reason = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}..."
    try:
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except OSError as problem:
        return Outcome("failed", reason=f"{reason} (and no log: {first_line(problem)})", folder=folder)
    return Outcome("failed", reason=reason, log=str(log), folder=folder)


def record(folder: SweepFolder, number: int, outcome: Outcome, label: str) -> None:
    """Writes the outcome down with the job's label, and prints at once what failed."""
    folder.record(number, replace(outcome, label=label))
    if outcome.status == "failed":
        print_stderr(f"error: {label or f'job {number}'}: {outcome.reason}")
