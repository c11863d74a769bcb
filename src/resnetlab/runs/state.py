"""What the files of one run say, read again only when they have changed."""

import csv
import json
import math
import os
import re
import stat
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnetlab.report.collect import grouped
from resnetlab.report.configurations import label
from resnetlab.runs.files import read_rows
from resnetlab.runs.load import Run, UnusableRun, is_number, read_manifest, read_summary, run_paths
from resnetlab.runs.summary import Row
from resnetlab.runs.sweep_records import PLAN, PlannedJob, read_plan, run_key, studies, sweep_folders, with_actual_runs

FILES = ("config.yaml", "manifest.json", "metrics.csv", "summary.json")
Stamps = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class RunFacts:
    """key: the run's folder as sweeps name it. ended: finished | diverged | "". reason: what is damaged. touched: when
    a file was last written, changed: when the last row was; seconds since 1970. Unknown is None."""

    run: Run
    key: str
    ended: str = ""
    reason: str = ""
    epochs: int | None = None
    done: int = 0
    last: float | None = None
    best: float | None = None
    seconds: float | None = None
    touched: float = 0.0
    changed: float | None = None


@dataclass
class FactsReader:
    """Reads runs; remembers them by the times and sizes of their files."""

    known: dict[Path, tuple[Stamps, RunFacts]] = field(default_factory=dict)

    def __call__(self, path: Path) -> RunFacts | None:
        """None where the folder has vanished."""
        found = stamps(path)
        if not found and not path.is_dir():
            self.known.pop(path, None)
            return None
        if path not in self.known or self.known[path][0] != found:
            self.known[path] = found, read(path, found)
        return self.known[path][1]


def stamps(path: Path) -> Stamps:
    """Of the run's files that are files: to read from a pipe or a device would not end."""
    found = {}
    for name in FILES:
        try:
            file = os.stat(path / name)
        except OSError:
            continue
        if stat.S_ISREG(file.st_mode):
            found[name] = file.st_mtime_ns, file.st_size
    return found


def read(path: Path, found: Stamps) -> RunFacts:
    """Never raises for what is in the files."""
    summary: dict[str, Any] = {}
    rows: list[Row] = []
    ended, reason = "", ""
    try:
        if "summary.json" in found:
            summary = read_summary(path)
            ended = "finished"
    except UnusableRun as error:
        ended = "diverged" if error.kind == "diverged" else ""
        reason = error.reason if error.kind == "unreadable" else ""  # or the summary has just vanished
    try:
        if "metrics.csv" in found and ended != "finished":
            rows = read_rows(path / "metrics.csv")
            rows = [row for row in rows if isinstance(row.get("epoch"), int)]
    except (OSError, ValueError, AttributeError, TypeError, csv.Error) as error:
        reason = reason or f"metrics.csv cannot be read ({type(error).__name__})"
    run = as_run(path, found, summary)
    times = {name: time / 1e9 for name, (time, _) in found.items()}
    return RunFacts(
        run,
        run_key(path.absolute()),
        ended,
        reason,
        touched=max(times.values(), default=0.0),
        changed=times.get("metrics.csv"),
        **last_metrics(run.summary, summary, rows),
    )


def last_metrics(chosen: Mapping[str, Any], summary: Mapping[str, Any], rows: list[Row]) -> dict[str, Any]:
    """From the summary of a finished run, else from the rows."""
    epochs = finite_or_none(chosen.get("epochs"))
    found: dict[str, Any] = {"epochs": None if epochs is None else int(epochs)}
    if summary:
        names = {"last": "final_val_acc", "best": "best_val_acc", "seconds": "seconds_per_epoch"}
        values = {name: finite_or_none(summary.get(key)) for name, key in names.items()}
        return {**found, **values, "done": int(summary["epochs_trained"])}
    accuracies = [value for row in rows if (value := finite_or_none(row.get("val/acc"))) is not None]
    times = [value for row in rows if (value := finite_or_none(row.get("time/epoch"))) is not None]
    found |= {"last": accuracies[-1] if accuracies else None, "best": max(accuracies, default=None)}
    return {**found, "done": len(rows), "seconds": statistics.median(times) if times else None}


def finite_or_none(value: Any) -> float | None:
    try:
        return float(value) if is_number(value) and math.isfinite(value) else None
    except OverflowError:  # JSON knows no largest number
        return None


def as_run(path: Path, found: Stamps, summary: Mapping[str, Any]) -> Run:
    """What the report's labels need; its summary holds the settings, which stand in config.yaml from the start."""
    chosen: dict[str, Any] = {}
    if "config.yaml" in found:
        with suppress(OSError, ValueError):
            chosen = settings((path / "config.yaml").read_text())
    whole = path.absolute()
    manifest = read_manifest(path) if "manifest.json" in found else {}
    seed = whole.name.removeprefix("seed=") if whole.name.startswith("seed=") else str(chosen.get("seed", ""))
    name = whole.parent.name if whole.name.startswith("seed=") else str(manifest.get("configuration", whole.name))
    study = summary.get("study") or chosen.get("study") or whole.parent.parent.name
    number_ = int(seed) if re.fullmatch(r"\d{1,18}", seed) else -1
    return Run(path, str(study), name, number_, {**chosen, **summary}, [], manifest)


