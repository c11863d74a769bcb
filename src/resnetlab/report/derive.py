"""Metrics of a run that its summary does not hold, derived from its rows."""

from collections.abc import Iterable
from statistics import fmean

from resnetlab.runs.load import Run
from resnetlab.runs.summary import Row, fluctuation, rows_within

# the accuracies whose "transition epochs" the series tabulates over the batch size (part I, observation 4)
LEVELS = (0.91, 0.92, 0.925, 0.927, 0.928, 0.93)


def add_derived_metrics(run: Run, thresholds: Iterable[str]) -> None:
    """Add what rows and summary tell: thresholds' epochs and accuracies, gaps, noise scale, energy, fluctuations()."""
    run.metrics = {k: v for k, v in run.metrics.items() if not k.startswith(("epoch_to_", "val_acc_at_"))}
    for name in {*thresholds, *map(str, LEVELS)}:
        run.metrics |= threshold_metrics(run.rows, name)
    last = run.rows[-1]
    if "train/loss" in last and "train/ce" in last:
        run.metrics["final_penalty"] = last["train/loss"] - last["train/ce"]
    averaged = "best_val_acc_avg" in run.metrics and run.manifest.get("config", {}).get("objective") != "best_val_acc"
    tested = "best_val_acc_avg" if averaged else "best_val_acc"  # of the weights that best.ckpt was saved for
    pairs = ("best_minus_final", "best_val_acc", "final_val_acc"), ("best_minus_test", tested, "best_test_acc")
    for name, own, other in pairs:
        if {own, other} <= run.metrics.keys():
            run.metrics[name] = run.metrics[own] - run.metrics[other]
    run.metrics |= fluctuations(run)
    if (scale := noise_scale(run)) is not None:
        run.metrics["noise_scale"] = scale
    if "energy_wh" in run.metrics:
        run.metrics["joules_per_epoch"] = run.metrics["energy_wh"] * 3600 / len(run.rows)


def threshold_metrics(rows: Iterable[Row], name: str) -> dict[str, float]:
    """epoch_to_X, val_acc_at_X and train_acc_at_X of the first epoch with that validation accuracy; absent if none."""
    reached = next((row for row in rows if row.get("val/acc", 0.0) >= float(name)), {})
    columns = {"epoch_to": "epoch", "val_acc_at": "val/acc", "train_acc_at": "train/acc"}
    return {f"{metric}_{name}": reached[column] for metric, column in columns.items() if column in reached}


def fluctuations(run: Run) -> dict[str, float]:
    """Metrics of the fluctuation over epochs 10 to 36; absent if unknown.

    Empty where the schedule is stretched, which takes its high rates out of these epochs. fluctuation_*: max - min of a
    cross-entropy less its regression line; weight_norm and relative_update (of one step): means.
    """
    if run.manifest.get("differs_from_defaults", {}).get("schedule.stretch"):
        return {}
    found: dict[str, float | None] = {
        "fluctuation_train": fluctuation(run.rows, "train/ce"),
        "fluctuation_running": fluctuation(run.rows, "val/ce"),
        "fluctuation_recal": fluctuation(run.rows, "val/ce_recal"),
    }
    for name, column in (("least_val_acc", "val/acc"), ("least_val_acc_recal", "val/acc_recal")):
        found[name] = min(rows_within(run.rows, column), default=None)
    for column in ("weight_norm", "relative_update"):
        found[column] = fmean(values) if (values := rows_within(run.rows, column)) else None
    return {name: value for name, value in found.items() if value is not None}


def noise_scale(run: Run) -> float | None:
    """g = eps N / (B (1 - m)) at the start of the run, Smith and Le (2017), arXiv 1710.06451; None if unknown.

    eps: the learning rate, m: the momentum (of Adam and its kin: beta1), N: the training images, B: the batch size.
    """
    batch, row = run.metrics.get("batch_size"), run.rows[0]
    momentum = row.get("momentum", run.metrics.get("momentum", 0.0))
    if not batch or momentum >= 1 or not {"lr", "time/train", "time/images_per_second"} <= row.keys():
        return None
    return row["lr"] * round(row["time/train"] * row["time/images_per_second"]) / (batch * (1 - momentum))
