"""Runs grouped by configuration, and how a group differs from the published configuration that a claim is about."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from resnetlab.published.claims.data import CLAIMS_FILE, Part, Where
from resnetlab.published.claims.metrics import may_be_unreached, value_of
from resnetlab.published.configuration import configuration
from resnetlab.published.preset_matching import REDUCING, UNSEEN, matching_presets
from resnetlab.published.results import one, rows
from resnetlab.report.groups import Collection, format_value
from resnetlab.runs.load import Run
from resnetlab.runs.summary import CHOICES, SETTINGS

TOP = (*CHOICES, *(key for key in SETTINGS if key not in ("study", "seed")))
DEFAULTS, SCHEDULE_DEFAULTS = CLAIMS_FILE["defaults"], CLAIMS_FILE["schedule_defaults"]
SMALLER = ("data", *REDUCING)
BUDGET = ("epochs", "schedule.length", "schedule.stretch")  # which each publication has its own of
RECIPE = ("optimizer", "schedule", "regularization")


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in their seed alone, each seed once. preset: the published configuration that they repeat."""

    settings: Mapping[str, Any]
    runs: tuple[Run, ...]
    preset: str | None

    def values(self, metric: str) -> list[float]:
        """The metric of the runs that have it."""
        found = (value_of(run, metric) for run in self.runs)
        return [value for value in found if value is not None]

    def count_informative(self, metric: str) -> int:
        """Number of runs that have the metric, or of all where not to reach it is a result."""
        return len(self.runs) if may_be_unreached(metric) else len(self.values(metric))

    def setting(self, key: str) -> Any:
        """The setting's value; first_knot: the first milestone of piecewise_linear, 0 if the rate falls at once."""
        if key == "preset":
            return self.preset
        if key == "first_knot":
            points = self.settings.get("schedule.milestones", [[20]])
            return points[0][0] if self.settings["schedule"] == "piecewise_linear" else None
        return self.settings.get(key, DEFAULTS.get(key))

    def by_conditions(self) -> dict[tuple[str, ...], "RunGroup"]:
        """The runs apart by what costs depend on: device, threads, and validating twice."""
        found: dict[tuple[str, ...], list[Run]] = {}
        for run in self.runs:
            twice = run.manifest["differs_from_defaults"].get("recalibrate_bn", False)
            key = (str(run.manifest.get("device")), str(run.manifest.get("threads")), str(twice))
            found.setdefault(key, []).append(run)
        return {key: replace(self, runs=tuple(runs)) for key, runs in found.items()}


def group_runs(collection: Collection) -> list[RunGroup]:
    """Groups runs by configuration, whatever their study; of a seed that is there twice, the run with more columns
    counts. Runs without a manifest are in none, because their configuration is not known."""
    groups: dict[str, dict[int, Run]] = {}
    for run in collection.runs:
        if run.manifest:
            key = json.dumps(settings(run.summary, run.manifest["differs_from_defaults"]), sort_keys=True, default=str)
            group = groups.setdefault(key, {})
            if run.seed not in group or len(run.rows[0]) > len(group[run.seed].rows[0]):
                group[run.seed] = run
    found = []
    for group in groups.values():
        first, *_ = runs = tuple(group[seed] for seed in sorted(group))
        identity = first.manifest["differs_from_defaults"]
        found.append(RunGroup(settings(first.summary, identity), runs, next(iter(matching_presets(identity)), None)))
    return found


