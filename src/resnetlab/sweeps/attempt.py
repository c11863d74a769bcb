"""What became of each job of a sweep: one small file a job, which any launcher's processes can write."""

import gc
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from resnetlab.config.identity import run_folder
from resnetlab.config.schema import Config
from resnetlab.errors import LabError, RunLocked, RunPruned, first_line
from resnetlab.runs.layout import SWEEP_START
from resnetlab.runs.summary import Summary
from resnetlab.runs.sweep_records import Outcome
from resnetlab.training.result import EpochHook, completed, objective

LONGEST = 500  # letters of a reason: it has to fit into a pipe and into a table
PATIENCE = 3.0  # seconds that a job waits for the lock of its run: a process that was killed takes a moment to end


def run_job(
    config: Config, log: Path, explain: Callable[[BaseException], str], watch: EpochHook | None = None
) -> Outcome:
    """Trains what is left to train. A failure is an outcome like any other, its traceback in the log.

    log: in the sweep's folder. explain: an error of ours or of the system's in one line (`refusal`). watch: may end the
    run after an epoch, which then is pruned.
    """
    from resnetlab.training.run import train  # brings Lightning, whose seconds a sweep of other processes does without

    folder = str(run_folder(config).path)
    config = force_only_once(config, log.parent)
    try:
        if (done := skip_if_completed(config)) is not None:
            return done
        summary = train(config, PATIENCE, watch)
        return outcome_of(config, summary, summary["status"])
    except RunLocked:
        return Outcome("skipped", reason="is being trained by another process", folder=folder)
    except RunPruned as stop:
        return Outcome("pruned", reason=str(stop), folder=folder)
    except (LabError, OSError) as error:
        return failure(error, explain(error), log, folder)
    except Exception as error:
        return failure(error, f"{type(error).__name__}: {first_line(error)}", log, folder)
    finally:
        gc.collect()  # a module and its trainer refer to each other; the next job may need their memory
        torch.cuda.empty_cache()


def force_only_once(config: Config, sweep: Path) -> Config:
    """Without force if its run was begun since the sweep was: by this job, before it was killed or put back into a
    queue, or by an equal one."""
    try:
        begun = run_folder(config).manifest.stat().st_mtime_ns > (sweep / SWEEP_START).stat().st_mtime_ns
    except OSError:
        return config
    return replace(config, force=False) if config.force and begun else config


def skip_if_completed(config: Config) -> Outcome | None:
    """The outcome of a run that came to its end before, None if there is something to train."""
    if (summary := completed(config)) is None:
        return None
    return outcome_of(config, summary, "skipped", f"already {summary['status']}")


def outcome_of(config: Config, summary: Summary, status: str, reason: str = "") -> Outcome:
    folder, diverged = str(run_folder(config).path), summary["status"] == "diverged"
    return Outcome(status, objective(config, summary), reason, folder=folder, diverged=diverged)


def failure(error: BaseException, reason: str, log: Path, folder: str = "") -> Outcome:
    """A failed outcome, its reason cut, the traceback appended to the log if that can be written."""
    reason = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]}..."
    try:
        with log.open("a") as file:
            traceback.print_exception(error, file=file)
    except OSError as problem:
        return Outcome("failed", reason=f"{reason} (and no log: {first_line(problem)})", folder=folder)
    return Outcome("failed", reason=reason, log=str(log), folder=folder)
