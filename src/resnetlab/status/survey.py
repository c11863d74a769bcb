"""The state of every run below some folders at one moment."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnetlab.report.asked import PLAN, Planned, plan, renamed, run_key, studies, sweep_folders
from resnetlab.report.collect import grouped, run_paths
from resnetlab.report.configurations import label
from resnetlab.report.runs import Run
from resnetlab.status.facts import Facts, Reader
from resnetlab.status.locks import Locks

__all__ = ["STATES", "State", "Survey", "Surveyor"]

# in the order of the table; of a run without a summary "unfinished" says that it cannot be told whether it is trained
STATES = ("running", "failed", "pruned", "interrupted", "unfinished", "damaged", "finished", "diverged")
ENDED_BADLY = ("failed", "pruned")


@dataclass(frozen=True)
class State:
    """One run. label: what tells its configuration from the others of its study. left: seconds, of a running one."""

    facts: Facts
    state: str
    label: str
    reason: str = ""
    left: float | None = None


@dataclass(frozen=True)
class Survey:
    """All runs, sorted. waiting: jobs of sweeps whose runs have no folder yet."""

    runs: Sequence[State]
    waiting: Sequence[Planned] = ()

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
class Surveyor:
    """Looks again and again, and reads only what has changed."""

    folders: Sequence[Path]
    reader: Reader = field(default_factory=Reader)
    known: dict[Path, tuple[int, Any]] = field(default_factory=dict)

    def look(self, now: float) -> Survey:
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
        return Survey(sorted(runs, key=rank), [job for job in absent if job.run not in ends])

    def planned(self, sweep: Path) -> list[Planned]:
        """Its jobs, with the runs that their outcomes name."""

        def end(name: str) -> str:
            return next(iter(self.remembered(sweep / name, end_at)), "")

        return renamed(self.remembered(sweep / PLAN, plan_at), end)

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


def without_folder(job: Planned) -> Facts:
    """Of a run that failed before it had one."""
    study, name = job.configuration
    return Facts(Run(Path(job.run), study, name, job.seed, {}, [], {}), job.run, epochs=job.epochs)


def plan_at(path: Path) -> list[Planned]:
    return plan(path.parent)


def end_at(path: Path) -> dict[str, tuple[float, str, str]]:
    try:
        when, outcome = path.stat().st_mtime, json.loads(path.read_text())
        folder, status, reason = (str(outcome[key]) for key in ("folder", "status", "reason"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {run_key(folder): (when, status, (reason.splitlines() or [""])[0])} if folder else {}


def labelled(facts: Sequence[Facts]) -> dict[Path, str]:
    """The report's labels, by run; the folder's name where a configuration has not said yet what it is."""
    told = [one.run for one in facts if one.run.summary]
    found = {run.path: c.label for c in label(grouped(told)) for run in c.runs}
    names = {(run.study, run.configuration): found[run.path] for run in told}
    runs = [one.run for one in facts]
    return {
        run.path: found.get(run.path) or names.get((run.study, run.configuration), run.configuration) for run in runs
    }


def state(facts: Facts, label: str, locks: Locks, end: tuple[float, str, str] | None, now: float) -> State:
    """What the run's files, its lock and the sweep that it was in say together, the strongest first."""
    if facts.ended:
        return State(facts, facts.ended, label)
    held = locks.held(facts.run.path / ".lock")
    if held:
        return State(facts, "running", label, left=seconds_left(facts, now))
    if end is not None and end[1] in ENDED_BADLY and end[0] >= facts.touched:
        return State(facts, end[1], label, end[2])
    if facts.reason:
        return State(facts, "damaged", label, facts.reason)
    return State(facts, "unfinished" if held is None else "interrupted", label)


def seconds_left(facts: Facts, now: float) -> float | None:
    """At the median pace of its epochs, less what has passed of the one that it is in."""
    if facts.epochs is None or facts.seconds is None or facts.changed is None:
        return None
    begun = min(max(0.0, now - facts.changed), facts.seconds)
    return max(0.0, (facts.epochs - facts.done) * facts.seconds - begun)


def rank(run: State) -> tuple[int, float, str, str, int]:
    best = run.facts.best if run.state == "finished" else None
    return STATES.index(run.state), -(best or 0.0), run.facts.run.study, run.label, run.facts.run.seed
