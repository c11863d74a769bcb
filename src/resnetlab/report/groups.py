"""Runs below folders, grouped by study and configuration, each configuration with a short label."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from resnetlab.report.derive import add_derived_metrics
from resnetlab.report.paired import Answers, answers_of
from resnetlab.report.statistics import MeanInterval, mean_interval
from resnetlab.runs.load import Run, UnusableRun, read_run, run_paths
from resnetlab.runs.summary import CHOICES, SETTINGS
from resnetlab.runs.sweep_records import planned_seeds

Key = tuple[str, str, str]
NOTHING = "\N{EN DASH}"  # what is not known, or not used
# keys of the summary; those that depend on a choice's default (wd 0.2) stand there as they were used;
# subset: the number of training images if the runs saw only the first of them, else None
TOP_LEVEL = (*(key for key in SETTINGS if key not in ("study", "seed")), "subset")
SHOWN_APART = ("data.limit", "data.resolution", "recalibrate_bn", "flip_tta")  # not in labels: reduced data are marked
THRESHOLD = re.compile(r"epoch_to_(0\.\d*[1-9]\d*)")
SHORT = {"batch_size": "batch", "ema_momentum": "EMA momentum", "recalibrate_bn": "recalibrated"}


@dataclass(frozen=True)
class Configuration:
    """The runs of one study that differ in their seed alone.

    identity: what differs from the lab's defaults, from the manifest; None where no run has one. label: short. planned:
    the number of seeds that sweeps were to train, 0 where none is known. rank: in its study, from 0, the best mean of
    best_val_acc first; its order in every table and its colour in every figure. answers: if runs keep predictions.
    """

    study: str
    name: str
    runs: tuple[Run, ...]
    identity: Mapping[str, Any] | None
    label: str = ""
    planned: int = 0
    rank: int = 0
    answers: Answers = field(default=Answers(), compare=False)

    @property
    def key(self) -> Key:
        """Unique in a report."""
        return self.study, self.name, self.label

    @property
    def n(self) -> int:
        return len(self.runs)

    @property
    def reduced_data(self) -> str:
        """For example "subset of 5000 images, 16x16 pixels"; "" if the runs saw all of the set as it is."""
        images, side = self.setting("subset"), self.setting("data.resolution")
        parts = [f"subset of {images} images"] if images is not None else []
        return ", ".join([*parts, *([f"{side}x{side} pixels"] if side else [])])

    def values(self, metric: str) -> list[float]:
        """The metric of the runs that have it, in the order of their seeds."""
        return [run.metrics[metric] for run in self.runs if metric in run.metrics]

    def interval(self, metric: str) -> MeanInterval | None:
        """Mean, sd and interval over the runs that have it; of an ensemble's metric its one value."""
        if metric in self.answers.metrics:
            return MeanInterval(len(self.answers.right), self.answers.metrics[metric])
        return interval_of(metric, self.values(metric))

    def mean(self, metric: str) -> float:
        """Mean of the runs that have the metric; NaN where none has."""
        found = self.interval(metric)
        return float("nan") if found is None else found.mean

    def by_epoch(self, column: str) -> dict[float, list[float]]:
        """The column's values of all runs that have the epoch, in the order of the epochs."""
        epochs: dict[float, list[float]] = {}
        for run in self.runs:
            for row in run.rows:
                if column in row:
                    epochs.setdefault(row["epoch"], []).append(row[column])
        return dict(sorted(epochs.items()))

    def crossing(self, threshold: str) -> float | None:
        """The first epoch at which the mean of all runs reaches the validation accuracy; None: it does not."""
        means = {e: fmean(values) for e, values in self.by_epoch("val/acc").items() if len(values) == self.n}
        return next((epoch for epoch, mean in means.items() if mean >= float(threshold)), None)

    def setting(self, key: str) -> Any:
        """The value that was used; None for what the manifest leaves out as a default and the summary does not name."""
        if key in CHOICES or key in TOP_LEVEL:
            return self.runs[0].summary.get(key)
        return (self.identity or {}).get(key)

    def setting_text(self, key: str) -> str:
        value = self.setting(key)
        return NOTHING if value is None else format_value(value)


def interval_of(metric: str, values: Sequence[float]) -> MeanInterval | None:
    """mean_interval, which ends where the metric does: an accuracy is in 0 to 1."""
    found = mean_interval(values)
    if found is None or found.low is None or found.high is None:
        return found
    low, high = bounds(metric)
    return replace(found, low=max(low, found.low), high=min(high, found.high))


