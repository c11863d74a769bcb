"""How far a configuration is from the published one that a claim speaks of."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from resnetlab.claims.data import Part, homes
from resnetlab.claims.pools import DEFAULTS, Pool, settings
from resnetlab.published.configuration import configuration
from resnetlab.published.data import one, rows
from resnetlab.published.match import REDUCING
from resnetlab.report.groups import format_value

__all__ = ["Departures", "away", "departures", "same_network"]

SMALLER = ("data", *REDUCING)
BUDGET = ("epochs", "schedule.length", "schedule.stretch")  # which each publication has its own of
RECIPE = ("optimizer", "schedule", "regularization")
SAME = ({"adam", "adamw"},)  # one algorithm, here and in Keras


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


def departures(pools: Iterable[Pool], part: Part, varied: Iterable[str]) -> Departures:
    """From the settings of the part's home, leaving out the keys that the claim varies.

    A configuration that its source published, or that the part names, departs only where it is another network or data
    set than the home's. Another recipe is foreign, but for a constant rate in place of a piecewise one, which begins
    with it; so is a penalty in place of a decoupled decay.
    """
    home = surroundings(part.home)
    varied = set(varied)
    reduced: dict[str, None] = {}
    other: dict[str, None] = {}
    foreign = False
    for pool in pools:
        known = published(pool, part)
        for key in sorted(k for k in {*pool.settings, *home} if not is_varied(k, varied, pool)):
            mine, theirs = (side.get(key, DEFAULTS.get(key)) for side in (pool.settings, home))
            if mine == theirs or (key == "optimizer" and {mine, theirs} in SAME):
                continue
            more = key == "epochs" and mine is not None and mine > theirs
            if key in SMALLER and not more:
                if key not in BUDGET or not known:
                    reduced[words(key, mine)] = None
            elif not known:
                other[words(key, mine)] = None
                foreign |= key in RECIPE and (mine, str(theirs).split("_")[0]) != ("constant", "piecewise")
        foreign |= not known and not varied & {"wd", "l2"} and {decays(pool.settings), decays(home)} == {"wd", "l2"}
    return Departures(tuple(reduced), tuple(other), foreign)


@cache
def surroundings(home: str) -> dict[str, Any]:
    found = settings(homes()[home], homes()[home])
    found.pop("preset")
    return found


def published(pool: Pool, part: Part) -> bool:
    """Whether it repeats a configuration of the home's source, or one that the part names."""
    if pool.preset is None:
        return False
    return pool.preset in part.named or one(pool.preset).post == one(homes()[part.home]["preset"]).post


def decays(found: Mapping[str, Any]) -> str:
    """Which of the two numbers are above 0: "l2", "wd", "l2+wd" or nothing."""
    return "+".join(key for key in ("l2", "wd") if found.get(key))


def away(pools: Iterable[Pool], home: str) -> int:
    """In how many settings they are not the home's, varied ones too: of runs alike, the nearest are looked at."""
    theirs = surroundings(home)
    return sum(pool.settings.get(key) != theirs.get(key) for pool in pools for key in {*pool.settings, *theirs})


def is_varied(key: str, varied: Collection[str], pool: Pool) -> bool:
    """Whether a claim varies the key, or the choice that it is an option of; an unused shift is no departure.

    Milestones may vary from one published list to another.
    """
    if key == "schedule.milestones" and pool.setting(key) not in (None, *milestones()):
        return False
    unused = key == "shift" and pool.setting("data.augment") is False
    choice = "averaging" if key == "ema_momentum" else key.split(".")[0]
    return key in varied or key == "precision" or unused or (choice != key and choice in varied)


@cache
def milestones() -> tuple[Any, ...]:
    """Every published list of them."""
    tables = (configuration(row) for row in rows() if row.post != "fastai")  # whose schedules have none
    return tuple(keys["schedule.milestones"] for keys in tables if "schedule.milestones" in keys)


def same_network(pool: Pool, home: str, varied: Iterable[str]) -> bool:
    """Whether its network and data set are the home's in all that decides the number of its parameters."""
    theirs = homes()[home]
    network = {key for key in {*pool.settings, *theirs} if key == "data" or key.startswith("model")}
    network -= {*varied, "model.bn_momentum", "model.bn_eps"}
    return all(pool.setting(key) == theirs.get(key, DEFAULTS.get(key)) for key in network)


def words(key: str, value: Any) -> str:
    """For example "resnet20v2", "20 epochs", "data.resolution 16"."""
    if key in ("model", "data", "schedule", "optimizer"):
        return str(value)
    if key == "epochs":
        return f"{value} epochs"
    if key == "schedule.milestones":
        return "other milestones"
    return f"{key} {'default' if value is None else format_value(value)}"
