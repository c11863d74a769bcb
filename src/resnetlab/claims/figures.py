"""Figures of one run that claims speak of, by name: of its summary, or worked out of its rows."""

import math
import re
from collections.abc import Callable, Sequence

from resnetlab.claims.curves import OF_ROWS, WINDOWED
from resnetlab.runs.load import Run
from resnetlab.runs.summary import Row

__all__ = ["COSTS", "LOGARITHMIC", "figure", "known", "reached"]

COSTS = ("seconds_per_epoch", "power_w")  # of one machine alone, and of one load
# ratios and sizes of swings go over orders of magnitude: tested as logarithms, shown as they are
LOGARITHMIC = ("amplitude", "swing_left", "jump_ratio", "calm_ratio", "damping")
SUMMARY = (
    *("best_val_acc", "final_val_acc", "final_train_acc", "final_train_ce", "final_val_ce", "final_val_acc_avg"),
    *("generalization_gap", *COSTS),
)


def figure(run: Run, name: str) -> float | None:
    """The figure; None where this run does not have it, or not as a finite number above 0 if it is logarithmic."""
    if name in SUMMARY:
        value = run.metrics.get(name)
    elif name in WINDOWED and run.manifest.get("differs_from_defaults", {}).get("schedule.stretch"):
        value = None
    elif name in OF_ROWS:
        value = OF_ROWS[name](run.rows)
    elif name in OF_MODEL:
        value = OF_MODEL[name](run)
    else:
        value = numbered(run.rows, name)
    usable = value is not None and math.isfinite(value) and (value > 0 or name not in LOGARITHMIC)
    return value if usable else None


def known(name: str) -> bool:
    """Whether there is such a figure."""
    return name in SUMMARY or name in OF_ROWS or name in OF_MODEL or bool(NUMBERED.fullmatch(name))


def reached(name: str) -> bool:
    """Whether a run may train in full and never come to have the figure, which is then a result and no gap."""
    return name == "onset" or name.startswith(("epoch_to_", "train_acc_at_"))


NUMBERED = re.compile(r"(best_by|acc_of_epoch|gain_after|epoch_to|train_acc_at)_([\d.]+)")


def numbered(rows: Sequence[Row], name: str) -> float | None:
    """best_by_50, the best val_acc of 50 epochs; acc_of_epoch_2; gain_after_85, best val_acc of the run minus best_by;
    epoch_to_0.92; train_acc_at_0.92, in the first epoch with that val_acc."""
    match = NUMBERED.fullmatch(name)
    assert match is not None, name
    kind, number = match[1], float(match[2])
    if kind in ("epoch_to", "train_acc_at"):
        row = next((row for row in rows if row.get("val/acc", 0.0) >= number), None)
        return None if row is None else row["epoch"] if kind == "epoch_to" else row.get("train/acc")
    if len(rows) < number:
        return None
    if kind == "acc_of_epoch":
        return rows[int(number) - 1].get("val/acc")
    accuracies = [row.get("val/acc", 0.0) for row in rows]
    best = max(accuracies[: int(number)])
    return best if kind == "best_by" else max(accuracies) - best


def count(run: Run, *names: str) -> float | None:
    """The sum of those numbers of the manifest; None where one is missing."""
    numbers = [run.manifest.get("model", {}).get(name) for name in names]
    return None if None in numbers else float(sum(numbers))


OF_MODEL: dict[str, Callable[[Run], float | None]] = {
    "trainable_parameters": lambda run: count(run, "trainable_parameters"),
    "all_parameters": lambda run: count(run, "trainable_parameters", "statistics"),
    "convolutions": lambda run: count(run, "convolutions"),
}