def settings(text: str) -> dict[str, Any]:
    """The top-level values of a config.yaml, each group's option, and the subset. A YAML parser takes 30 times as long,
    and here are hundreds of files that OmegaConf wrote."""
    found: dict[str, Any] = {}
    group = ""
    for indent, key, value in re.findall(r"^(  )?(\w+):(?: (.*))?$", text, re.MULTILINE):
        if not indent:
            group = key
        if indent and key == "name":
            found[group] = scalar(value)
        elif indent and (group, key) == ("data", "limit"):
            found["subset"] = scalar(value)
        elif not indent and value:
            found[key] = scalar(value)
    return found


def scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip("'\"")


# file systems whose locks no other machine can hold
LOCAL = ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "tmpfs", "xfs", "zfs")


@dataclass(frozen=True)
class Locks:
    """A snapshot of the machine's locks.

    holders: {inode: [(device, process)]} of exclusive flocks, None where the system does not tell. mounts: {mount
    point: type of the file system}.
    """

    holders: dict[int, list[tuple[int, int]]] | None = None
    mounts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def look(cls) -> "Locks":
        try:
            holders = parse_locks(Path("/proc/locks").read_text())
            return cls(holders, parse_mounts(Path("/proc/self/mountinfo").read_text()))
        except OSError:
            return cls()

    def held(self, lock: Path) -> bool | None:
        """None where it cannot be told: another system than Linux, or a file system that machines share."""
        try:
            file = os.stat(lock)
            place = os.path.realpath(lock)
        except FileNotFoundError:
            return False
        except OSError:
            return None
        if self.holders is None:
            return None
        found = self.holders.get(file.st_ino, [])
        if any(device == file.st_dev for device, _ in found):
            return True
        if any(has_open(process, file) for _, process in found):
            return True
        return False if self.file_system(place) in LOCAL else None

    def file_system(self, place: str) -> str:
        above = [point for point in self.mounts if place.startswith(point.rstrip("/") + "/")]
        return self.mounts[max(above, key=len)] if above else ""


def parse_locks(text: str) -> dict[int, list[tuple[int, int]]]:
    """Of /proc/locks, whose lines are "1: FLOCK  ADVISORY  WRITE 5055 fe:00:2146742 0 EOF"; "1: -> ..." waits."""
    found: dict[int, list[tuple[int, int]]] = {}
    for words in map(str.split, text.splitlines()):
        if len(words) >= 6 and words[1] == "FLOCK" and words[3] == "WRITE" and words[5].count(":") == 2:
            major, minor, inode = words[5].split(":")
            device = os.makedev(int(major, 16), int(minor, 16))
            found.setdefault(int(inode), []).append((device, int(words[4])))
    return found


def parse_mounts(text: str) -> dict[str, str]:
    """Of /proc/self/mountinfo, whose lines are "22 27 0:21 / /proc rw,relatime - proc proc rw"; the later hides."""
    found = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")  # a blank is \\040
        found[point] = right.split()[0]
    return found


def has_open(process: int, file: os.stat_result) -> bool:
    """Btrfs and overlay name another device to stat() than to /proc/locks; the process's own files say which it is."""
    try:
        names = os.listdir(f"/proc/{process}/fd")
    except OSError:
        return False
    return any(is_same(f"/proc/{process}/fd/{name}", file) for name in names)


def is_same(path: str, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), file)
    except OSError:
        return False


# in the order of the table; of a run without a summary "unfinished" says that it cannot be told whether it is trained
STATES = ("running", "failed", "pruned", "interrupted", "unfinished", "damaged", "finished", "diverged")
ENDED_BADLY = ("failed", "pruned")


@dataclass(frozen=True)
class RunState:
    """One run. label: what tells its configuration from the others of its study. left: seconds, of a running one."""

    facts: RunFacts
    state: str
    label: str
    reason: str = ""
    left: float | None = None


@dataclass(frozen=True)
class RunStates:
    """All runs, sorted. waiting: jobs of sweeps whose runs have no folder yet."""

    runs: Sequence[RunState]
    waiting: Sequence[PlannedJob] = ()

    def counts(self) -> dict[str, int]:
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in STATES if found[state]}

    def left(self) -> float | None:
        """Seconds until what runs and what waits is done, if as many go on at once as do now; None if unknown."""
        running = [run for run in self.runs if run.state == "running"]
        known = [run for run in running if run.left is not None and run.facts.seconds is not None]
        if not known or len(known) < len(running):
            return None
        pace = sum(run.facts.seconds or 0.0 for run in known) / len(known)
        lefts = [run.left or 0.0 for run in known]
        busy = {run.facts.run.study for run in running}
        waiting = sum(job.epochs * pace for job in self.waiting if job.configuration[0] in busy)
        return max(*lefts, (sum(lefts) + waiting) / len(running), 0.0)


