"""Records of sweeps: their jobs and the outcomes, in the files of outputs/<study>/sweeps/<when>-<process>-<random>/."""

import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from resnetlab.runs import layout
from resnetlab.runs.files import read_json, write_json

RUN = re.compile(rf"[^/]+/[^/]+/{layout.SEED}\d{{1,18}}")
NO_OBJECTIVE = math.nan  # the objective of a run that has none: neither good nor bad, so no sweeper may learn from it


@dataclass(frozen=True)
class PlannedJob:
    """One job of a sweep. run: its key, "<study>/<configuration>/seed=<n>"."""

    run: str
    epochs: int
    number: int

    @property
    def configuration(self) -> tuple[str, str]:
        study, name, _ = self.run.split("/")
        return study, name

    @property
    def seed(self) -> int:
        return int(self.run.rpartition("=")[2])


class JobEnd(NamedTuple):
    """End of a run, from an outcome file. when: the file was written, seconds since 1970; reason: one line."""

    when: float
    status: str
    reason: str
    run: str


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job. status: finished | diverged | pruned | failed | skipped | interrupted.

    reason: why, if it is not finished; one line. log: more on it. diverged: of a run that was skipped too.
    interrupted: of a job that has left nothing because its sweep was ended; in tables only.
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
        """The objective as a sweeper takes it: NaN for none."""
        return NO_OBJECTIVE if self.objective is None else self.objective


def sweeps_of(runs: Iterable[Path]) -> list[Path]:
    """The sweep folders of these runs' studies, those of a study in the order of their start, which is their name."""
    studies = {run.resolve().parent.parent for run in runs if run.name.startswith(layout.SEED)}
    return [path for study in sorted(studies) for path in sorted((study / layout.SWEEPS).glob("*/"))]


def read_plan(sweep: Path) -> list[PlannedJob]:
    """All jobs of the sweep; none where it has left no list, as a search does, whose jobs are made up on the way."""
    found = []
    with suppress(OSError, ValueError, KeyError, TypeError):
        for number, job in enumerate(read_json(sweep / layout.SWEEP_PLAN)["jobs"]):
            with suppress(KeyError, TypeError):
                if RUN.fullmatch(job["run"]) and isinstance(job["epochs"], int):
                    found.append(PlannedJob(job["run"], job["epochs"], number))
    return found


def read_end(path: Path) -> JobEnd | None:
    """Read an outcome file; None where it cannot be read or names no run."""
    try:
        when, outcome = path.stat().st_mtime, read_json(path)
        folder, status, reason = (str(outcome[key]) for key in ("folder", "status", "reason"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return JobEnd(when, status, (reason.splitlines() or [""])[0], layout.run_key(folder)) if folder else None


def with_actual_runs(jobs: Sequence[PlannedJob], end_of: Callable[[int], JobEnd | None]) -> list[PlannedJob]:
    """The jobs with the runs that their outcomes name: a login node without a GPU plans others than a GPU trains.

    end_of: a job's number -> its end. A job without one goes with its configuration.
    """
    found = {job.number: end.run for job in jobs if (end := end_of(job.number)) and RUN.fullmatch(end.run)}
    moved = {job.configuration: found[job.number] for job in jobs if found.get(job.number, job.run) != job.run}

    def run_of(job: PlannedJob) -> str:
        other = moved.get(job.configuration, job.run)
        return found.get(job.number) or f"{other.rpartition('/')[0]}/{layout.SEED}{job.seed}"

    return [replace(job, run=run_of(job)) for job in jobs]


def planned_seeds(runs: Iterable[Path]) -> dict[tuple[str, str], set[int]]:
    """{(study, configuration): seeds} of all sweeps of these runs' studies."""
    found: dict[tuple[str, str], set[int]] = {}
    for sweep in sweeps_of(runs):
        jobs = read_plan(sweep)
        ends = {job.number: read_end(sweep / layout.OUTCOME.format(job.number)) for job in jobs}
        for job in with_actual_runs(jobs, ends.get):
            found.setdefault(job.configuration, set()).add(job.seed)
    return found


class SweepFolder:
    """outputs/<study>/sweeps/<when>-<process>-<random>: the outcomes and logs of one launch of the command.

    Outcomes are also kept in memory, because a full disk takes no file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[int, Outcome] = {}

    @classmethod
    def open(cls, study: str, outputs: str | Path | None = None) -> "SweepFolder":
        """Make a new folder, which no other launch has: containers and hosts on one disk may share process numbers."""
        name = f"{datetime.now():%Y-%m-%d-%H%M%S}-{os.getpid()}-{secrets.token_hex(4)}"
        path = Path(outputs or layout.default_outputs()) / study / layout.SWEEPS / name
        path.mkdir(parents=True)
        (path / layout.SWEEP_START).touch()
        return cls(path)

    def log(self, number: int) -> Path:
        return self.path / layout.JOB_LOG.format(number)

    def write_plan(self, jobs: Iterable[tuple[str, Any]]) -> None:
        """Write all jobs, (label, Config) of each, for status and report to know how many there were to be."""
        content = [{"run": layout.run_key(c.folder.path), "label": label, "epochs": c.epochs} for label, c in jobs]
        with suppress(OSError):
            write_json(self.path / layout.SWEEP_PLAN, {"jobs": content})

    def assign(self, number: int, assignment: dict[str, Any]) -> None:
        """Write the label and the trial of a job that a search makes up."""
        write_json(self.path / layout.ASSIGNMENT.format(number), assignment)

    def assignment(self, number: int) -> dict[str, Any] | None:
        """What was assigned to the job, in this process or another; None for a job that belongs to no search."""
        try:
            return read_json(self.path / layout.ASSIGNMENT.format(number))
        except FileNotFoundError:
            return None

    def record(self, number: int, outcome: Outcome) -> None:
        self.known[number] = outcome
        with suppress(OSError):
            write_json(self.path / layout.OUTCOME.format(number), asdict(outcome))

    def outcomes(self) -> dict[int, Outcome]:
        """Outcomes of all jobs that have ended, in this process or another."""
        found = dict(self.known)
        for path in self.path.glob(layout.OUTCOME.format("*")):
            with suppress(OSError, ValueError, TypeError):
                found.setdefault(layout.job_number(path), Outcome(**read_json(path)))
        return found
