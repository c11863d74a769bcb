"""summary.json: one flat row, a pure function of a run's configuration and its epochs' figures. Unknown is null."""

import math
import statistics
from collections.abc import Mapping, Sequence
from statistics import linear_regression
from typing import Any

from resnetlab.config.schema import Config

Row = dict[str, float]
Summary = dict[str, Any]


def summarize(config: Config, rows: Sequence[Row], *, status: str, **extra: Any) -> Summary:
    """The run's result row.

    status: finished | diverged. rows: one an epoch, as in metrics.csv. extra: what the rows do not know (parameters,
    figures on the test set, where and why a run diverged).
    """
    last = rows[-1] if rows else {}
    best = max(rows, key=lambda row: row["val/acc"], default=None)  # the first of equals
    return {
        "status": status,
        **{
            group: getattr(config, group).name
            for group in ("model", "data", "optimizer", "schedule", "regularization", "averaging")
        },
        "study": config.study,
        "seed": config.seed,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "wd": config.wd,
        "l2": config.l2,
        "momentum": config.momentum,
        "ema_momentum": config.ema_momentum,
        "shift": config.shift,
        "subset": config.data.limit,
        "epochs_trained": len(rows),
        **threshold_columns(rows, config.thresholds),
        "best_epoch": best and int(best["epoch"]),
        "best_val_acc": best and best["val/acc"],
        "final_val_acc": last.get("val/acc"),
        "final_val_acc5": last.get("val/acc5"),
        "final_val_acc_recal": last.get("val/acc_recal"),
        "final_val_acc_avg": last.get("val/acc_avg"),
        "final_val_ce_avg": last.get("val/ce_avg"),
        "final_train_acc": last.get("train/acc"),
        "final_train_loss": last.get("train/loss"),
        "final_train_ce": last.get("train/ce"),
        "final_val_loss": last.get("val/loss"),
        "final_val_ce": last.get("val/ce"),
        "final_test_acc": None,
        "best_test_acc": None,
        "averaged_test_acc": None,
        "val_loss_fluctuation": fluctuation(rows),
        **fit_sign(rows),
        "improvements": improvements(rows),
        "seconds_per_epoch": median(rows, "time/epoch"),
        "images_per_second": median(rows, "time/images_per_second"),
        **power(rows),
        "parameters": None,
        **extra,
    }


def threshold_columns(rows: Sequence[Row], thresholds: Sequence[float]) -> Summary:
    """For each threshold the first epoch that reaches it and the validation accuracy there; null where none does."""
    columns: Summary = {}
    for threshold in thresholds:
        reached = next((row for row in rows if row["val/acc"] >= threshold), None)
        columns[f"epoch_to_{threshold}"] = reached and int(reached["epoch"])
        columns[f"val_acc_at_{threshold}"] = reached and reached["val/acc"]
    return columns


def improvements(rows: Sequence[Row]) -> list[list[float]]:
    """The sequence of [epoch, val_acc] at which a run was better than ever before."""
    steps: list[list[float]] = []
    for row in rows:
        if not steps or row["val/acc"] > steps[-1][1]:
            steps.append([int(row["epoch"]), row["val/acc"]])
    return steps


def fit_sign(rows: Sequence[Row]) -> Summary:
    """Leslie Smith's signs of under- and overfitting (2018, arXiv 1803.09820, section 3), as one rule.

    fit_sign: "underfitting" if at the end the validation cross-entropy is below that of training; "overfitting" if it
    has risen by more than 5 % from its minimum (our margin: less is the wobble between epochs) while that of training
    has fallen; else "balanced"; null with fewer than four epochs. Validation is the running median of three epochs,
    because one swing of stale statistics is no sign, and with re-estimated statistics where there are some.
    overfitting_since: the epoch of that minimum. generalization_gap: validation minus training at the end; gap_growth:
    what it has gained since the middle of the run, for the reader, not part of the rule. Training's figures are means
    over the epoch, under augmentation and dropout, and so are a little above those of the weights at its end.
    """
    blank: Summary = {"fit_sign": None, "overfitting_since": None, "generalization_gap": None, "gap_growth": None}
    if len(rows) < 4 or not all(math.isfinite(row["train/ce"]) for row in rows):
        return blank
    column = "val/ce_recal" if "val/ce_recal" in rows[0] else "val/ce"
    train, val = [row["train/ce"] for row in rows], running_median([row[column] for row in rows])
    least = min(range(len(val)), key=val.__getitem__)
    gap, middle = val[-1] - train[-1], len(rows) // 2
    found: Summary = {"generalization_gap": gap, "gap_growth": gap - (val[middle] - train[middle])}
    if gap < 0:
        found["fit_sign"] = "underfitting"
    elif val[-1] > 1.05 * val[least] and train[-1] < train[least]:
        found |= {"fit_sign": "overfitting", "overfitting_since": int(rows[least]["epoch"])}
    else:
        found["fit_sign"] = "balanced"
    return blank | found


def running_median(values: Sequence[float]) -> list[float]:
    """The median of each value and its neighbours, of which the first and the last have one."""
    return [statistics.median(values[max(0, i - 1) : i + 2]) for i in range(len(values))]


def out_of_patience(rows: Sequence[Row], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no new best val_acc: the rule of early stopping."""
    if patience is None or not rows:
        return False
    return rows[-1]["epoch"] - improvements(rows)[-1][0] >= patience


def power(rows: Sequence[Row]) -> Summary:
    """energy_wh, power_w and gpu_load (%) over training and validation of all epochs; null unless every epoch has them.

    They are the card's, whoever used it.
    """
    seconds = sum(row.get("time/epoch", 0.0) for row in rows)
    found: Summary = {"energy_wh": None, "power_w": None, "gpu_load": None}
    if rows and all("power/joules" in row for row in rows):
        joules = sum(row["power/joules"] for row in rows)
        found |= {"energy_wh": joules / 3600, "power_w": joules / seconds}
    if rows and all("power/gpu_load" in row for row in rows):
        found["gpu_load"] = sum(row["power/gpu_load"] * row["time/epoch"] for row in rows) / seconds
    return found


def median(rows: Sequence[Row], column: str) -> float | None:
    values = [row[column] for row in rows if column in row]
    return statistics.median(values) if values else None


EPOCHS = (10, 36)  # post IV: the swings set in at 10 to 14, and end when lr falls; claims name 10 to 36
FEWEST = 5  # of these epochs, for a figure


def rows_within(rows: Sequence[Mapping[str, float]], column: str, epochs: tuple[int, int] = EPOCHS) -> list[float]:
    """The column's values in those epochs; nothing where fewer than five of them are there."""
    first, last = epochs
    values = [row[column] for row in rows if first <= row["epoch"] <= last and column in row]
    return values if len(values) >= FEWEST else []


def fluctuation(rows: Sequence[Mapping[str, float]], column: str = "val/ce") -> float | None:
    """max - min over epochs 10 to 36, as the series reads it off its plots; None with fewer than five of them."""
    values = rows_within(rows, column)
    return max(values) - min(values) if values else None


def loss_range(rows: Sequence[Mapping[str, float]], column: str) -> float | None:
    """The same of what is left when the straight line through these epochs is taken out.

    A loss that falls evenly does not swing, however far it falls; None with fewer than five epochs.
    """
    values = rows_within(rows, column)
    if not values:
        return None
    slope, _ = linear_regression(range(len(values)), values)
    left = [value - slope * place for place, value in enumerate(values)]
    return max(left) - min(left)
