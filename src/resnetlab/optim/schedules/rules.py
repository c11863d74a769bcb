"""What the value of each schedule's key must be by itself; what depends on other keys or the run is in the classes."""

from collections.abc import Callable
from typing import Any

from resnetlab import errors


def one_of(*choices: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in choices, " or ".join(choices)


# (keys, whether a value will do, the same in words); SCHEDULE.KEY where a name has other values in other schedules
RULES: list[tuple[str, Callable[[Any], bool], str]] = [
    ("interval", *one_of("epoch", "step")),
    ("cosine.shape", *one_of("half", "quarter")),
    ("wsd.shape", *one_of("linear", "cosine", "sqrt")),
    ("anneal", *one_of("cos", "linear")),
    ("cyclic.mode", *one_of("triangular", "triangular2", "exp_range")),
    ("reduce_on_plateau.mode", *one_of("auto", "min", "max")),
    ("threshold_mode", *one_of("abs", "rel")),
    ("length", lambda x: x is None or x > 0, "more than 0 epochs, or null"),
    ("warmup constant patience cooldown", lambda x: x >= 0, "0 or more epochs"),
    ("first step_size up", lambda x: x > 0, "more than 0 epochs"),
    ("down", lambda x: x is None or x > 0, "more than 0 epochs, or null for as many as up"),
    ("warmup_from final lowest min_lr", lambda x: 0 <= x <= 1, "between 0 and 1, a fraction of lr"),
    ("power timescale decay final_div_factor", lambda x: x > 0, "more than 0"),
    ("step.gamma multistep.gamma exponential.gamma", lambda x: x > 0, "more than 0"),
    ("cyclic.gamma", lambda x: 0 < x <= 1, "more than 0 and at most 1, a factor per step"),
    ("cycle_decay", lambda x: 0 < x <= 1, "more than 0 and at most 1"),
    ("mult", lambda x: x == 1 or x >= 1.001, "at least 1: 1 itself, or 1.001 and more"),
    ("pct_start", lambda x: 0 <= x <= 1, "between 0 and 1, a part of the run"),
    ("div_factor", lambda x: x >= 1, "at least 1: lr is the peak"),
    ("highest_momentum", lambda x: 0 <= x < 1, "at least 0 and below 1"),
    ("monitor", lambda x: x != "", "the name of a metric, such as val/loss"),
    ("factor", lambda x: 0 < x < 1, "between 0 and 1, both excluded"),
    ("threshold", lambda x: x >= 0, "at least 0"),
]


def check_values(schedule: Any) -> None:
    """Raises ConfigError for the first value that breaks its rule."""
    for keys, holds, must in RULES:
        for key in keys.split():
            owner, _, name = key.rpartition(".")
            if owner in ("", schedule.name) and hasattr(schedule, name):
                require(holds(value := getattr(schedule, name)), name, value, must)


def require(ok: bool, key: str, value: Any, must: str) -> None:
    """Raises ConfigError("schedule.key (=value) must be ...") unless ok."""
    shown = str(value).lower() if isinstance(value, bool) else "null" if value is None else value
    errors.require(ok, f"schedule.{key}", shown, f"be {must}")
