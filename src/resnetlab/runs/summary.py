"""summary.json: one flat row, a pure function of a run's configuration and its epochs' metrics. Unknown is null."""

import math
import statistics
from collections.abc import Mapping, Sequence
from statistics import linear_regression
from typing import Any

Row = dict[str, float]
Summary = dict[str, Any]
CHOICES = ("model", "data", "optimizer", "schedule", "regularization", "averaging")
SETTINGS = ("study", "seed", "epochs", "batch_size", "lr", "wd", "l2", "momentum", "ema_momentum", "shift")
FINAL = (  # columns of the last row, of which val/acc becomes final_val_acc
    *("val/acc", "val/acc5", "val/acc_recal", "val/acc_avg", "val/ce_avg", "val/acc_flip", "val/acc_flip_avg"),
    *("train/acc", "train/loss", "train/ce", "val/loss", "val/ce"),
)
AVERAGED = "val/acc_avg"
FLUCTUATION_EPOCHS = (10, 36)  # post IV: the fluctuation begins at 10 to 14, and ends when lr falls
LAG = 0.05  # of accuracy: more than this project's runs differ by between two seeds
MIN_EPOCHS = 5  # of these, for a metric over them


def summarize(config: Any, rows: Sequence[Row], *, status: str, **extra: Any) -> Summary:
    """Build the run's summary.

    config: a Config, which this subpackage does not import. status: finished | diverged. rows: one an epoch, as in
    metrics.csv. extra: what they do not know (parameters, metrics on the test set, where and why a run diverged).
    """
    return {
        "status": status,
        **{choice: getattr(config, choice).name for choice in CHOICES},
        **{key: getattr(config, key) for key in SETTINGS},
        "subset": config.data.limit,
        "epochs_trained": len(rows),
        **threshold_columns(rows, config.thresholds),
        **best_and_final(rows),
        **dict.fromkeys(("final_test_acc", "best_test_acc", "averaged_test_acc")),
        "val_loss_fluctuation": validation_range(rows),
        **fit_sign(rows),
        "improvements": improvements(rows),
        "seconds_per_epoch": median(rows, "time/epoch"),
        "images_per_second": median(rows, "time/images_per_second"),
        **power(rows),
        "parameters": None,
        **extra,
    }


def best_and_final(rows: Sequence[Row]) -> Summary:
    """Epoch and accuracy of the best row, without and with an average, and FINAL of the last row."""
    last = rows[-1] if rows else {}
    best = best_row(rows)
    best_average = best_row([row for row in rows if AVERAGED in row], AVERAGED)
    return {
        "best_epoch": best and int(best["epoch"]),
        "best_val_acc": best and best["val/acc"],
        "best_epoch_avg": best_average and int(best_average["epoch"]),
        "best_val_acc_avg": best_average and best_average[AVERAGED],
        **{f"final_{column.replace('/', '_')}": last.get(column) for column in FINAL},
    }


def threshold_columns(rows: Sequence[Row], thresholds: Sequence[float]) -> Summary:
    """First epoch that reaches each threshold and the validation accuracy there; null where none does."""
    columns: Summary = {}
    for threshold in thresholds:
        reached = next((row for row in rows if row["val/acc"] >= threshold), None)
        columns[f"epoch_to_{threshold}"] = reached and int(reached["epoch"])
        columns[f"val_acc_at_{threshold}"] = reached and reached["val/acc"]
    return columns


def best_column(config: Any) -> str:
    """The column whose best epoch best.ckpt holds: with an average its accuracy, unless best_val_acc is maximized."""
    raw = config.averaging.name == "none" or config.objective == "best_val_acc"
    return "val/acc" if raw else AVERAGED


def best_row(rows: Sequence[Row], column: str = "val/acc") -> Row | None:
    """The first row with the greatest value of the column; of val/acc while no row has the column, as before SWA's."""
    return max(rows, key=lambda row: (column in row, row.get(column, row["val/acc"])), default=None)


def improvements(rows: Sequence[Row]) -> list[list[float]]:
    """[epoch, val_acc] of every epoch with a new best val_acc."""
    found: list[list[float]] = []
    for row in rows:
        if not found or row["val/acc"] > found[-1][1]:
            found.append([int(row["epoch"]), row["val/acc"]])
    return found


