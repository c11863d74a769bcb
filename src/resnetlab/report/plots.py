"""Plots of a report: their panels and colours, the curves of configurations, and metrics over a setting."""

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

from resnetlab.report.columns import number
from resnetlab.report.groups import SHOWN_APART, Configuration, describe_setting
from resnetlab.report.table import count_text
from resnetlab.runs.curves_plot import LINES, epochs_rates, within_reach
from resnetlab.runs.curves_plot import log_scale as log_scale
from resnetlab.runs.files import write_atomically, write_text

Configurations = Sequence[Configuration]
WIDTH = 4.6  # inches: at a phone's 390 pixels, 8 points are still 9 pixels high
COLORS = (  # Okabe and Ito's eight, then darker and lighter ones
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8b6d00", "#56b4e9", "#000000", "#e69f00"),
    *("#882255", "#44aa99", "#332288", "#999933", "#aa4499", "#117733", "#88ccee", "#ddcc77"),
)
MOST_LINES = 8  # in one panel
STYLES = ("-", "--", ":", "-.")


class Plot(NamedTuple):
    """A figure with its title and caption. stem: of its files' names.

    address: a data URL of the SVG, once the files are written; the figure, which takes megabytes, is then None.
    """

    stem: str
    title: str
    caption: str
    figure: Any
    address: str = ""


def make_panels(x: str, heights: Mapping[str, float]) -> tuple[Figure, list[Any]]:
    """(figure, axes) of panels below each other with a common x axis. heights: in inches, by label of the y axis."""
    high = sum(heights.values()) + 0.6
    figure = Figure(figsize=(WIDTH, high))
    ratios = list(heights.values())
    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0])
    figure.subplots_adjust(left=0.16, right=0.97, top=1 - 0.1 / high, bottom=0.5 / high, hspace=0.08)
    for axes, label in zip(panels, heights, strict=True):
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.tick_params(labelsize=8)
        axes.set_ylabel(label, fontsize=9 if len(label) < 20 else 8)
    panels[-1].set_xlabel(x, fontsize=9)
    if x == "epoch":
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure, panels


def color_of(configuration: Configuration) -> str:
    """The configuration's colour, the same in every figure of a report."""
    return COLORS[configuration.rank % len(COLORS)]