@dataclass
class StateReader:
    """Looks again and again, and reads only what has changed."""

    folders: Sequence[Path]
    reader: FactsReader = field(default_factory=FactsReader)
    known: dict[Path, tuple[int, Any]] = field(default_factory=dict)

    def look(self, now: float) -> RunStates:
        paths = run_paths(self.folders)
        facts = [found for path in paths if (found := self.reader(path)) is not None]
        sweeps = [sweep for study in studies(paths) for sweep in sweep_folders(study)]
        ends = self.ends(sweeps)
        met = {one.key for one in facts}
        planned = {job.run: job for sweep in sweeps for job in self.planned(sweep)}
        absent = [job for run, job in planned.items() if run not in met]
        facts += [without_folder(job) for job in absent if job.run in ends and ends[job.run][1] in ENDED_BADLY]
        labels, locks = labelled(facts), Locks.look()
        runs = [state(one, labels[one.run.path], locks, ends.get(one.key), now) for one in facts]
        return RunStates(sorted(runs, key=rank), [job for job in absent if job.run not in ends])

    def planned(self, sweep: Path) -> list[PlannedJob]:
        """Its jobs, with the runs that their outcomes name."""

        def end(name: str) -> str:
            return next(iter(self.remembered(sweep / name, end_at)), "")

        return with_actual_runs(self.remembered(sweep / PLAN, plan_at), end)

    def ends(self, sweeps: Iterable[Path]) -> dict[str, tuple[float, str, str]]:
        """{run: (when, status, reason)} of the newest outcome of each run."""
        found: dict[str, tuple[float, str, str]] = {}
        for sweep in sweeps:
            for path in sweep.glob("job-*.json"):
                for run, end in self.remembered(path, end_at).items():
                    found[run] = max(found.get(run, end), end)
        return found

    def remembered(self, path: Path, read: Any) -> Any:
        try:
            written = path.stat().st_mtime_ns
        except OSError:
            written = 0
        if path not in self.known or self.known[path][0] != written:
            self.known[path] = written, read(path)
        return self.known[path][1]


def without_folder(job: PlannedJob) -> RunFacts:
    """Of a run that failed before it had one."""
    study, name = job.configuration
    return RunFacts(Run(Path(job.run), study, name, job.seed, {}, [], {}), job.run, epochs=job.epochs)


def plan_at(path: Path) -> list[PlannedJob]:
    return read_plan(path.parent)


def end_at(path: Path) -> dict[str, tuple[float, str, str]]:
    try:
        when, outcome = path.stat().st_mtime, json.loads(path.read_text())
        folder, status, reason = (str(outcome[key]) for key in ("folder", "status", "reason"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {run_key(folder): (when, status, (reason.splitlines() or [""])[0])} if folder else {}


def labelled(facts: Sequence[RunFacts]) -> dict[Path, str]:
    """The report's labels, by run; the folder's name where a configuration has not said yet what it is."""
    told = [one.run for one in facts if one.run.summary]
    found = {run.path: c.label for c in label(grouped(told)) for run in c.runs}
    names = {(run.study, run.configuration): found[run.path] for run in told}
    runs = [one.run for one in facts]
    return {
        run.path: found.get(run.path) or names.get((run.study, run.configuration), run.configuration) for run in runs
    }


def state(facts: RunFacts, label: str, locks: Locks, end: tuple[float, str, str] | None, now: float) -> RunState:
    """What the run's files, its lock and the sweep that it was in say together, the strongest first."""
    if facts.ended:
        return RunState(facts, facts.ended, label)
    held = locks.held(facts.run.path / ".lock")
    if held:
        return RunState(facts, "running", label, left=seconds_left(facts, now))
    if end is not None and end[1] in ENDED_BADLY and end[0] >= facts.touched:
        return RunState(facts, end[1], label, end[2])
    if facts.reason:
        return RunState(facts, "damaged", label, facts.reason)
    return RunState(facts, "unfinished" if held is None else "interrupted", label)


def seconds_left(facts: RunFacts, now: float) -> float | None:
    """At the median pace of its epochs, less what has passed of the one that it is in."""
    if facts.epochs is None or facts.seconds is None or facts.changed is None:
        return None
    begun = min(max(0.0, now - facts.changed), facts.seconds)
    return max(0.0, (facts.epochs - facts.done) * facts.seconds - begun)


def rank(run: RunState) -> tuple[int, float, str, str, int]:
    best = run.facts.best if run.state == "finished" else None
    return STATES.index(run.state), -(best or 0.0), run.facts.run.study, run.label, run.facts.run.seed
