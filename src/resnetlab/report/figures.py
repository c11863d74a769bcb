"""The figures' paper: size, colours, and the series' own plot of one configuration with a band over its seeds."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from resnetlab.report.columns import number
from resnetlab.report.configurations import Configuration
from resnetlab.report.table import count_text
from resnetlab.runs.curves import TRAIN, VALIDATION
from resnetlab.runs.files import write_atomically, write_text
from resnetlab.runs.load import Run

__all__ = [
    "COLORS",
    "Picture",
    "band",
    "by_epoch",
    "logarithmic",
    "means",
    "paper",
    "series_plot",
    "side_by_side",
    "svg",
    "whole_epochs",
    "write",
]

WIDTH = 5.2  # inches: at a phone's 390 pixels, 9 points are still 8 pixels high
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8b6d00")  # Okabe and Ito's


@dataclass(frozen=True)
class Picture:
    """A figure with the words that go with it. stem: of its files' names."""

    stem: str
    title: str
    caption: str
    figure: Figure


def paper(*heights: float) -> tuple[Figure, list[Any]]:
    """Panels of those heights in inches below each other, with a common x axis."""
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.6))
    inner = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
    high = sum(heights) + 0.6
    figure.subplots_adjust(left=0.15, right=0.97, top=1 - 0.1 / high, bottom=0.5 / high, hspace=0.08)
    panels = [row[0] for row in inner]
    for axes in panels:
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.tick_params(labelsize=8)
    return figure, panels


def svg(figure: Figure) -> bytes:
    """The figure as SVG, without a date and with the same identifiers every time."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "resnetlab", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def write(picture: Picture, folder: Any) -> str:
    """Writes STEM.png and STEM.svg; returns the SVG's text."""
    vector = svg(picture.figure).decode()
    write_text(folder / f"{picture.stem}.svg", vector)
    write_atomically(folder / f"{picture.stem}.png", lambda file: picture.figure.savefig(file, format="png", dpi=120))
    return vector


def series_plot(stem: str, configuration: Configuration, thresholds: Sequence[str]) -> Picture:
    """Accuracies with the thresholds, losses, and the learning rate over the epochs."""
    figure, (accuracy, loss, rate) = paper(2.3, 2.3, 0.9)
    for axes, name in ((accuracy, "acc"), (loss, "loss")):
        for part, color in (("train", TRAIN), ("val", VALIDATION)):
            band(axes, configuration.runs, f"{part}/{name}", color, f"{part}_{name}".replace("train_", ""))
    threshold_lines(accuracy, thresholds)
    accuracy.set_ylabel("accuracy", fontsize=9)
    logarithmic(loss)
    loss.set_ylabel("loss", fontsize=9)
    band(rate, configuration.runs, "lr", "black", "lr")
    rate.set_ylabel("lr", fontsize=9)
    rate.set_xlabel("epoch", fontsize=9)
    whole_epochs(rate)
    accuracy.legend(fontsize=8, loc="lower right")
    loss.legend(fontsize=8)
    caption = f"{configuration.study}: {configuration.label}; {shown(configuration)}"
    return Picture(stem, configuration.label, caption, figure)


def side_by_side(stem: str, configurations: Sequence[Configuration], thresholds: Sequence[str]) -> Picture:
    """Validation accuracy and loss of several configurations, one colour each."""
    figure, (accuracy, loss) = paper(2.6, 2.2)
    for number_, configuration in enumerate(configurations):
        color = COLORS[number_ % len(COLORS)]
        text = f"{configuration.label}, n = {configuration.n}"
        band(accuracy, configuration.runs, "val/acc", color, text if len(text) < 60 else f"{text[:57]} ...")
        band(loss, configuration.runs, "val/loss", color, None)
    threshold_lines(accuracy, thresholds)
    accuracy.set_ylabel("validation accuracy", fontsize=9)
    logarithmic(loss)
    loss.set_ylabel("validation loss", fontsize=9)
    loss.set_xlabel("epoch", fontsize=9)
    whole_epochs(loss)
    accuracy.legend(fontsize=7, loc="lower right")
    caption = (
        "Validation accuracy and loss; lines are means over seeds, bands reach from the least to the greatest run."
    )
    return Picture(stem, "Validation side by side", caption, figure)


def shown(configuration: Configuration) -> str:
    if configuration.n == 1:
        return count_text(1)
    return f"n = {configuration.n}: lines are means, bands reach from the least to the greatest run"


def by_epoch(runs: Sequence[Run], column: str) -> dict[float, list[float]]:
    """The column's values of all runs that have the epoch, in the order of the epochs."""
    epochs: dict[float, list[float]] = {}
    for run in runs:
        for row in run.rows:
            if column in row:
                epochs.setdefault(row["epoch"], []).append(row[column])
    return dict(sorted(epochs.items()))


def means(epochs: Mapping[float, Sequence[float]]) -> list[float]:
    return [sum(values) / len(values) for values in epochs.values()]


def band(axes: Any, runs: Sequence[Run], column: str, color: str, text: str | None) -> None:
    """The mean over the runs that have the epoch, and from the least to the greatest of them."""
    epochs = by_epoch(runs, column)
    at = list(epochs)
    axes.plot(at, means(epochs), color=color, linewidth=1.1, label=text, marker="." if len(at) < 8 else None)
    if len(runs) > 1:
        axes.fill_between(at, [min(epochs[e]) for e in at], [max(epochs[e]) for e in at], color=color, alpha=0.2, lw=0)


def threshold_lines(axes: Any, thresholds: Sequence[str]) -> None:
    """The first solid, the others dotted, as in the series."""
    for place, name in enumerate(thresholds):
        axes.axhline(float(name), color="tab:green", linestyle=":" if place else "-", linewidth=1)
        note = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 7}
        axes.annotate(
            number(float(name), None), (0.01, float(name)), (0, 1 if place else -8), **note, color="tab:green"
        )


def logarithmic(axes: Any) -> None:
    """A logarithmic y axis with ticks at 1, 2 and 5 in each decade; none where the data span less than a factor 5."""
    low, high = axes.dataLim.intervaly
    if not 0 < 5 * low < high:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def whole_epochs(axes: Any) -> None:
    axes.xaxis.get_major_locator().set_params(integer=True)
