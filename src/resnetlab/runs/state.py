"""State of every run below some folders: running, failed, interrupted, finished ...; unchanged files are read once."""

import csv
import os
import re
import stat
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock, Timeout

from resnetlab.runs import layout, load
from resnetlab.runs.files import read_rows
from resnetlab.runs.summary import Row, Summary
from resnetlab.runs.sweep_records import JobEnd, PlannedJob, read_end, read_plan, sweeps_of, with_actual_runs

# in the order of the table; "unfinished": no summary, and it cannot be told whether it is being trained
STATES = ("running", "failed", "pruned", "interrupted", "unfinished", "damaged", "finished", "diverged")
ENDED_BADLY = ("failed", "pruned")
Stamps = Mapping[str, tuple[int, int]]  # {file: (time of writing in ns, size)}
T = TypeVar("T")
LabelRuns = Callable[[Sequence[load.Run]], Mapping[Path, str]]


@dataclass
class RunState(load.Run):
    """One run. state: of STATES, "" before its lock is tried. label: its configuration in short.

    Its settings stand in its summary, its rows are not kept. reason: why it failed or what is damaged. epochs:
    planned; done: epochs written; last, best: val_acc; seconds: per epoch; left: seconds, of a running one. touched:
    when a file was last written, changed: when the last row was; seconds since 1970. None is unknown.
    """

    key: str = ""
    state: str = ""
    label: str = ""
    reason: str = ""
    epochs: int | None = None
    done: int = 0
    last: float | None = None
    best: float | None = None
    seconds: float | None = None
    touched: float = 0.0
    changed: float | None = None
    left: float | None = None


class RunStates(NamedTuple):
    """All runs, sorted. waiting: jobs of sweeps whose runs have no folder yet."""

    runs: Sequence[RunState]
    waiting: Sequence[PlannedJob] = ()

    def counts(self) -> dict[str, int]:
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in STATES if found[state]}

    def left(self) -> float | None:
        """Seconds until running and waiting runs are done, if as many go on at once as do now; None if unknown."""
        running = [run for run in self.runs if run.state == "running"]
        lefts = [run.left for run in running if run.left is not None]
        paces = [run.seconds for run in running if run.seconds is not None]
        if not running or not len(running) == len(lefts) == len(paces):
            return None
        pace, busy = statistics.fmean(paces), {run.study for run in running}
        waiting = sum(job.epochs * pace for job in self.waiting if job.configuration[0] in busy)
        return max(*lefts, (sum(lefts) + waiting) / len(running), 0.0)


@dataclass
class StateReader:
    """Reads the states again and again, and only the files that have changed. label: gives runs their labels."""

    folders: Sequence[Path]
    label: LabelRuns = lambda runs: {run.path: run.configuration for run in runs}
    known: dict[Path, tuple[Stamps, Any]] = field(default_factory=dict)

    def read(self, now: float) -> RunStates:
        paths = load.run_paths(self.folders)
        found = [run for path in paths if (run := self.run_at(path)) is not None]
        sweeps = sweeps_of(paths)
        ends = self.ends(sweeps)
        keys = {run.key for run in found}
        planned = {f"{sweep.parents[2]}/{job.run}": job for sweep in sweeps for job in self.planned(sweep)}
        absent = {key: job for key, job in planned.items() if key not in keys}
        for key, job in absent.items():  # of which some failed before they had a folder
            if key in ends and ends[key].status in ENDED_BADLY:
                place = Path(job.run), *job.configuration, job.seed
                found.append(RunState(*place, {}, [], {}, key=key, epochs=job.epochs))
        labels = self.label(found)
        runs = [replace(with_state(run, ends.get(run.key), now), label=labels[run.path]) for run in found]
        return RunStates(sorted(runs, key=rank), [job for key, job in absent.items() if key not in ends])

    def run_at(self, path: Path) -> RunState | None:
        """The run without its state; None where the folder has vanished."""
        found = stamps(path)
        if not found and not path.is_dir():
            return None
        return self.remembered(path, found, lambda path: read_run_state(path, found))

    def planned(self, sweep: Path) -> list[PlannedJob]:
        """The sweep's jobs, with the runs that their outcomes name."""
        jobs = self.remembered(sweep, stamps(sweep, [layout.SWEEP_PLAN]), read_plan)
        return with_actual_runs(jobs, lambda number: self.end(sweep / layout.OUTCOME.format(number)))

    def end(self, path: Path) -> JobEnd | None:
        return self.remembered(path, stamps(path.parent, [path.name]), read_end)

    def ends(self, sweeps: Iterable[Path]) -> dict[str, JobEnd]:
        """The newest end of each run by its key."""
        found: dict[str, JobEnd] = {}
        for sweep in sweeps:
            for path in sweep.glob(layout.OUTCOME.format("*")):
                if (end := self.end(path)) is not None:
                    run = f"{sweep.parents[2]}/{end.run}"
                    found[run] = max(found.get(run, end), end)
        return found

    def remembered(self, path: Path, found: Stamps, read: Callable[[Path], T]) -> T:
        """Result of read(path), which is called again only when the stamps have changed."""
        if path not in self.known or self.known[path][0] != found:
            self.known[path] = found, read(path)
        return self.known[path][1]