def fit_sign(rows: Sequence[Row]) -> Summary:
    """Signs of under- and overfitting after Leslie Smith (2018, arXiv 1803.09820, section 3), as one rule.

    fit_sign: "underfitting" if at the end the validation cross-entropy is below that of training; "overfitting" if it
    has risen by more than 5 % from its minimum (this project's margin: less is noise between epochs) while that of
    training has fallen; else "balanced"; null with fewer than four epochs. Validation is the running median of three
    epochs, because one outlier of stale statistics is no sign, and with re-estimated statistics where there are some.
    overfitting_since: the epoch of that minimum. generalization_gap: validation minus training at the end; gap_growth:
    what it has gained since the middle of the run, for the reader, not part of the rule. Training's metrics are means
    over the epoch, under augmentation and dropout, and so are a little above those of the weights at its end.
    """
    blank: Summary = dict.fromkeys(("fit_sign", "overfitting_since", "generalization_gap", "gap_growth"))
    if len(rows) < 4 or not all(math.isfinite(row["train/ce"]) for row in rows):
        return blank
    column = "val/ce_recal" if "val/ce_recal" in rows[0] else "val/ce"
    train, ces = [row["train/ce"] for row in rows], [row[column] for row in rows]
    val = [statistics.median(ces[max(0, i - 1) : i + 2]) for i in range(len(ces))]
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


def lag_note(rows: Sequence[Row], classes: int) -> str | None:
    """A sentence where batch norm's running statistics lag behind the final weights, so that val/acc says little.

    Seen by re-estimated statistics, where there are some: at least 0.05 of accuracy apart; else suspected where
    validation is at chance (up to 1.5 / classes) and training at twice that or more.
    """
    last = rows[-1] if rows else {}
    train, val, again = (last.get(key, math.nan) for key in ("train/acc", "val/acc", "val/acc_recal"))
    if again - val >= LAG:
        found = f"validation accuracy is {val:.2f} with running batch-norm statistics, {again:.2f} with re-estimated"
        return f"{found} ones (recalibrate_bn=true): the running ones lag, see docs/batch-norm-lag.md"
    if math.isnan(again) and val <= 1.5 / classes and train >= 2 * max(val, 1 / classes):
        found = f"validation accuracy {val:.2f} is at chance, training's is {train:.2f}: batch norm's running"
        return f"{found} statistics may lag; recalibrate_bn=true tells, see docs/batch-norm-lag.md"
    return None


def out_of_patience(rows: Sequence[Row], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no new best val_acc: the rule of early stopping."""
    return patience is not None and len(rows) > 0 and rows[-1]["epoch"] - improvements(rows)[-1][0] >= patience


def power(rows: Sequence[Row]) -> Summary:
    """energy_wh, power_w and gpu_load (%) over training and validation of all epochs; null unless every epoch has them.

    They are the whole card's, with what other processes did on it.
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


def rows_within(rows: Sequence[Mapping[str, float]], column: str) -> list[float]:
    """The column's values in epochs 10 to 36; none where fewer than five of them are there."""
    first, last = FLUCTUATION_EPOCHS
    values = [row[column] for row in rows if first <= row["epoch"] <= last and column in row]
    return values if len(values) >= MIN_EPOCHS else []


def validation_range(rows: Sequence[Mapping[str, float]]) -> float | None:
    """Max - min of val/ce over epochs 10 to 36, as the series reads it off its plots; None with fewer than five."""
    values = rows_within(rows, "val/ce")
    return max(values) - min(values) if values else None


def fluctuation(rows: Sequence[Mapping[str, float]], column: str) -> float | None:
    """Max - min over these epochs after subtracting the regression line: an even fall is no fluctuation.

    None with fewer than five epochs.
    """
    values = rows_within(rows, column)
    if not values:
        return None
    slope, _ = linear_regression(range(len(values)), values)
    residuals = [value - slope * place for place, value in enumerate(values)]
    return max(residuals) - min(residuals)
