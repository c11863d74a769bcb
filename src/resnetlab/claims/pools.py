"""Runs of one configuration, whatever study they are from, and whether it is the one that is asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from resnetlab.claims.data import Where
from resnetlab.claims.figures import figure, reached
from resnetlab.published.match import SILENT, matching_preset
from resnetlab.report.groups import Collection
from resnetlab.runs.load import Run

__all__ = ["DEFAULTS", "Pool", "fits", "pooled", "settings"]

TOP = (
    *("model", "data", "optimizer", "schedule", "regularization", "averaging"),
    *("epochs", "batch_size", "lr", "wd", "l2", "momentum", "ema_momentum", "shift"),
)
# what a setting is that no manifest names, for those that claims speak of
DEFAULTS: dict[str, Any] = {
    "averaging": "none",
    "data.augment": True,
    "data.normalize": "mean_image",
    "data.split": "official",
    "model.norm": "batch",
    "model.shortcut_kernel": 1,
    "model.stem": "cifar",
    "precision": "32-true",
    "schedule.cycle_momentum": True,
    "schedule.highest_momentum": 0.95,
    "schedule.lowest_momentum": 0.85,
    "schedule.shape": "half",
}
UNSEEN = {*SILENT} - {"precision"}  # change no figure of a run but its costs; of the precision claims speak


@dataclass(frozen=True)
class Pool:
    """Runs that differ in their seed alone, each seed once. preset: the published configuration that it repeats."""

    settings: Mapping[str, Any]
    runs: tuple[Run, ...]
    preset: str | None

    def values(self, name: str) -> list[float]:
        """The figure in the runs that have it."""
        found = (figure(run, name) for run in self.runs)
        return [value for value in found if value is not None]

    def together(self, first: str, second: str) -> list[tuple[float, float]]:
        """Both figures of each run that has both."""
        found = ((figure(run, first), figure(run, second)) for run in self.runs)
        return [(a, b) for a, b in found if a is not None and b is not None]

    def looked_at(self, name: str) -> int:
        """How many runs could tell the figure: those that have it, or all where not to reach it is a result."""
        return len(self.runs) if reached(name) else len(self.values(name))

    def setting(self, key: str) -> Any:
        """first_knot is the first epoch of a piecewise linear schedule's milestones: 0 if the rate falls at once."""
        if key == "preset":
            return self.preset
        if key == "first_knot":
            points = self.settings.get("schedule.milestones", [[20]])
            return points[0][0] if self.settings["schedule"] == "piecewise_linear" else None
        return self.settings.get(key, DEFAULTS.get(key))

    @property
    def loads(self) -> set[tuple[str, ...]]:
        """On what its runs ran, and what they did beside training: what costs depend on."""
        return {load(run) for run in self.runs}

    def under(self, conditions: tuple[str, ...]) -> "Pool":
        """The runs of that load alone."""
        return replace(self, runs=tuple(run for run in self.runs if load(run) == conditions))


def load(run: Run) -> tuple[str, ...]:
    validations = run.manifest["differs_from_defaults"].get("recalibrate_bn", False)
    return str(run.manifest.get("device")), str(run.manifest.get("threads")), str(validations)


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


def pooled(collection: Collection) -> list[Pool]:
    """The runs by configuration; of a configuration and seed that is there twice, the one with more columns counts.

    Runs without a manifest are in none, because what they are is not known.
    """
    groups: dict[str, dict[int, Run]] = {}
    for run in collection.runs:
        if run.manifest:
            key = json.dumps(settings(run.summary, run.manifest["differs_from_defaults"]), sort_keys=True, default=str)
            group = groups.setdefault(key, {})
            if run.seed not in group or len(run.rows[0]) > len(group[run.seed].rows[0]):
                group[run.seed] = run
    return [pool(sorted(group.values(), key=lambda run: run.seed)) for group in groups.values()]


def pool(runs: Sequence[Run]) -> Pool:
    identity = runs[0].manifest["differs_from_defaults"]
    return Pool(settings(runs[0].summary, identity), tuple(runs), matching_preset(identity))


def fits(pool: Pool, where: Where) -> bool:
    """Whether its settings are as asked."""
    return all(_fits(pool.setting(key), wanted) for key, wanted in where.items())


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        number = isinstance(value, int | float)
        return number and wanted.get("min", value) <= value <= wanted.get("max", value)
    return value in wanted if isinstance(wanted, list) else value == wanted
