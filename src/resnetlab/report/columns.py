"""Columns of the table: accuracies and epochs first, then costs, then settings; and the cells in them."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from resnetlab.report.groups import NOTHING, Collection, Configuration
from resnetlab.report.statistics import MeanInterval
from resnetlab.runs.files import data_beside

COLUMNS = data_beside(__file__, "columns.toml")
SETTINGS: dict[str, str] = COLUMNS["setting"]  # {key: heading}
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
    names = sorted(thresholds, key=float)
    at = [(*(text.format(name) for text in texts), digits) for name in names for *texts, digits in COLUMNS["threshold"]]
    return [Column(*parts) for parts in (*COLUMNS["before_thresholds"], *at, *COLUMNS["after_thresholds"])]


def measured_columns(collection: Collection) -> list[Column]:
    """The columns whose metric any run has."""
    return [c for c in columns(collection.thresholds) if any(k.interval(c.metric) for k in collection.configurations)]


def cell(configuration: Configuration, column: Column, reference: ReferenceValues | None) -> Cell:
    """Mean, sd and interval of one metric, and how far the published one is from it."""
    found = configuration.interval(column.metric)
    published = () if reference is None else reference.values.get(column.metric, ())
    if found is None:
        missing = "not reached" if column.metric.startswith(("epoch_to_", "val_acc_at_", "train_acc_at_")) else NOTHING
        return Cell(missing, tuple(published_note(column, published)))
    text = mean_sd(found, found.n, column.digits)
    return Cell(text, tuple(notes(configuration, column, found, published)), found.mean)


def notes(c: Configuration, column: Column, found: MeanInterval, published: Sequence[float]) -> Iterator[str]:
    """The small lines below a mean: n, interval, published values."""
    if found.n < c.n:
        yield f"n = {found.n} of {c.n}" + (", no spread" if found.n == 1 else "")
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


def mean_sd(found: MeanInterval | None, of: int, digits: int | None = None) -> str:
    """For example "0.9231 ± 0.0012"; "(2 of 3)" behind it where not all of the runs have a value."""
    if found is None:
        return NOTHING
    text = number(found.mean, digits) + ("" if found.sd is None else f" ± {found.sd:.2g}")
    return text if found.n == of else f"{text} ({found.n} of {of})"


def number(value: float, digits: int | None) -> str:
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
