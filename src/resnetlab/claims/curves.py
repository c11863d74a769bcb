"""What a claim may ask of a run's curves: jumps, swings, the noise before and after a drop of lr."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from resnetlab.runs.summary import FLUCTUATION_EPOCHS as EPOCHS
from resnetlab.runs.summary import Row, fluctuation, loss_range, rows_within

__all__ = ["OF_ROWS", "WINDOWED"]

# of numbered epochs, which are not those of the high rates where a schedule is stretched to fewer epochs
WINDOWED = ("amplitude", "swing_left", "jump_ratio", "calm_ratio", "lowest_acc", "noise_acc")


def jump(values: Sequence[float]) -> float | None:
    """The largest change from one epoch to the next."""
    return max((abs(b - a) for a, b in pairwise(values)), default=None)


def ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def lowest(rows: Sequence[Row]) -> float | None:
    return min(rows_within(rows, "val/acc"), default=None)


def calm(rows: Sequence[Row]) -> float | None:
    """The largest jump of val/ce at a tenth of the highest rate and less, over that in epochs 10 to 36."""
    if not all("lr" in row for row in rows):
        return None
    top = max(row["lr"] for row in rows)
    late = [row["val/ce"] for row in rows if row["epoch"] > EPOCHS[0] and row["lr"] <= 0.1001 * top and "val/ce" in row]
    return ratio(jump(late), jump(rows_within(rows, "val/ce")))


def drop(rows: Sequence[Row]) -> int | None:
    """The place of the first row whose rate is less than half of the one before it; None where a rate is not known."""
    if not all("lr" in row for row in rows):
        return None
    return next((i for i in range(1, len(rows)) if rows[i]["lr"] < 0.5 * rows[i - 1]["lr"]), None)


def drop_gain(rows: Sequence[Row]) -> float | None:
    """Mean val_acc of the three epochs after the first drop of lr, minus that of the three before it."""
    place = drop(rows)
    if place is None or place < 3 or place + 3 > len(rows):
        return None
    accuracies = [row.get("val/acc", math.nan) for row in rows[place - 3 : place + 3]]  # NaN is no figure
    return sum(accuracies[3:]) / 3 - sum(accuracies[:3]) / 3


def damping(rows: Sequence[Row]) -> float | None:
    """The roughness of val/ce in the last 20 epochs (5 at least) before the first drop of lr, over that in the first 20
    from it on."""
    place = drop(rows)
    if place is None or place < 8:
        return None
    after = rows_within(rows[place:], "val/ce", (1, 10**9))[:20]
    return ratio(roughness(rows_within(rows[max(0, place - 20) : place], "val/ce", (1, 10**9))), roughness(after))


def roughness(values: Sequence[float]) -> float | None:
    """The root mean square of the changes from epoch to epoch."""
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
    "swing_left": lambda rows: ratio(loss_range(rows, "val/ce_recal"), loss_range(rows, "val/ce")),
    "jump_ratio": lambda rows: ratio(jump(rows_within(rows, "val/ce")), jump(rows_within(rows, "train/ce"))),
    "rise_train": lambda rows: rise([row["train/ce"] for row in rows if "train/ce" in row]),
    "calm_ratio": calm,
    "damping": damping,
    "drop_gain": drop_gain,
    "lowest_acc": lowest,
    "noise_acc": lambda rows: roughness(rows_within(rows, "val/acc", (20, 80))),
    "onset": onset,
    "avg_gain": lambda rows: (
        rows[-1]["val/acc_avg"] - rows[-1]["val/acc"] if {"val/acc_avg", "val/acc"} <= set(rows[-1]) else None
    ),
}
