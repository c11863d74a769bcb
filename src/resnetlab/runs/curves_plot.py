"""curves.png: accuracies, losses and learning rate of one run over the epochs, as the series plots them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from resnetlab.runs.files import write_atomically
from resnetlab.runs.summary import Row, Summary, best_row

TRAIN, VALIDATION, RECALIBRATED, AVERAGED = "tab:red", "tab:blue", "tab:cyan", "tab:purple"
LINES = (  # the beginning and the end of a column's name, its colour, its name in the legend
    ("train", "", TRAIN, "train"),
    ("val", "", VALIDATION, "val"),
    ("val", "_recal", RECALIBRATED, "val, statistics re-estimated"),
    ("val", "_avg", AVERAGED, "val, averaged weights"),
)
ROOM = 0.25  # of the height of the curves, above them: a threshold that is farther off would squash them
Points = tuple[list[float], list[float]]


def draw_curves(
    rows: Sequence[Row], thresholds: Sequence[float], title: str, path: Path, summary: Summary, rates: Points | None
) -> None:
    """Write the plot: train red, validation blue, thresholds green (the first solid, the others dotted).

    A row's values stand where its epoch ends: epoch e at e. rates: (epochs done, lr) of every step as it was applied;
    None: the lr of each epoch's first step, over its epoch. summary: whose signs of under- and overfitting are drawn.
    """
    figure = Figure(figsize=(10, 9))
    figure.subplots_adjust(left=0.1, right=0.74, top=0.95, bottom=0.06, hspace=0.06)  # a layout engine draws it twice
    accuracy, loss, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.2])
    figure.suptitle(title, fontsize=9, y=0.98)
    draw_accuracy(accuracy, rows, thresholds)
    draw_loss(loss, rows, summary["fit_sign"], summary["overfitting_since"])
    draw_lr(rate, rates or epochs_rates(rows))
    for axes in (accuracy, loss, rate):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in (accuracy, loss):
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))


def draw_accuracy(axes: Any, rows: Sequence[Row], thresholds: Sequence[float]) -> None:
    draw_lines(axes, rows, "acc")
    best = best_row(rows) or {}
    named = f"best: {best['val/acc']:.4f} in epoch {best['epoch']:g}"
    axes.plot(best["epoch"], best["val/acc"], "*", color=VALIDATION, ms=12, mec="black", label=named)
    shown = within_reach(axes, thresholds)
    for threshold in sorted(thresholds):
        if threshold in shown:
            style, label = "-" if threshold == thresholds[0] else ":", f"threshold {threshold:g}"
            axes.axhline(threshold, color="tab:green", linestyle=style, linewidth=1, label=label)
        else:
            axes.plot([], [], " ", label=f"threshold {threshold:g}: off this axis")
    axes.set(ylabel="accuracy")


def within_reach(axes: Any, thresholds: Iterable[float]) -> list[float]:
    """The thresholds among the curves drawn so far or a little above them."""
    low, high = axes.dataLim.intervaly
    return [value for value in thresholds if low <= value <= high + ROOM * (high - low)]


def draw_loss(axes: Any, rows: Sequence[Row], fit_sign: str | None, overfitting_since: int | None) -> None:
    draw_lines(axes, rows, "loss")
    if any(row["train/loss"] != row["train/ce"] for row in rows):  # a penalty or label smoothing is in the loss
        for column, color in (("train/ce", TRAIN), ("val/ce", VALIDATION)):
            label = f"{column.split('/')[0]}, cross-entropy alone"
            axes.plot(*points(rows, column), color=color, linestyle="--", linewidth=1, label=label)
    if overfitting_since is not None:
        label = f"overfitting since epoch {overfitting_since}"
        axes.axvline(overfitting_since, color="tab:orange", linestyle=":", label=label)
    elif fit_sign == "underfitting":
        axes.plot([], [], " ", label="underfitting: validation\nends below training")
    axes.set(ylabel="loss")
    log_scale(axes)


def log_scale(axes: Any) -> None:
    """A logarithmic y axis with ticks at 1, 2 and 5 in each decade; none where the data span less than a factor 5."""
    low, high = axes.dataLim.intervaly
    if not 0 < 5 * low < high:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def draw_lr(axes: Any, applied: Points) -> None:
    epochs, rates = applied
    axes.plot(epochs, rates, color="black", linewidth=1, drawstyle="steps-post")
    axes.set(ylabel="learning rate", xlabel="epoch", xlim=(0, None))
    if min(rates) > 0 and max(rates) >= 10 * min(rates):
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(0.8 * min(rates), 1e-4 * max(rates)))  # 1cycle ends at 4e-6 of its peak
        axes.yaxis.set_minor_formatter(NullFormatter())  # the decades are enough in so low a panel


def epochs_rates(rows: Sequence[Row]) -> Points:
    """(epochs done, lr) of each epoch's first step, which is e - 1 for epoch e, and the last lr again at the end."""
    epochs, rates = points(rows, "lr")
    return [*(epoch - 1 for epoch in epochs), *epochs[-1:]], [*rates, *rates[-1:]]


def draw_lines(axes: Any, rows: Sequence[Row], name: str) -> None:
    marker = "." if len(rows) < 30 else None
    for prefix, suffix, color, label in LINES:
        epochs, values = points(rows, f"{prefix}/{name}{suffix}")
        if epochs:
            axes.plot(epochs, values, color=color, marker=marker, label=label)


def points(rows: Sequence[Row], column: str) -> Points:
    present = [row for row in rows if column in row]
    return [row["epoch"] for row in present], [row[column] for row in present]
