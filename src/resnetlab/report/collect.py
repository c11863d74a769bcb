"""Finds the runs below folders, and groups those that can be used by study and configuration."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from resnetlab.report.configurations import Configuration, label
from resnetlab.report.derive import derive
from resnetlab.runs.load import Run, UnusableRun, read_run, run_paths
from resnetlab.runs.sweep_records import planned_seeds

__all__ = ["Collection", "Unused", "collect", "grouped"]


@dataclass(frozen=True)
class Unused:
    """A run that is in no figure. kind: diverged | unfinished | unreadable | repeated."""

    path: Path
    kind: str
    reason: str


@dataclass
class Collection:
    """What was found. thresholds: "0.92", "0.93", ... in the order in which the runs name them, the first decides."""

    folders: Sequence[Path]
    configurations: list[Configuration] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    thresholds: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        return [run for configuration in self.configurations for run in configuration.runs]

    @property
    def studies(self) -> dict[str, list[Configuration]]:
        found: dict[str, list[Configuration]] = defaultdict(list)
        for configuration in self.configurations:
            found[configuration.study].append(configuration)
        return dict(found)


def collect(folders: Sequence[Path]) -> Collection:
    """Everything that can be known of the runs below `folders`; writes nothing."""
    collection = Collection(folders)
    runs: list[Run] = []
    for path in run_paths(folders):
        try:
            runs.append(read_run(path))
        except UnusableRun as error:
            collection.unused.append(Unused(path, error.kind, error.reason))
        except OverflowError:
            collection.unused.append(Unused(path, "unreadable", "a number in it is too large for any computer"))
    runs = list(once_each(runs, collection.unused))
    collection.thresholds = thresholds(runs)
    for run in runs:
        derive(run, collection.thresholds)
    asked = planned_seeds(run.path for run in runs)
    collection.configurations = [with_asked(c, asked.get((c.study, c.name), set())) for c in label(grouped(runs))]
    return collection


def with_asked(configuration: Configuration, seeds: Set[int]) -> Configuration:
    """With the number of seeds that sweeps asked for or that are there."""
    return replace(configuration, asked=len(seeds | {run.seed for run in configuration.runs}) if seeds else 0)


def once_each(runs: Iterable[Run], unused: list[Unused]) -> Iterator[Run]:
    """A seed counts once: the second copy of a run (the same code, the same random numbers) is no new evidence."""
    seen: dict[tuple[str, str, str, int], Path] = {}
    for run in runs:
        key = (run.study, run.configuration, content(run), run.seed)
        first = seen.setdefault(key, run.path)
        if first is run.path:
            yield run
        else:
            unused.append(Unused(run.path, "repeated", f"study, configuration and seed as in {first}, counted once"))


def grouped(runs: Iterable[Run]) -> list[Configuration]:
    """One entry a study and configuration: the folder's name with its hash, and what the manifest says it holds."""
    groups: dict[tuple[str, str], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run.study, run.configuration][content(run)].append(run)
    found = []
    for (study, name), contents in sorted(groups.items()):
        if len(contents) == 2 and "" in contents:  # runs without a manifest go with the others of their folder
            silent = contents.pop("")
            next(iter(contents.values())).extend(silent)
        for runs_of_one in contents.values():
            identity = next((r.manifest["differs_from_defaults"] for r in runs_of_one if r.manifest), None)
            ordered = sorted(runs_of_one, key=lambda run: run.seed)
            found.append(Configuration(study, name, tuple(ordered), identity))
    return found


def content(run: Run) -> str:
    return json.dumps(run.manifest["differs_from_defaults"], sort_keys=True, default=str) if run.manifest else ""


def thresholds(runs: Iterable[Run]) -> list[str]:
    """The numbers of the summaries' epoch_to_ keys, the one that most runs name first in front."""
    votes: dict[str, int] = defaultdict(int)
    for run in runs:
        names = [key.removeprefix("epoch_to_") for key in run.summary if key.startswith("epoch_to_")]
        for place, name in enumerate(name for name in names if is_accuracy(name)):
            votes[name] += 1 if place else 1000
    return sorted(votes, key=lambda name: -votes[name])


def is_accuracy(name: str) -> bool:
    try:
        return 0 < float(name) < 1
    except ValueError:
        return False
