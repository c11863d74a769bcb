"""What sweeps were to train and what became of it, from the files they leave in outputs/<study>/sweeps/<when>/."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["PLAN", "Planned", "asked_seeds", "plan", "renamed", "run_key", "studies", "sweep_folders"]

PLAN = "sweep.json"
RUN = re.compile(r"[^/]+/[^/]+/seed=\d{1,18}")


@dataclass(frozen=True)
class Planned:
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


def plan(sweep: Path) -> list[Planned]:
    """All jobs of the sweep; none where it has left no plan, as one whose jobs nobody knows before does."""
    try:
        content = json.loads((sweep / PLAN).read_text())
    except (OSError, ValueError, RecursionError):
        return []
    jobs = content.get("jobs") if isinstance(content, dict) else None
    return list(sound(jobs)) if isinstance(jobs, list) else []


def sound(jobs: Iterable[Any]) -> Iterator[Planned]:
    for number, job in enumerate(jobs):
        if not isinstance(job, Mapping):
            continue
        run, label, epochs = (job.get(key) for key in ("run", "label", "epochs"))
        if isinstance(run, str) and RUN.fullmatch(run) and isinstance(label, str) and isinstance(epochs, int):
            yield Planned(run, label, epochs, number)


def renamed(jobs: Sequence[Planned], end: Callable[[str], str]) -> list[Planned]:
    """With the runs that the outcomes name: a machine without a GPU plans others than one with a GPU trains.

    end: a job's outcome file -> its run, "" if it names none. A job without one goes with its configuration.
    """
    ends = {job.number: run for job in jobs if RUN.fullmatch(run := end(f"job-{job.number}.json"))}
    moved = {job.configuration: ends[job.number] for job in jobs if ends.get(job.number, job.run) != job.run}

    def run_of(job: Planned) -> str:
        other = moved.get(job.configuration, job.run)
        return ends.get(job.number) or f"{other.rpartition('/')[0]}/seed={job.seed}"

    return [replace(job, run=run_of(job)) for job in jobs]


def run_at(sweep: Path, name: str) -> str:
    """The run that an outcome names."""
    try:
        return run_key(str(json.loads((sweep / name).read_text())["folder"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def asked_seeds(runs: Iterable[Path]) -> dict[tuple[str, str], set[int]]:
    """{(study, configuration): seeds} of all sweeps that lie beside these runs."""
    found: dict[tuple[str, str], set[int]] = {}
    for study in studies(runs):
        for sweep in sweep_folders(study):
            for job in renamed(plan(sweep), partial(run_at, sweep)):
                found.setdefault(job.configuration, set()).add(job.seed)
    return found