def bounds(metric: str) -> tuple[float, float]:
    """The least and the greatest value that the metric can have."""
    if metric in ("final_penalty", "best_minus_final", "best_minus_test"):  # differences
        return -math.inf, math.inf
    if metric == "gpu_load":  # in percent
        return 0.0, 100.0
    return float(metric.startswith(("epoch_to_", "best_epoch"))), 1.0 if "acc" in metric else math.inf


class SkippedRun(NamedTuple):
    """A run that is in no statistic. kind: diverged | unfinished | unreadable | repeated."""

    path: Path
    kind: str
    reason: str


@dataclass
class Collection:
    """All runs found. thresholds: "0.92", "0.93", ... in the order in which the runs name them, the first decides."""

    folders: Sequence[Path]
    configurations: list[Configuration] = field(default_factory=list)
    skipped: list[SkippedRun] = field(default_factory=list)
    thresholds: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """Of all configurations, in the order of their names, which no result changes."""
        by_name = sorted(self.configurations, key=lambda c: (c.study, c.name))
        return [run for configuration in by_name for run in configuration.runs]

    @property
    def studies(self) -> dict[str, list[Configuration]]:
        return by_study(self.configurations)


def by_study(configurations: Iterable[Configuration]) -> dict[str, list[Configuration]]:
    found: dict[str, list[Configuration]] = {}
    for configuration in configurations:
        found.setdefault(configuration.study, []).append(configuration)
    return found


def collect(folders: Sequence[Path]) -> Collection:
    """Read all runs below the folders; writes nothing."""
    collection = Collection(folders)
    runs: list[Run] = []
    for path in run_paths(folders):
        try:
            runs.append(read_run(path))
        except UnusableRun as error:
            collection.skipped.append(SkippedRun(path, error.kind, error.reason))
    runs = list(drop_duplicates(runs, collection.skipped))
    collection.thresholds = thresholds(runs)
    for run in runs:
        add_derived_metrics(run, collection.thresholds)
    planned = planned_seeds(run.path for run in runs)
    for c in with_labels(group_by_configuration(runs)):
        seeds = planned.get((c.study, c.name))
        count = len(seeds | {run.seed for run in c.runs}) if seeds else 0
        collection.configurations.append(replace(c, planned=count, answers=answers_of(c.runs)))
    collection.configurations = [
        replace(c, rank=rank) for study in collection.studies.values() for rank, c in enumerate(best_first(study))
    ]
    return collection


def best_first(configurations: Iterable[Configuration], metric: str = "best_val_acc") -> list[Configuration]:
    """Sorted by the mean of an accuracy, those without one last."""
    return sorted(configurations, key=lambda c: -c.mean(metric) if c.values(metric) else 0.0)


def drop_duplicates(runs: Iterable[Run], skipped: list[SkippedRun]) -> Iterator[Run]:
    """Yield the first copy of each run, skip the others: the same random numbers again are no new evidence."""
    seen: dict[tuple[str, str, str, int], Path] = {}
    for run in sorted(runs, key=lambda run: not run.manifest):  # one without a manifest may be any one's copy
        first = seen.setdefault((run.study, run.configuration, identity_text(run), run.seed), run.path)
        seen.setdefault((run.study, run.configuration, "", run.seed), run.path)
        if first is run.path:
            yield run
        else:
            reason = f"study, configuration and seed as in {first}, counted once"
            skipped.append(SkippedRun(run.path, "repeated", reason))


def group_by_configuration(runs: Iterable[Run]) -> list[Configuration]:
    """Configurations without labels: runs of one study, one folder's name (with its hash) and one identity."""
    groups: dict[tuple[str, str], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run.study, run.configuration][identity_text(run)].append(run)
    found = []
    for (study, name), identities in sorted(groups.items()):
        if len(identities) == 2 and "" in identities:  # runs without a manifest go with the others of their folder
            without = identities.pop("")
            next(iter(identities.values())).extend(without)
        for runs_of_one in identities.values():
            identity = next((r.manifest["differs_from_defaults"] for r in runs_of_one if r.manifest), None)
            ordered = sorted(runs_of_one, key=lambda run: run.seed)
            found.append(Configuration(study, name, tuple(ordered), identity))
    return found


def identity_text(run: Run) -> str:
    return json.dumps(run.manifest["differs_from_defaults"], sort_keys=True, default=str) if run.manifest else ""


