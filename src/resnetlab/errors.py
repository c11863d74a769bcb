"""The errors that a user may meet. Each message is one line that names the value and the cure."""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LIMITS = tomllib.loads(Path(__file__).with_name("limits.toml").read_text(encoding="utf-8"))


class LabError(Exception):
    """Base of all errors that resnetlab raises on purpose."""


class ConfigError(LabError, ValueError):
    """A value of the configuration, or a combination of values, that makes no sense."""


class DataError(LabError):
    """A data set that is missing, damaged or too small for what is asked of it."""


class RunLocked(LabError):
    """A run that another process is training at this moment."""


class RunPruned(LabError):
    """A run that its search has stopped before its end; what it has done is kept."""


class Diverged(LabError):
    """A loss became non-finite.

    quantity: "train/loss" or "val/loss"; epoch: from 1; step: from 0, counted over the whole run.
    """

    def __init__(self, quantity: str, epoch: int, step: int) -> None:
        super().__init__(f"{quantity} is not finite in epoch {epoch}, step {step}")
        self.quantity, self.epoch, self.step = quantity, epoch, step


def require(ok: bool, key: str, value: object, must: str) -> None:
    """Raises ConfigError("key (=value) must ...") unless ok."""
    if not ok:
        shown = str(value).lower() if isinstance(value, bool) else "null" if value is None else value  # as it is typed
        raise ConfigError(f"{key} (={shown}) must {must}")


def require_one_of(key: str, value: object, choices: Iterable[str]) -> None:
    """Raises ConfigError, with all choices, unless value is one of them."""
    names = list(choices)
    require(value in names, key, value, f"be one of {', '.join(names)}")


def check_limits(group: str, values: Mapping[str, Any]) -> None:
    """Raises ConfigError for the first of a group's {key: value} that limits.toml does not allow."""
    for place, limit in LIMITS[group].items():
        option, _, name = place.rpartition(".")
        if name not in values or option not in ("", values.get("name")):
            continue
        key, value = name if group == "config" else f"{group}.{name}", values[name]
        if "one_of" in limit:
            require_one_of(key, value, limit["one_of"])
        elif value is not None:
            require(is_within(limit, value), key, repr(value) if isinstance(value, str) else value, limit["must"])


def is_within(limit: Mapping[str, Any], value: Any) -> bool:
    """Whether a text has the limit's pattern, or a number is in its range."""
    if "pattern" in limit:
        return re.fullmatch(limit["pattern"], value) is not None
    included = limit.get("least", -math.inf) <= value <= limit.get("most", math.inf)
    inside = limit.get("above", -math.inf) < value < limit.get("below", math.inf)
    return bool(included and inside)


def first_line(error: BaseException) -> str:
    """The first line of an error of somebody else's, or its kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