def settings(used: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in one form, so that equal training has equal settings.

    used: the top-level keys as they were used; identity: what differs from the defaults. No decay is a decoupled one of
    0, a penalty and a decoupled decay are two numbers, and a shift that is not applied is none.
    """
    found = {key: used.get(key) for key in TOP} | {"averaging": used.get("averaging") or "none"}
    found |= {key: value for key, value in identity.items() if key not in (*TOP, *UNSEEN)}
    found |= {"wd": found["wd"] or 0.0, "l2": found["l2"] or 0.0}
    if found["regularization"] != "coupled":
        found["regularization"] = "decoupled"
    if found.get("data.augment") is False:
        found["shift"] = None
    return {key: value for key, value in found.items() if value is not None and value != DEFAULTS.get(key)}


def matches(group: RunGroup, where: Where) -> bool:
    """Whether its settings are as asked."""
    for key, asked in where.items():
        value = group.setting(key)
        if isinstance(asked, Mapping):
            if not (isinstance(value, int | float) and asked.get("min", value) <= value <= asked.get("max", value)):
                return False
        elif value not in (asked if isinstance(asked, list) else [asked]):
            return False
    return True


@dataclass(frozen=True)
class Differences:
    """How runs differ from the published ones, as phrases. reduced: smaller networks, data, images or budgets.

    other_recipe: so that they say nothing of the claim.
    """

    reduced: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    other_recipe: bool = False

    @property
    def none(self) -> bool:
        return not self.reduced and not self.other

    def __str__(self) -> str:
        parts = [("reduced: ", self.reduced), ("other than published: ", self.other)]
        return "; ".join(head + ", ".join(texts) for head, texts in parts if texts)


def differences(groups: Iterable[RunGroup], part: Part, free_keys: Iterable[str]) -> Differences:
    """Differences from the settings of the part's context, but for the keys that the claim leaves free.

    A configuration that its source published, or that the part names, differs only where it is another network or data
    set than the context's. Another recipe says nothing of the claim, but for a constant rate in place of a piecewise
    one, which begins with it; so does a penalty in place of a decoupled decay.
    """
    context, free = context_settings(part.context), set(free_keys)
    source = one(CLAIMS_FILE["context"][part.context]["preset"]).post
    reduced: dict[str, None] = {}
    other: dict[str, None] = {}
    other_recipe = False
    for group in groups:
        printed = group.preset is not None and (group.preset in part.named_presets or one(group.preset).post == source)
        for key in sorted(k for k in {*group.settings, *context} if not is_free(k, free, group)):
            mine, theirs = (side.get(key, DEFAULTS.get(key)) for side in (group.settings, context))
            if mine == theirs or (key == "optimizer" and {mine, theirs} == {"adam", "adamw"}):  # one algorithm
                continue
            longer = key == "epochs" and mine is not None and mine > theirs
            if key in SMALLER and not longer:
                if key not in BUDGET or not printed:
                    reduced[describe_setting(key, mine)] = None
            elif not printed:
                other[describe_setting(key, mine)] = None
                other_recipe |= key in RECIPE and (mine, str(theirs).split("_")[0]) != ("constant", "piecewise")
        if not printed and not free & {"wd", "l2"}:
            other_recipe |= {decays(group.settings), decays(context)} == {"wd", "l2"}
    return Differences(tuple(reduced), tuple(other), other_recipe)


@cache
def context_settings(context: str) -> dict[str, Any]:
    """The settings of the context's preset, with the lab's momentum and shift where the published row has none."""
    further = dict(CLAIMS_FILE["context"][context])
    keys = configuration(one(further.pop("preset"))) | further
    keys = {"momentum": None if keys["schedule"] == "one_cycle" else 0.9, "shift": 0.07} | keys
    return {key: value for key, value in settings(keys, keys).items() if value != SCHEDULE_DEFAULTS.get(key)}


def decays(found: Mapping[str, Any]) -> str:
    """Which of the two numbers are above 0: "l2", "wd", "l2+wd" or nothing."""
    return "+".join(key for key in ("l2", "wd") if found.get(key))


def distance(groups: Iterable[RunGroup], context: str) -> int:
    """Number of settings that are not the context's, free keys included."""
    theirs = context_settings(context)
    return sum(group.settings.get(key) != theirs.get(key) for group in groups for key in {*group.settings, *theirs})


def is_free(key: str, free: set[str], group: RunGroup) -> bool:
    """Whether a claim leaves the key free, or the choice that it is an option of; an unused shift is no difference.

    Free milestones may be any published list.
    """
    if key == "schedule.milestones" and group.setting(key) not in (None, *published_milestones()):
        return False
    unused = key == "shift" and group.setting("data.augment") is False
    choice = "averaging" if key == "ema_momentum" else key.split(".")[0]
    return key in free or key == "precision" or unused or (choice != key and choice in free)


@cache
def published_milestones() -> list[Any]:
    tables = (configuration(row) for row in rows() if row.post != "fastai")  # whose schedules have none
    return [keys["schedule.milestones"] for keys in tables if "schedule.milestones" in keys]


def describe_setting(key: str, value: Any) -> str:
    """A setting as a phrase: "resnet20v2", "20 epochs", "data.resolution 16"."""
    if key in ("model", "data", "schedule", "optimizer"):
        return str(value)
    general = f"{key} {'default' if value is None else format_value(value)}"
    return {"epochs": f"{value} epochs", "schedule.milestones": "other milestones"}.get(key, general)
