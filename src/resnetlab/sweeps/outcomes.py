"""What became of each job of a sweep: one small file a job, which any launcher's processes can write."""

import gc
import json
import math
import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import torch

from resnetlab.completion import Watch, completed, objective
from resnetlab.config import Config
from resnetlab.errors import Busy, LabError, Pruned, first_line
from resnetlab.files import write_json
from resnetlab.folders import OUTPUTS, run_folder
from resnetlab.report.asked import PLAN, run_key
from resnetlab.summary import Summary

__all__ = ["NOTHING", "Outcome", "SweepFolder", "attempt", "failure", "skip_if_completed"]

BEGAN = "began"  # a file that tells when a sweep began, by the clock that tells when a run did
LONGEST = 500  # letters of a reason: it has to fit into a pipe and into a table
PATIENCE = 3.0  # seconds that a job waits for the lock of its run: a process that was killed takes a moment to end
NOTHING = math.nan  # the objective of a run that has none: neither good nor bad, so no sweeper may learn from it


@dataclass(frozen=True)
class Outcome:
    """status: finished | diverged | pruned | failed | skipped | interrupted. reason: why, if it is not finished; one
    line. log: more on it. diverged: of a run that was skipped too.

    interrupted: what a table says of a job that has left nothing because its sweep was ended.
    """

    status: str
    objective: float | None = None
    reason: str = ""
    log: str = ""
    folder: str = ""
    label: str = ""
    diverged: bool = False

    @property
    def value(self) -> float:
        """What a sweeper is told."""
        return NOTHING if self.objective is None else self.objective


class SweepFolder:
    """outputs/<study>/sweeps/<when>-<process>: the outcomes and logs of one launch of the command.

    Jobs in other processes find it through the environment. What this process has recorded it also remembers, because
    a full disk takes no file.
    """

    VARIABLE = "RESNETLAB_SWEEP"
    opened: ClassVar[dict[str, "SweepFolder"]] = {}

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[int, Outcome] = {}

    @classmethod
    def open(cls, study: str) -> "SweepFolder":
        """A new folder, and the current one of this process and those that it starts."""
        path = OUTPUTS / study / "sweeps" / f"{datetime.now():%Y-%m-%d-%H%M%S}-{os.getpid()}"
        path.mkdir(parents=True, exist_ok=True)
        (path / BEGAN).touch()
        os.environ[cls.VARIABLE] = str(path)
        cls.opened[str(path)] = folder = cls(path)
        return folder

    @classmethod
    def current(cls) -> "SweepFolder | None":
        """The folder of the sweep that this process works for."""
        path = os.environ.get(cls.VARIABLE)
        return None if path is None else cls.opened.setdefault(path, cls(Path(path)))

    def log(self, number: int) -> Path:
        return self.path / f"job-{number}.log"

    def plan(self, jobs: Sequence[tuple[str, Config]]) -> None:
        """Writes down (label, configuration) of all jobs, for those who want to know how many there were to be."""
        planned = [
            {"run": run_key(run_folder(config).path), "label": label, "epochs": config.epochs} for label, config in jobs
        ]
        with suppress(OSError):
            write_json(self.path / PLAN, {"jobs": planned})

    def assign(self, number: int, assignment: dict[str, Any]) -> None:
        """What a sweeper that makes its jobs up says of one of them: its label, and what belongs to its search."""
        write_json(self.path / f"trial-{number}.json", assignment)

    def assignment(self, number: int) -> dict[str, Any] | None:
        """What was assigned to the job, in this process or another; None for a job that belongs to no search."""
        try:
            content: dict[str, Any] = json.loads((self.path / f"trial-{number}.json").read_text())
        except FileNotFoundError:
            return None
        return content

    def labels(self) -> dict[int, str]:
        """Of the jobs that were assigned."""
        numbers = sorted(int(path.stem.removeprefix("trial-")) for path in self.path.glob("trial-*.json"))
        return {number: assigned["label"] for number in numbers if (assigned := self.assignment(number)) is not None}

    def record(self, number: int, outcome: Outcome) -> None:
        self.known[number] = outcome
        with suppress(OSError):
            write_json(self.path / f"job-{number}.json", asdict(outcome))

    def outcomes(self) -> dict[int, Outcome]:
        """Of all jobs that have come to an end, here or in another process."""
        found = dict(self.known)
        for path in self.path.glob("job-*.json"):
            with suppress(OSError, ValueError, TypeError):
                found.setdefault(int(path.stem.removeprefix("job-")), Outcome(**json.loads(path.read_text())))
        return found


def attempt(config: Config, log: Path, explain: Callable[[BaseException], str], watch: Watch | None = None) -> Outcome:
    """Trains what is left to train. A failure is an outcome like any other, its traceback in the log.

    log: in the sweep's folder. explain: an error of ours or of the system's in one line (`refusal`). watch: may end the
    run after an epoch, which then is pruned.
    """
    from resnetlab.run import train  # brings Lightning, whose seconds a sweep of other processes does without

    folder = str(run_folder(config).path)
    config = forced_once(config, log.parent)
    try:
        if (done := skip_if_completed(config)) is not None:
            return done
        summary = train(config, PATIENCE, watch)
        return of_summary(config, summary, summary["status"])
    except Busy:
        return Outcome("skipped", reason="is being trained by another process", folder=folder)
    except Pruned as stop:
        return Outcome("pruned", reason=str(stop), folder=folder)
    except (LabError, OSError) as error:
        return failure(error, explain(error), log, folder)
    except Exception as error:
        return failure(error, f"{type(error).__name__}: {first_line(error)}", log, folder)
    finally:
        gc.collect()  # a module and its trainer refer to each other; the next job may need their memory
        torch.cuda.empty_cache()


def forced_once(config: Config, sweep: Path) -> Config:
    """Without force if its run was begun since the sweep was: by this job, before it was killed or put back into a
    queue, or by an equal one."""
    try:
        begun = run_folder(config).manifest.stat().st_mtime_ns > (sweep / BEGAN).stat().st_mtime_ns
    except OSError:
        return config
    return replace(config, force=False) if config.force and begun else config


def skip_if_completed(config: Config) -> Outcome | None:
    """The outcome of a run that came to its end before, None if there is something to train."""
    if (summary := completed(config)) is None:
        return None
    return of_summary(config, summary, "skipped", f"already {summary['status']}")


def of_summary(config: Config, summary: Summary, status: str, reason: str = "") -> Outcome:
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
