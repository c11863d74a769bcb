"""Figures of one run that claims speak of, by name: of its summary, or worked out of its rows."""

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from resnetlab.report.runs import Row, Run
from resnetlab.swings import EPOCHS, fluctuation, within

__all__ = ["COSTS", "LOGARITHMIC", "figure", "known"]

COSTS = ("seconds_per_epoch", "power_w", "joules_per_epoch")  # of one machine alone
# ratios and sizes of swings go over orders of magnitude: tested as logarithms, shown as they are
LOGARITHMIC = ("amplitude", "amplitude_recal", "swing_left", "jump_ratio", "calm_ratio", "damping", "jump_train")
SUMMARY = (
    *("best_val_acc", "final_val_acc", "final_train_acc", "final_train_ce", "final_val_ce", "final_val_acc_avg"),
    *("final_train_loss", "generalization_gap", *COSTS),
)


def figure(run: Run, name: str) -> float | None:
    """The figure; None where this run does not have it, or not as a finite number above 0 if it is logarithmic."""
    if name in SUMMARY:
        value = run.figures.get(name)
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


NUMBERED = re.compile(r"(best_by|acc_of_epoch|gain_after|epoch_to|train_acc_at)_([\d.]+)")


def numbered(rows: Sequence[Row], name: str) -> float | None:
    """best_by_50, the best val_acc of 50 epochs; acc_of_epoch_2; gain_after_85, best val_acc of the run minus best_by;
    epoch_to_0.92; train_acc_at_0.92, in the first epoch with that val_acc."""
    match = NUMBERED.fullmatch(name)
    assert match is not None, name
    kind, number = match[1], float(match[2])
    accuracies = [row.get("val/acc", 0.0) for row in rows]
    if kind in ("epoch_to", "train_acc_at"):
        row = next((row for row in rows if row.get("val/acc", 0.0) >= number), None)
        return None if row is None else row["epoch"] if kind == "epoch_to" else row.get("train/acc")
    if len(rows) < number:
        return None
    so_far = accuracies[: int(number)]
    return {"best_by": max(so_far), "acc_of_epoch": so_far[-1], "gain_after": max(accuracies) - max(so_far)}[kind]


def jump(values: Sequence[float]) -> float | None:
    """The largest change from one epoch to the next."""
    return max((abs(b - a) for a, b in pairwise(values)), default=None)


def ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def lowest(rows: Sequence[Row]) -> float | None:
    return min(within(rows, "val/acc"), default=None)


def calm(rows: Sequence[Row]) -> float | None:
    """The largest jump of val/ce at a tenth of the highest rate and less, over that in epochs 10 to 36."""
    top = max(row["lr"] for row in rows)
    late = [row["val/ce"] for row in rows if row["epoch"] > EPOCHS[0] and row["lr"] <= 0.1001 * top and "val/ce" in row]
    return ratio(jump(late), jump(within(rows, "val/ce")))


def drop(rows: Sequence[Row]) -> int | None:
    """The place of the first row whose rate is less than half of the one before it."""
    return next((i for i in range(1, len(rows)) if rows[i]["lr"] < 0.5 * rows[i - 1]["lr"]), None)


def drop_gain(rows: Sequence[Row]) -> float | None:
    """Mean val_acc of the three epochs after the first drop of lr, minus that of the three before it."""
    place = drop(rows)
    if place is None or place < 3 or place + 3 > len(rows):
        return None
    before, after = ([row.get("val/acc", 0.0) for row in part] for part in (rows[place - 3 : place], rows[place:][:3]))
    return sum(after) / 3 - sum(before) / 3


def damping(rows: Sequence[Row]) -> float | None:
    """The sd of val/ce's changes from epoch to epoch in up to 20 epochs before the first drop, over that after it."""
    place = drop(rows)
    if place is None or place < 8:
        return None
    after = within(rows[place:], "val/ce", (1, 10**9))[:20]
    return ratio(roughness(within(rows[max(0, place - 20) : place], "val/ce", (1, 10**9))), roughness(after))


def roughness(values: Sequence[float]) -> float | None:
    changes = [b - a for a, b in pairwise(values)]
    return math.sqrt(sum(c * c for c in changes) / len(changes)) if changes else None


def onset(rows: Sequence[Row]) -> float | None:
    """The first epoch whose val/ce is over twice the median of the five before it."""
    values = [row.get("val/ce", math.inf) for row in rows]
    return next((rows[i]["epoch"] for i in range(5, len(rows)) if values[i] > 2 * sorted(values[i - 5 : i])[2]), None)


def rise(values: Sequence[float]) -> float | None:
    return max((b - a for a, b in pairwise(values)), default=None)


OF_ROWS: dict[str, Callable[[Sequence[Row]], float | None]] = {
    "amplitude": fluctuation,
    "amplitude_recal": lambda rows: fluctuation(rows, "val/ce_recal"),
    "swing_left": lambda rows: ratio(fluctuation(rows, "val/ce_recal"), fluctuation(rows)),
    "jump_ratio": lambda rows: ratio(jump(within(rows, "val/ce")), jump(within(rows, "train/ce"))),
    "jump_train": lambda rows: jump(within(rows, "train/ce")),
    "rise_train": lambda rows: rise([row["train/ce"] for row in rows if "train/ce" in row]),
    "calm_ratio": calm,
    "damping": damping,
    "drop_gain": drop_gain,
    "lowest_acc": lowest,
    "noise_acc": lambda rows: roughness(within(rows, "val/acc", (20, 80))),
    "onset": onset,
    "avg_gain": lambda rows: (
        rows[-1]["val/acc_avg"] - rows[-1]["val/acc"] if {"val/acc_avg", "val/acc"} <= set(rows[-1]) else None
    ),
}


def count(run: Run, *names: str) -> float | None:
    """The sum of those numbers of the manifest; None where one is missing."""
    numbers = [run.manifest.get("model", {}).get(name) for name in names]
    return None if None in numbers else float(sum(numbers))


OF_MODEL: dict[str, Callable[[Run], float | None]] = {
    "trainable_parameters": lambda run: count(run, "trainable_parameters"),
    "all_parameters": lambda run: count(run, "trainable_parameters", "statistics"),
    "convolutions": lambda run: count(run, "convolutions"),
}