def stamps(path: Path, names: Iterable[str] = layout.RUN_FILES) -> Stamps:
    """Times and sizes of the folder's regular files: to read from a pipe or a device would not end."""
    found = {}
    for name in names:
        with suppress(OSError):
            file = os.stat(path / name)
            if stat.S_ISREG(file.st_mode):
                found[name] = file.st_mtime_ns, file.st_size
    return found


def read_run_state(path: Path, found: Stamps) -> RunState:
    """Read a run's files, but not its lock; no content of a file raises."""
    manifest = load.read_manifest(path) if layout.MANIFEST in found else {}
    summary: Summary = {}
    rows: list[Row] = []
    damage = ""
    try:
        summary = load.read_summary(path, manifest) if layout.SUMMARY in found else {}
    except load.UnusableRun as error:
        damage = error.reason if error.kind == "unreadable" else ""  # or it has just vanished
    try:
        if layout.METRICS in found and summary.get("status") != "finished":
            rows = [row for row in read_rows(path / layout.METRICS) if isinstance(row.get("epoch"), int)]
    except (OSError, ValueError, AttributeError, TypeError, csv.Error) as error:
        damage = damage or f"{layout.METRICS} cannot be read ({type(error).__name__})"
    settings = {**load.settings_of(manifest.get("config", {})), **summary}
    planned = load.planned_epochs(path, manifest) if layout.CONFIG in found else None
    epochs = finite_or_none(settings.get("epochs")) or planned
    times, whole = {name: time / 1e9 for name, (time, _) in found.items()}, path.absolute()
    seed = whole.name.removeprefix(layout.SEED) if whole.name.startswith(layout.SEED) else str(settings.get("seed", ""))
    return RunState(
        path,
        study=str(settings.get("study") or whole.parent.parent.name),
        configuration=load.configuration_of(whole, manifest),
        seed=int(seed) if re.fullmatch(r"\d{1,18}", seed) else -1,
        summary=settings,
        rows=[],
        manifest=manifest,
        key=f"{os.path.realpath(os.path.abspath(path / '../../..'))}/{layout.run_key(whole)}",
        state=summary.get("status", ""),
        reason=damage,
        epochs=None if epochs is None else int(epochs),
        touched=max(times.values(), default=0.0),
        changed=times.get(layout.METRICS),
        **last_metrics(summary, rows),
    )


def last_metrics(summary: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """done, last, best and seconds: from the summary of a finished run, else from the rows."""
    if summary.get("status") == "finished":
        names = {"last": "final_val_acc", "best": "best_val_acc", "seconds": "seconds_per_epoch"}
        values = {name: finite_or_none(summary.get(key)) for name, key in names.items()}
        return {**values, "done": int(summary["epochs_trained"])}
    accuracies, times = (
        [value for row in rows if (value := finite_or_none(row.get(column))) is not None]
        for column in ("val/acc", "time/epoch")
    )
    found = {"last": accuracies[-1] if accuracies else None, "best": max(accuracies, default=None)}
    return {**found, "done": len(rows), "seconds": statistics.median(times) if times else None}


def finite_or_none(value: Any) -> float | None:
    return float(value) if load.is_finite(value) else None


def with_state(run: RunState, end: JobEnd | None, now: float) -> RunState:
    """The run with its state, from its files, its lock and its sweep's outcome, the strongest evidence first."""
    if run.state:
        return replace(run, reason="")
    locked = is_locked(layout.RunFolder(run.path).lock)
    if locked:
        return replace(run, state="running", reason="", left=seconds_left(run, now))
    if end is not None and end.status in ENDED_BADLY and end.when >= run.touched:
        return replace(run, state=end.status, reason=end.reason)
    if run.reason:
        return replace(run, state="damaged")
    return replace(run, state="unfinished" if locked is None else "interrupted")


def is_locked(lock: Path) -> bool | None:
    """Whether a process holds the lock, by acquiring it without waiting; None where one may not write the file.

    It is released at once: 0.2 to 0.9 ms a try, and free right after a kill -9 of its holder (filelock 4.2.11); a run
    that starts in this moment waits for it.
    """
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return None


def seconds_left(run: RunState, now: float) -> float | None:
    """Seconds at the median pace of its epochs, less what has passed of the one that it is in."""
    if run.epochs is None or run.seconds is None or run.changed is None:
        return None
    begun = min(max(0.0, now - run.changed), run.seconds)
    return max(0.0, (run.epochs - run.done) * run.seconds - begun)


def rank(run: RunState) -> tuple[int, float, str, str, int]:
    best = run.best if run.state == "finished" and run.best else 0.0
    return STATES.index(run.state), -best, run.study, run.label, run.seed
