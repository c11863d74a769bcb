"""Columns of the table: accuracies and epochs first, then costs, then settings; and the cells in them."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from resnetlab.report.groups import Collection, Configuration, format_value
from resnetlab.report.statistics import MeanInterval, mean_interval

NOTHING = "\N{EN DASH}"  # what is not known, or not used
SETTINGS = {  # {key: heading}
    **{key: key for key in ("data", "model", "optimizer", "schedule", "regularization", "averaging", "epochs")},
    **{"batch_size": "batch", "lr": "lr", "l2": "l2", "wd": "wd", "momentum": "momentum"},
    **{"ema_momentum": "EMA momentum", "shift": "shift"},
}
COSTS = ("seconds_per_epoch", "power_w")  # depend on the machine, so that a published one has no distance in sd


class ReferenceValues(NamedTuple):
    """Published values of one configuration: single runs, or printed averages.

    name: what it is called there. values: by column, for example best_val_acc, epoch_to_0.92, val_acc_at_0.92.
    source: an address.
    """

    name: str
    values: Mapping[str, Sequence[float]]
    source: str = ""


class Column(NamedTuple):
    """One metric. digits: after the point for the mean, None for four significant ones."""

    metric: str
    heading: str
    title: str
    digits: int | None = None


class Cell(NamedTuple):
    """One metric of one configuration in words. notes: its n, interval and published value."""

    text: str
    notes: tuple[str, ...] = ()
    sort: float | None = None


def columns(thresholds: Sequence[str]) -> list[Column]:
    """All columns of metrics; accuracies come first, then the thresholds' in ascending order."""
    return [
        Column("best_val_acc", "best val acc", "best validation accuracy, its epoch selected on the same images", 4),
        Column("final_val_acc", "final val acc", "validation accuracy after the last epoch", 4),
        Column("final_val_acc_recal", "re-estimated val acc", "final one with batch-norm statistics re-estimated", 4),
        Column("final_val_acc_avg", "averaged val acc", "final one of averaged weights (EMA, SWA), re-estimated", 4),
        Column("final_test_acc", "final test acc", "last epoch's weights on test images untouched until then", 4),
        Column("best_test_acc", "best test acc", "best epoch's weights on test images untouched until then", 4),
        Column("averaged_test_acc", "averaged test acc", "averaged weights on test images untouched until then", 4),
        Column("best_epoch", "best epoch", "epoch of the best validation accuracy", 1),
        *(column for name in sorted(thresholds, key=float) for column in threshold_columns(name)),
        Column("final_train_acc", "train acc", "training accuracy of the last epoch", 4),
        Column("final_train_loss", "train loss", "training loss of the last epoch, with penalty and smoothing"),
        Column("final_val_loss", "val loss", "validation loss after the last epoch, with penalty and smoothing"),
        Column("final_train_ce", "train ce", "training cross-entropy of the last epoch"),
        Column("final_val_ce", "val ce", "validation cross-entropy after the last epoch"),
        Column("final_penalty", "penalty", "training loss minus cross-entropy: penalty and label smoothing"),
        Column("val_loss_fluctuation", "val fluctuation", "max - min of the validation ce over epochs 10 to 36"),
        Column("noise_scale", "noise g", "lr N / (B (1 - momentum)) at the start of the run, N images, batch size B"),
        Column("seconds_per_epoch", "s / epoch", "median seconds an epoch, with validation"),
        Column("power_w", "W", "mean power of the card in watts, whoever used it"),
        Column("joules_per_epoch", "J / epoch", "mean energy of the card an epoch in joules, whoever used it"),
        Column("gpu_load", "load %", "mean percentage of the time in which the card computed, for whomever"),
    ]


def threshold_columns(name: str) -> Iterator[Column]:
    yield Column(f"epoch_to_{name}", f"epoch at {name}", f"first epoch with validation accuracy of {name} or more", 1)
    yield Column(f"val_acc_at_{name}", f"val acc at {name}", f"validation accuracy at the first epoch with {name}", 4)
    yield Column(f"train_acc_at_{name}", f"train acc at {name}", f"training accuracy at the first epoch with {name}", 4)


def measured_columns(collection: Collection) -> list[Column]:
    """The columns whose metric any run has."""
    return [c for c in columns(collection.thresholds) if any(k.values(c.metric) for k in collection.configurations)]


def cell(configuration: Configuration, column: Column, reference: ReferenceValues | None) -> Cell:
    """Mean, sd and interval of one metric, and how far the published one is from it."""
    found = configuration.interval(column.metric)
    published = () if reference is None else reference.values.get(column.metric, ())
    if found is None:
        missing = "not reached" if column.metric.startswith(("epoch_to_", "val_acc_at_", "train_acc_at_")) else NOTHING
        return Cell(missing, tuple(published_note(column, published)))
    text = mean_sd(configuration.values(column.metric), found.n, column.digits)
    return Cell(text, tuple(notes(configuration, column, found, published)), found.mean)


def notes(
    configuration: Configuration, column: Column, found: MeanInterval, published: Sequence[float]
) -> Iterator[str]:
    """The small lines below a mean: n, interval, published values."""
    if found.n < configuration.n:
        yield f"n = {found.n} of {configuration.n}" + (", no spread" if found.n == 1 else "")
    if found.low is not None and found.high is not None:
        yield f"{number(found.low, column.digits)} to {number(found.high, column.digits)}"
    for text in published_note(column, published):
        if found.sd and column.metric not in COSTS:
            text += f"; here {(found.mean - statistics.fmean(published)) / found.sd:+.1f} sd"
        yield text


def published_note(column: Column, published: Sequence[float]) -> Iterator[str]:
    """For example "published 0.9230, 0.9242"; nothing where there is none."""
    if published:
        digits = 0 if "epoch" in column.metric and column.digits == 1 else column.digits  # a single epoch is whole
        yield "published " + ", ".join(number(value, digits) for value in sorted(published))


def mean_sd(values: Sequence[float], of: int, digits: int | None = None) -> str:
    """For example "0.9231 ± 0.0012"; "(2 of 3)" behind it where not all of the runs have a value."""
    found = mean_interval(values)
    if found is None:
        return NOTHING
    text = number(found.mean, digits) + ("" if found.sd is None else f" ± {found.sd:.2g}")
    return text if found.n == of else f"{text} ({found.n} of {of})"


def number(value: float, digits: int | None) -> str:
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"


def setting_text(configuration: Configuration, key: str) -> str:
    value = configuration.setting(key)
    return NOTHING if value is None else format_value(value)
