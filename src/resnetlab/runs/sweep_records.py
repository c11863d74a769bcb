"""What sweeps were to train and what became of it, from the files they leave in outputs/<study>/sweeps/<when>/."""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from resnetlab.config.identity import run_folder
from resnetlab.config.schema import Config
from resnetlab.runs.files import write_json
from resnetlab.runs.layout import OUTPUTS

PLAN = "sweep.json"
RUN = re.compile(r"[^/]+/[^/]+/seed=\d{1,18}")


@dataclass(frozen=True)
class PlannedJob:
    """A job of a sweep. run: "<study>/<configuration>/seed=<n>"."""

    run: str
    label: str
    epochs: int
    number: int

    @property
    def configuration(self) -> tuple[str, str]:
        study, name, _ = self.run.split("/")
        return study, name

    @property
    def seed(self) -> int:
        return int(self.run.rpartition("=")[2])


def run_key(folder: str | Path) -> str:
    """A run's folder as sweeps name it; the outputs may have been moved since."""
    return "/".join(Path(folder).parts[-3:])


def studies(runs: Iterable[Path]) -> list[Path]:
    """The folders outputs/<study> of these runs."""
    places = {os.path.dirname(os.path.dirname(os.path.realpath(path))) for path in runs if path.name[:5] == "seed="}
    return sorted(map(Path, places))


def sweep_folders(study: Path) -> list[Path]:
    """In the order of their start, which is their name."""
    try:
        return sorted(path for path in (study / "sweeps").iterdir() if path.is_dir())
    except OSError:
        return []


def read_plan(sweep: Path) -> list[PlannedJob]:
    """All jobs of the sweep; none where it has left no plan, as one whose jobs nobody knows before does."""
    try:
        content = json.loads((sweep / PLAN).read_text())
    except (OSError, ValueError, RecursionError):
        return []
    jobs = content.get("jobs") if isinstance(content, dict) else None
    return list(is_valid_plan(jobs)) if isinstance(jobs, list) else []


def is_valid_plan(jobs: Iterable[Any]) -> Iterator[PlannedJob]:
    for number, job in enumerate(jobs):
        if not isinstance(job, Mapping):
            continue
        run, label, epochs = (job.get(key) for key in ("run", "label", "epochs"))
        if isinstance(run, str) and RUN.fullmatch(run) and isinstance(label, str) and isinstance(epochs, int):
            yield PlannedJob(run, label, epochs, number)


def with_actual_runs(jobs: Sequence[PlannedJob], end: Callable[[str], str]) -> list[PlannedJob]:
    """With the runs that the outcomes name: a machine without a GPU plans others than one with a GPU trains.

    end: a job's outcome file -> its run, "" if it names none. A job without one goes with its configuration.
    """
    ends = {job.number: run for job in jobs if RUN.fullmatch(run := end(f"job-{job.number}.json"))}
    moved = {job.configuration: ends[job.number] for job in jobs if ends.get(job.number, job.run) != job.run}

    def run_of(job: PlannedJob) -> str:
        other = moved.get(job.configuration, job.run)
        return ends.get(job.number) or f"{other.rpartition('/')[0]}/seed={job.seed}"

    return [replace(job, run=run_of(job)) for job in jobs]


def run_at(sweep: Path, name: str) -> str:
    """The run that an outcome names."""
    try:
        return run_key(str(json.loads((sweep / name).read_text())["folder"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def planned_seeds(runs: Iterable[Path]) -> dict[tuple[str, str], set[int]]:
    """{(study, configuration): seeds} of all sweeps that lie beside these runs."""
    found: dict[tuple[str, str], set[int]] = {}
    for study in studies(runs):
        for sweep in sweep_folders(study):
            for job in with_actual_runs(read_plan(sweep), partial(run_at, sweep)):
                found.setdefault(job.configuration, set()).add(job.seed)
    return found


BEGAN = "began"  # a file that tells when a sweep began, by the clock that tells when a run did
NO_OBJECTIVE = math.nan  # the objective of a run that has none: neither good nor bad, so no sweeper may learn from it


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
        return NO_OBJECTIVE if self.objective is None else self.objective


class SweepFolder:
    """outputs/<study>/sweeps/<when>-<process>: the outcomes and logs of one launch of the command.

    What this process has recorded it also remembers, because a full disk takes no file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[int, Outcome] = {}

    @classmethod
    def open(cls, study: str) -> "SweepFolder":
        """A new folder."""
        path = OUTPUTS / study / "sweeps" / f"{datetime.now():%Y-%m-%d-%H%M%S}-{os.getpid()}"
        path.mkdir(parents=True, exist_ok=True)
        (path / BEGAN).touch()
        return cls(path)

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