def thresholds(runs: Iterable[Run]) -> list[str]:
    """The numbers of the summaries' epoch_to_ keys, the one that most runs name first in front."""
    votes = Counter[str]()
    for run in runs:
        names = [found[1] for key in run.summary if (found := THRESHOLD.fullmatch(key))]
        for place, name in enumerate(names):
            votes[name] += 1 if place else 1000
    return [name for name, _ in votes.most_common()]


def groups_along(configurations: Sequence[Configuration], key: str) -> list[list[Configuration]]:
    """Groups of two or more that differ in that setting alone, each in its order; runs without a manifest in none."""
    groups: dict[str, list[Configuration]] = defaultdict(list)
    for c in configurations:
        if c.identity is not None and c.setting(key) is not None:
            rest = sorted((k, repr(v)) for k, v in c.identity.items() if k != key)
            groups[repr(rest)].append(c)
    return [sorted(group, key=lambda c: c.setting(key)) for group in groups.values() if len(group) > 1]


def differing_keys(a: Configuration, b: Configuration) -> set[str] | None:
    """The keys of the identity with different values; None where an identity is not known."""
    if a.identity is None or b.identity is None:
        return None
    keys = {*a.identity, *b.identity}
    return {key for key in keys if a.identity.get(key) != b.identity.get(key)}


def with_labels(configurations: Iterable[Configuration]) -> list[Configuration]:
    """Label study by study: the settings that are not equal in all, if need be the hash or a number."""
    return [labelled for study in by_study(configurations).values() for labelled in label_study(study)]


def label_study(configurations: Sequence[Configuration]) -> list[Configuration]:
    others = dict.fromkeys(key for c in configurations for key in c.identity or {})
    keys = [*CHOICES, *TOP_LEVEL, *(key for key in others if key not in (*CHOICES, *TOP_LEVEL, *SHOWN_APART))]
    varied = [key for key in keys if len({format_value(c.setting(key)) for c in configurations}) > 1]
    if len(configurations) == 1:
        varied = ["model", "optimizer", "schedule", "regularization"]
    labels = [", ".join(filter(None, (describe_setting(c, key) for key in varied))) for c in configurations]
    named = [label or "defaults" * (c.identity is not None) for label, c in zip(labels, configurations, strict=True)]
    return make_unique([replace(c, label=label) for c, label in zip(configurations, named, strict=True)])


def make_unique(named: Sequence[Configuration]) -> list[Configuration]:
    """Append the hash to labels that are empty or shared, and then a number to those that are still shared."""
    shared = Counter(c.label for c in named)
    labels = [f"{c.label} {c.name[-8:]}".strip() if shared[c.label] > 1 or not c.label else c.label for c in named]
    labels = [f"{x} #{labels[: i + 1].count(x)}" if labels.count(x) > 1 else x for i, x in enumerate(labels)]
    return [replace(c, label=label) for c, label in zip(named, labels, strict=True)]


def short_labels(configurations: Sequence[Configuration], most: int) -> dict[Key, str]:
    """Labels of at most so many characters: what most share goes first, as "...", unless two would be the same."""
    split = {c.key: re.split(r", (?=[A-Za-z])", c.label) for c in configurations}
    shared, found = Counter(part for parts in split.values() for part in parts), dict[Key, str]()
    for key, parts in split.items():
        kept = [*parts]
        while len(kept) > 1 and len(", ".join(kept)) > most:
            kept.remove(max(reversed(kept), key=shared.__getitem__))
        found[key] = ", ".join(kept) + ", ..." * (kept != parts)
    counts = Counter(found.values())
    return {c.key: found[c.key] if counts[found[c.key]] == 1 else c.label for c in configurations}


def describe_setting(configuration: Configuration, key: str) -> str:
    """For example "wd 0.3", "60 epochs", "cosine"; "" for what is not used."""
    value = configuration.setting(key)
    if key in CHOICES:
        if value in (None, "none"):
            return "" if key == "averaging" else f"no {key}"
        return format_value(value)
    if value is None or key == "subset":  # a subset is marked wherever the label stands
        return ""
    if key == "epochs":
        return f"{format_value(value)} epochs"
    return f"{SHORT.get(key, key.split('.')[-1])} {format_value(value)}"


def format_value(value: Any) -> str:
    """A setting as a person writes it: 0.3, true, cosine."""
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
