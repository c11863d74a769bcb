"""The errors that a user may meet. Each message is one line that names the value and the cure."""

import math
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

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
        raise ConfigError(f"{key} (={value}) must {must}")


def require_one_of(key: str, value: object, choices: Iterable[str]) -> None:
    """Raises ConfigError, with all choices, unless value is one of them."""
    names = list(choices)
    require(value in names, key, value, f"be one of {', '.join(names)}")


def check_limits(group: str, part: object) -> None:
    """Raises ConfigError for the first value of the group's options, `part`, that limits.toml does not allow."""
    for name, limit in LIMITS[group].items():
        key, value = name if group == "config" else f"{group}.{name}", getattr(part, name)
        if "one_of" in limit:
            require_one_of(key, value, limit["one_of"])
        elif "pattern" in limit:
            require(re.fullmatch(limit["pattern"], value) is not None, key, repr(value), limit["must"])
        elif value is not None:
            included = limit.get("least", -math.inf) <= value <= limit.get("most", math.inf)
            inside = limit.get("above", -math.inf) < value < limit.get("below", math.inf)
            require(included and inside, key, value, limit["must"])


def first_line(error: BaseException) -> str:
    """The first line of an error of somebody else's, or its kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
