"""The columns of the table: the series' own, then what they cost, then the settings."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnetlab.report.configurations import Configuration, plain
from resnetlab.report.statistics import Spread

__all__ = ["NOTHING", "SETTINGS", "Cell", "Column", "ReferenceValues", "cell", "columns", "number", "setting_text"]

NOTHING = "\N{EN DASH}"  # what is not known, or not used
SETTINGS = {
    "model": "model",
    "optimizer": "optimizer",
    "schedule": "schedule",
    "regularization": "regularization",
    "averaging": "averaging",
    "epochs": "epochs",
    "batch_size": "batch",
    "lr": "lr",
    "l2": "l2",
    "wd": "wd",
    "momentum": "momentum",
    "ema_momentum": "m (ema)",
    "shift": "shift",
}
COSTS = ("seconds_per_epoch", "power_w")  # of another machine: no difference in sd of ours


@dataclass(frozen=True)
class ReferenceValues:
    """Published values of one configuration: single runs, or printed averages.

    name: what it is called there. values: by column, for example best_val_acc, epoch_to_0.92, val_acc_at_0.92.
    source: an address.
    """

    name: str
    values: Mapping[str, Sequence[float]]
    source: str = ""

    def mean(self, metric: str) -> float | None:
        """Mean of the published values of one column; None where there is none."""
        values = self.values.get(metric, ())
        return statistics.fmean(values) if values else None


@dataclass(frozen=True)
class Column:
    """One figure. digits: after the point for the mean, None for four significant ones."""

    figure: str
    heading: str
    title: str
    digits: int | None = None

    @property
    def printed_digits(self) -> int | None:
        """Of a single published value: epochs are whole."""
        return 0 if "epoch" in self.figure and self.digits == 1 else self.digits


@dataclass(frozen=True)
class Cell:
    """One figure of one configuration in words. notes: its n, interval and published value."""

    text: str
    notes: tuple[str, ...] = ()
    sort: float | None = None


def columns(thresholds: Sequence[str]) -> list[Column]:
    """All columns of figures; the thresholds' come first."""
    at = [column for name in thresholds for column in of_threshold(name)]
    return [
        *at,
        Column("final_train_acc", "train acc", "training accuracy of the last epoch", 4),
        Column("best_epoch", "best epoch", "epoch of the best validation accuracy", 1),
        Column("best_val_acc", "best val acc", "best validation accuracy, its epoch selected on the same images", 4),
        Column("final_val_acc", "final val acc", "validation accuracy after the last epoch", 4),
        Column("final_test_acc", "final test acc", "last epoch's weights on test images untouched until then", 4),
        Column("best_test_acc", "best test acc", "best epoch's weights on test images untouched until then", 4),
        Column("final_train_loss", "train loss", "training loss of the last epoch, with penalty and smoothing"),
        Column("final_val_loss", "val loss", "validation loss after the last epoch, with penalty and smoothing"),
        Column("final_train_ce", "train ce", "training cross-entropy of the last epoch"),
        Column("final_val_ce", "val ce", "validation cross-entropy after the last epoch"),
        Column("final_penalty", "penalty", "training loss minus cross-entropy: penalty and label smoothing"),
        Column("val_loss_fluctuation", "val fluctuation", "max - min of the validation ce over epochs 10 to 36"),
        Column("noise_scale", "noise g", "eps N / (B (1 - m)) at the start of the run"),
        Column("seconds_per_epoch", "s / epoch", "median seconds an epoch, with validation"),
        Column("power_w", "W", "mean power of the card in watts, whoever used it"),
        Column("joules_per_epoch", "J / epoch", "mean energy of the card an epoch in joules, whoever used it"),
        Column("gpu_load", "load %", "mean percentage of the time in which the card computed, for whomever"),
    ]


def of_threshold(name: str) -> Iterator[Column]:
    yield Column(f"epoch_to_{name}", f"epoch at {name}", f"first epoch with validation accuracy of {name} or more", 1)
    yield Column(f"val_acc_at_{name}", f"val acc at {name}", f"validation accuracy at the first epoch with {name}", 4)
    yield Column(f"train_acc_at_{name}", f"train acc at {name}", f"training accuracy at the first epoch with {name}", 4)


def cell(configuration: Configuration, column: Column, reference: ReferenceValues | None) -> Cell:
    """Mean, sd and interval of one figure, and how far the published one is from it."""
    found = configuration.spread(column.figure)
    printed = () if reference is None else reference.values.get(column.figure, ())
    if found is None:
        missing = "not reached" if column.figure.startswith(("epoch_to_", "val_acc_at_", "train_acc_at_")) else NOTHING
        return Cell(missing, tuple(publication(column, printed)))
    text = number(found.mean, column.digits)
    if found.sd is not None:
        text += f" ± {found.sd:.2g}"
    return Cell(text, tuple(notes(configuration, column, found, printed)), found.mean)


def notes(configuration: Configuration, column: Column, found: Spread, printed: Sequence[float]) -> Iterator[str]:
    """The small lines below a mean."""
    if found.n < configuration.n:
        yield f"n = {found.n} of {configuration.n}" + (", no spread" if found.n == 1 else "")
    if found.low is not None and found.high is not None:
        yield f"{number(found.low, column.digits)} to {number(found.high, column.digits)}"
    for text in publication(column, printed):
        yield text + ("" if column.figure in COSTS else distance(found, printed))


def publication(column: Column, printed: Sequence[float]) -> Iterator[str]:
    """For example "published 0.9230, 0.9242"; nothing where nothing is."""
    if printed:
        yield "published " + ", ".join(number(value, column.printed_digits) for value in sorted(printed))


def distance(found: Spread, printed: Sequence[float]) -> str:
    """For example "; here +1.3 sd": mean minus published in standard deviations of the seeds."""
    return f"; here {(found.mean - statistics.fmean(printed)) / found.sd:+.1f} sd" if found.sd else ""


def number(value: float, digits: int | None) -> str:
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"


def setting_text(configuration: Configuration, key: str) -> str:
    value: Any = configuration.setting(key)
    return NOTHING if value is None else plain(value)
