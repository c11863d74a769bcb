"""Metrics of one run that claims name: from its summary, or computed from its rows."""

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from resnetlab.published.claims.data import CLAIMS_FILE
from resnetlab.report.derive import threshold_metrics
from resnetlab.runs.load import Run
from resnetlab.runs.summary import FLUCTUATION_EPOCHS, Row, fluctuation, rows_within, validation_range

# ratios and sizes of fluctuations go over orders of magnitude: tested as logarithms, shown as they are
LOGARITHMIC = ("amplitude", "fluctuation_left", "jump_ratio", "calm_ratio")
# of numbered epochs, in which a stretched schedule has other rates
WINDOWED = (*LOGARITHMIC, "fluctuation", "lowest_acc")
NUMBERED = re.compile(r"(best_by|gain_after)_(\d+)")
DESCRIPTIONS: dict[str, str] = CLAIMS_FILE["description"]


def value_of(run: Run, metric: str) -> float | None:
    """The metric; None where this run does not have it, or not as a finite number above 0 if it is logarithmic."""
    stretched = run.manifest.get("differs_from_defaults", {}).get("schedule.stretch")
    if metric in OF_ROWS:
        value = None if stretched and metric in WINDOWED else OF_ROWS[metric](run.rows)
    elif found := NUMBERED.fullmatch(metric):
        value = numbered([row.get("val/acc", 0.0) for row in run.rows], found[1], int(found[2]))
    elif may_be_unreached(metric):
        value = threshold_metrics(run.rows, metric.rpartition("_")[2]).get(metric)
    else:
        value = run.metrics.get(metric)
    usable = value is not None and math.isfinite(value) and (value > 0 or metric not in LOGARITHMIC)
    return value if usable else None


def may_be_unreached(metric: str) -> bool:
    """Whether a run may train in full and never come to have the metric, which is then a result and no gap."""
    return metric == "onset" or metric.startswith(("epoch_to_", "train_acc_at_"))


def scaled(values: Sequence[float], metric: str) -> list[float]:
    """The values as they are tested: powers of ten of a logarithmic metric."""
    return [math.log10(value) if metric in LOGARITHMIC else value for value in values]


def description(metric: str) -> str:
    """For example "best val acc", with "(compared as logarithms)" behind a logarithmic one."""
    text = DESCRIPTIONS.get(metric, metric.replace("_", " "))
    return f"{text} (compared as logarithms)" if metric in LOGARITHMIC else text


def numbered(accuracies: Sequence[float], kind: str, epoch: int) -> float | None:
    """best_by_50, the best val_acc of 50 epochs; gain_after_85, best val_acc of the run minus best_by."""
    if len(accuracies) < epoch:
        return None
    best = max(accuracies[:epoch])
    return best if kind == "best_by" else max(accuracies) - best


def largest_jump(values: Sequence[float]) -> float | None:
    """The largest change from one epoch to the next."""
    return max((abs(b - a) for a, b in pairwise(values)), default=None)


def ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def calm_ratio(rows: Sequence[Row]) -> float | None:
    """The largest jump of val/ce at a tenth of the highest rate and less, over that in epochs 10 to 36."""
    if not all("lr" in row for row in rows):
        return None
    low = 0.1001 * max(row["lr"] for row in rows)
    late = [row for row in rows if row["epoch"] > FLUCTUATION_EPOCHS[0] and row["lr"] <= low]
    jump = largest_jump([row["val/ce"] for row in late if "val/ce" in row])
    return ratio(jump, largest_jump(rows_within(rows, "val/ce")))


def onset(rows: Sequence[Row]) -> float | None:
    """The first epoch whose val/ce is over twice the median of the five before it."""
    values = [row.get("val/ce", math.inf) for row in rows]
    return next((rows[i]["epoch"] for i in range(5, len(rows)) if values[i] > 2 * sorted(values[i - 5 : i])[2]), None)


OF_ROWS: dict[str, Callable[[Sequence[Row]], float | None]] = {
    "amplitude": validation_range,
    "fluctuation": lambda rows: fluctuation(rows, "val/ce"),
    "fluctuation_left": lambda rows: ratio(fluctuation(rows, "val/ce_recal"), fluctuation(rows, "val/ce")),
    "jump_ratio": lambda rows: ratio(*(largest_jump(rows_within(rows, f"{part}/ce")) for part in ("val", "train"))),
    "calm_ratio": calm_ratio,
    "lowest_acc": lambda rows: min(rows_within(rows, "val/acc"), default=None),
    "onset": onset,
    "avg_gain": lambda rows: rows[-1].get("val/acc_avg", math.nan) - rows[-1].get("val/acc", math.nan),
}
