"""A configuration and its runs, and what tells it from the others in a few words."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from resnetlab.report.statistics import Spread, spread
from resnetlab.runs.load import Run

__all__ = ["Configuration", "Key", "differing_keys", "label", "plain"]

Key = tuple[str, str, str]
CHOICES = ("model", "data", "optimizer", "schedule", "regularization", "averaging")
# keys of the summary; those that depend on a choice's default (wd 0.2) stand there as they were used
TOP_LEVEL = ("epochs", "batch_size", "lr", "wd", "l2", "momentum", "ema_momentum", "shift", "subset")
SHOWN_APART = ("data.limit", "data.resolution", "recalibrate_bn")  # by reduced_data; changes no figure of a run
SHORT = {"batch_size": "batch", "momentum": "m", "ema_momentum": "ema m", "recalibrate_bn": "recalibrated"}


@dataclass(frozen=True)
class Configuration:
    """The runs of one study that differ in their seed alone.

    identity: what differs from the lab's defaults, from the manifest; None where no run has one. label: short. asked:
    the number of seeds that sweeps were to train, 0 where none is known.
    """

    study: str
    name: str
    runs: tuple[Run, ...]
    identity: Mapping[str, Any] | None
    label: str = ""
    asked: int = 0

    @property
    def key(self) -> Key:
        """What no other configuration of a report has."""
        return self.study, self.name, self.label

    @property
    def n(self) -> int:
        return len(self.runs)

    @property
    def subset(self) -> Any:
        """The number of training images if the runs saw only the first of them, else None."""
        return self.runs[0].summary.get("subset")

    @property
    def reduced_data(self) -> str:
        """For example "subset of 5000 images, 16x16 pixels"; nothing if the runs saw all of the set as it is."""
        side = self.setting("data.resolution")
        parts = [f"subset of {self.subset} images"] if self.subset is not None else []
        return ", ".join([*parts, *([f"{side}x{side} pixels"] if side else [])])

    def values(self, figure: str) -> list[float]:
        """Of the runs that have it, in the order of their seeds."""
        return [run.metrics[figure] for run in self.runs if figure in run.metrics]

    def spread(self, figure: str) -> Spread | None:
        return spread(self.values(figure))

    def setting(self, key: str) -> Any:
        """The value that was used; None for what the manifest leaves out as a default and the summary does not name."""
        summary = self.runs[0].summary
        if key in CHOICES or key in TOP_LEVEL:
            return summary.get(key)
        return (self.identity or {}).get(key)


def differing_keys(a: Configuration, b: Configuration) -> set[str] | None:
    """The keys of the identity with different values; None where an identity is not known."""
    if a.identity is None or b.identity is None:
        return None
    keys = {*a.identity, *b.identity}
    return {key for key in keys if a.identity.get(key) != b.identity.get(key)}


def label(configurations: Sequence[Configuration]) -> list[Configuration]:
    """The same with labels, study by study: the settings that are not equal in all, if need be the hash or a number."""
    studies: dict[str, list[Configuration]] = defaultdict(list)
    for c in configurations:
        studies[c.study].append(c)
    return [labelled for study in studies.values() for labelled in label_study(study)]


def label_study(configurations: Sequence[Configuration]) -> list[Configuration]:
    others = dict.fromkeys(key for c in configurations for key in c.identity or {})
    keys = [*CHOICES, *TOP_LEVEL, *(key for key in others if key not in (*CHOICES, *TOP_LEVEL, *SHOWN_APART))]
    varied = [key for key in keys if len({plain(c.setting(key)) for c in configurations}) > 1]
    if len(configurations) == 1:
        varied = ["model", "optimizer", "schedule", "regularization"]
    named = [replace(c, label=", ".join(filter(None, (words(c, key) for key in varied)))) for c in configurations]
    return told_apart(named)


def told_apart(named: Sequence[Configuration]) -> list[Configuration]:
    """No two share a label."""
    shared = Counter(c.label for c in named)
    hashed = [
        replace(c, label=f"{c.label} {c.name[-8:]}".strip()) if shared[c.label] > 1 or not c.label else c for c in named
    ]
    again, met, found = Counter(c.label for c in hashed), Counter[str](), []
    for c in hashed:
        met[c.label] += 1
        found.append(replace(c, label=f"{c.label} #{met[c.label]}") if again[c.label] > 1 else c)
    return found


def words(configuration: Configuration, key: str) -> str:
    """For example "wd 0.3", "60 epochs", "cosine"; nothing for what is not used."""
    value = configuration.setting(key)
    if key in CHOICES:
        if value in (None, "none"):
            return "" if key == "averaging" else f"no {key}"
        return plain(value)
    if value is None or key == "subset":  # a subset is marked wherever the label stands
        return ""
    if key == "epochs":
        return f"{plain(value)} epochs"
    return f"{SHORT.get(key, key.split('.')[-1])} {plain(value)}"


def plain(value: Any) -> str:
    """A setting as a person writes it."""
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
