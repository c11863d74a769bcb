"""Runs of one configuration, whatever study they are from, and how far a configuration is from a published one."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnetlab.claims.data import Where, homes
from resnetlab.claims.figures import figure
from resnetlab.published.match import matching_preset
from resnetlab.report.collect import Collection as Collected
from resnetlab.report.configurations import plain
from resnetlab.report.runs import Run

__all__ = ["DEFAULTS", "Departures", "Pool", "departures", "fits", "pooled", "same_network", "settings"]

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
REDUCING = ("model", "data", "model.depth", "data.limit", "data.resolution", "epochs", "schedule.stretch")
RECIPE = ("optimizer", "schedule", "regularization")
SAME = ({"adam", "adamw"},)  # one algorithm, here and in Keras
SILENT = ("recalibrate_bn", "threads")  # change no figure of a run


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

    def setting(self, key: str) -> Any:
        """first_knot is the first epoch of a piecewise linear schedule's milestones: 0 if the rate falls at once."""
        if key == "preset":
            return self.preset
        if key == "first_knot":
            points = self.settings.get("schedule.milestones", [[20]])
            return points[0][0] if self.settings["schedule"] == "piecewise_linear" else None
        return self.settings.get(key, DEFAULTS.get(key))

    @property
    def machines(self) -> set[str]:
        return {str(run.manifest.get("device")) for run in self.runs}


def settings(used: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in one form, so that equal training has equal settings.

    used: the top-level keys as they were used; identity: what differs from the defaults. No decay is a decoupled one of
    0, a penalty and a decoupled decay are two numbers, and a shift that is not applied is none.
    """
    found = {key: used.get(key) for key in TOP} | {"averaging": used.get("averaging") or "none"}
    found |= {key: value for key, value in identity.items() if key not in (*TOP, *SILENT)}
    found |= {"wd": found["wd"] or 0.0, "l2": found["l2"] or 0.0}
    if found["regularization"] != "coupled":
        found["regularization"] = "decoupled"
    if found.get("data.augment") is False:
        found["shift"] = None
    return {key: value for key, value in found.items() if value is not None and value != DEFAULTS.get(key)}


def pooled(collection: Collected) -> list[Pool]:
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


@dataclass(frozen=True)
class Departures:
    """How runs differ from the published ones, in words. reduced: smaller networks, data, images or budgets.

    foreign: by another recipe, so that they say nothing of the claim.
    """

    reduced: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    foreign: bool = False

    @property
    def full(self) -> bool:
        return not self.reduced and not self.other

    def __str__(self) -> str:
        parts = [("reduced: ", self.reduced), ("other than published: ", self.other)]
        return "; ".join(head + ", ".join(texts) for head, texts in parts if texts)


def departures(pools: Iterable[Pool], home: str, varied: Iterable[str]) -> Departures:
    """From the home's settings, leaving out the keys that a claim varies.

    A published configuration departs only where it is another network or data set than the claim's. Another recipe is
    foreign, but for a constant rate in place of a piecewise one, which begins with it.
    """
    published = settings(homes()[home], homes()[home])
    published.pop("preset")
    varied = set(varied)
    reduced: dict[str, None] = {}
    other: dict[str, None] = {}
    foreign = False
    for pool in pools:
        for key in sorted(k for k in {*pool.settings, *published} if not is_varied(k, varied, pool)):
            mine, theirs = (side.get(key, DEFAULTS.get(key)) for side in (pool.settings, published))
            if mine == theirs or (key == "optimizer" and {mine, theirs} in SAME):
                continue
            more = key == "epochs" and mine is not None and mine > theirs
            if key in REDUCING and not more:
                if key != "epochs" or pool.preset is None:
                    reduced[words(key, mine)] = None
            elif pool.preset is None:
                other[words(key, mine)] = None
                foreign |= key in RECIPE and (mine, str(theirs).split("_")[0]) != ("constant", "piecewise")
    return Departures(tuple(reduced), tuple(other), foreign)


def is_varied(key: str, varied: Collection[str], pool: Pool) -> bool:
    """Whether a claim varies the key, or the choice that it is an option of; an unused shift is no departure."""
    unused = key == "shift" and pool.setting("data.augment") is False
    choice = "averaging" if key == "ema_momentum" else key.split(".")[0]
    return key in varied or key == "precision" or unused or (choice != key and choice in varied)


def same_network(pool: Pool, home: str, varied: Iterable[str]) -> bool:
    """Whether its network and data set are the home's in all that decides the number of its parameters."""
    published = homes()[home]
    network = {key for key in {*pool.settings, *published} if key == "data" or key.startswith("model")}
    network -= {*varied, "model.bn_momentum", "model.bn_eps"}
    return all(pool.setting(key) == published.get(key, DEFAULTS.get(key)) for key in network)


def words(key: str, value: Any) -> str:
    """For example "resnet20v2", "20 epochs", "data.resolution 16"."""
    if key in ("model", "data", "schedule", "optimizer"):
        return str(value)
    if key == "epochs":
        return f"{value} epochs"
    if key == "schedule.milestones":
        return "other milestones"
    return f"{key} {'default' if value is None else plain(value)}"