def legend_above(figure: Figure, axes: Any) -> None:
    """The legend of the axes above all panels, where it hides no curve; the figure grows by its height."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    columns = max(1, min(len(labels), 71 // (max(map(len, labels)) + 9)))
    labels = ["\n".join(textwrap.wrap(label, 62)) for label in labels]
    (wide, high), margins = figure.get_size_inches(), figure.subplotpars
    grown = high + 0.18 * -(-sum(label.count("\n") + 1 for label in labels) // columns) + 0.1
    top = 1 - ((1 - margins.top) * high + grown - high) / grown
    figure.set_size_inches(wide, grown)
    figure.subplots_adjust(bottom=margins.bottom * high / grown, top=top)
    figure.legend(handles, labels, loc="upper center", ncols=columns, fontsize=8, frameon=False)


def write_plot(plot: Plot, folder: Path, prefix: str) -> Plot:
    """Write PREFIX-STEM.png and PREFIX-STEM.svg, the latter without a date and with the same identifiers every time."""
    stem, buffer = f"{prefix}-{plot.stem}", io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "resnetlab", "svg.fonttype": "none"}):
        plot.figure.savefig(buffer, format="svg", metadata={"Date": None})
    write_text(folder / f"{stem}.svg", buffer.getvalue().decode())
    write_atomically(folder / f"{stem}.png", lambda file: plot.figure.savefig(file, format="png", dpi=120))
    address = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    return plot._replace(stem=stem, figure=None, address=address)


def plot_curves(stem: str, configuration: Configuration, thresholds: Sequence[str]) -> Plot:
    """Accuracies with the thresholds, losses, and the learning rate of one configuration over the epochs."""
    figure, (accuracy, loss, rate) = make_panels("epoch", {"accuracy": 2.3, "loss": 2.3, "lr": 0.9})
    for axes, name in ((accuracy, "acc"), (loss, "loss")):
        for part, suffix, color, label in LINES:
            if any(f"{part}/{name}{suffix}" in row for run in configuration.runs for row in run.rows):
                draw_band(axes, configuration, f"{part}/{name}{suffix}", color, label)
    draw_thresholds(accuracy, thresholds)
    log_scale(loss)
    longest = max(configuration.runs, key=lambda run: len(run.rows))
    rate.plot(*epochs_rates(longest.rows), color="black", linewidth=1.1, drawstyle="steps-post")
    legend_above(figure, accuracy)
    several = f"n = {configuration.n}: lines are means, bands reach from the least to the greatest run"
    seeds = count_text(1) if configuration.n == 1 else several
    caption = f"{configuration.study}: {configuration.label}; {seeds}; lr as at each epoch's first step"
    return Plot(stem, configuration.label, caption, figure)


def draw_band(axes: Any, c: Configuration, column: str, color: str, label: str | None, style: str = "-") -> None:
    """The mean over the runs that have the epoch; about a solid line a band from the least to the greatest of them."""
    epochs = c.by_epoch(column)
    at, marker = list(epochs), "." if len(epochs) < 8 else None
    axes.plot(at, [fmean(values) for values in epochs.values()], style, color=color, lw=1.1, label=label, marker=marker)
    if c.n > 1 and style == "-":
        axes.fill_between(at, [min(epochs[e]) for e in at], [max(epochs[e]) for e in at], color=color, alpha=0.2, lw=0)


def draw_thresholds(axes: Any, thresholds: Sequence[str]) -> None:
    """Horizontal lines: the first solid, the others dotted; what is far from the curves is only said."""
    style = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8, "color": "0.35"}
    values = [float(name) for name in thresholds]
    shown = within_reach(axes, values)
    if hidden := [number(value, None) for value in sorted(values) if value not in shown]:
        corner = {"transform": axes.transAxes, "va": "bottom", "ha": "right"}
        axes.text(0.99, 0.02, f"off this axis: {', '.join(hidden)}", fontsize=8, color="0.35", **corner)
    for place, value in enumerate(values):
        if value in shown:
            axes.axhline(value, color="0.35", linestyle=":" if place else "-", linewidth=1)
            axes.annotate(number(value, None), (0.01 + 0.1 * place, value), (0, 1 if place else -8), **style)


def draw_points(axes: Any, groups: Sequence[Configurations], key: str, metric: str, filled: bool = True) -> None:
    """Every run as a point over the setting in its configuration's colour, the means with their 95 % intervals joined.

    One style of line a group; filled: dark means and full points.
    """
    for style, group in zip(cycle(STYLES), groups, strict=False):
        for c in group:
            color = color_of(c)
            points = {"color": color, "markerfacecolor": color if filled else "white", "alpha": 0.8}
            axes.plot([c.setting(key)] * len(c.values(metric)), c.values(metric), "o", ms=4, **points)
        known = [c for c in group if c.values(metric)]
        at, grey = [c.setting(key) for c in known], "#777777" if filled else "#bbbbbb"
        axes.plot(at, [c.mean(metric) for c in known], style, color=grey, lw=1, zorder=1)
        for x, found in zip(at, (c.interval(metric) for c in known), strict=True):
            if found is not None and found.low is not None:
                axes.vlines(x, found.low, found.high, color=grey, lw=3, alpha=0.5)


def name_groups(axes: Any, groups: Sequence[Configurations], key: str) -> None:
    """Name the groups by the settings in which they differ; none for a single group or more than there are styles."""
    if not 1 < len(groups) <= len(STYLES):
        return
    identities = [group[0].identity or {} for group in groups]
    keys = dict.fromkeys(other for identity in identities for other in identity if other != key)
    varied = [name for name in keys if len({repr(identity.get(name)) for identity in identities}) > 1]
    varied = [name for name in varied if name not in SHOWN_APART] or varied
    for style, group in zip(STYLES, groups, strict=False):
        parts = [describe_setting(group[0], name) or f"default {name.split('.')[-1]}" for name in varied]
        axes.plot([], [], style, color="#777777", label=", ".join(parts))


def seeds_note(groups: Sequence[Configurations]) -> str:
    """For example "n = 3 to 5 a point."."""
    ns = sorted({c.n for group in groups for c in group})
    return f"n = {ns[0]} a point." if len(ns) == 1 else f"n = {ns[0]} to {ns[-1]} a point."
