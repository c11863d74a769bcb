"""Plots of what came out of a study: accuracy over the epochs, share of runs at a threshold, performance profiles."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from resnetlab.report import plots
from resnetlab.report.groups import Key, groups_along, short_labels
from resnetlab.report.plots import Configurations, Plot, color_of
from resnetlab.report.statistics import share_interval

MOST_COLORED, MOST_BANDS, MOST_CHARACTERS = 5, 3, 40
GREY = "#b4bac1"
HIGH, LINE = 3.4, 0.15  # inches: the large figure, and a line of the names beside it


def headline_plots(ranked: Configurations, thresholds: Sequence[str]) -> Iterator[Plot]:
    """The large figure, and the others where they can be drawn. ranked: a study's configurations, the best first."""
    if ranked := [c for c in ranked if c.by_epoch("val/acc")]:
        yield plot_accuracy(ranked, thresholds)
    if groups := groups_along(ranked, "epochs"):
        yield plot_lengths(groups, thresholds)
    for name in thresholds[:1]:
        if reached := [c for c in ranked if c.n > 1 and c.values(f"epoch_to_{name}")]:
            yield plot_reached(reached[:MOST_BANDS], name)
    crossings = {name: {c.key: e for c in ranked if (e := c.crossing(name)) is not None} for name in thresholds}
    costs = [found for found in crossings.values() if found]
    if len(costs) > 1 and len(ranked) > 1:
        yield plot_profiles(ranked[:MOST_COLORED], costs)


def plot_accuracy(ranked: Configurations, thresholds: Sequence[str]) -> Plot:
    """Validation accuracy over the epochs: the best few in colour and named where they end, the others grey."""
    figure, (axes,) = plots.make_panels("epoch", {"validation accuracy": HIGH})
    colored, others = ranked[:MOST_COLORED], ranked[MOST_COLORED:]
    for epochs in (c.by_epoch("val/acc") for c in others):  # their bands would cover all
        axes.plot(list(epochs), [fmean(values) for values in epochs.values()], color=GREY, lw=0.8)
    for c in reversed(colored):
        plots.draw_band(axes, c, "val/acc", color_of(c), None)
        plots.draw_band(axes, c, "val/acc_recal", color_of(c), None, "--")
    again = "batch-norm statistics re-estimated" if any(c.by_epoch("val/acc_recal") for c in colored) else ""
    for style, color, label in (("-", GREY, f"{len(others)} more" if others else ""), ("--", "black", again)):
        axes.plot([], [], style, color=color, label=label) if label else None
    plots.draw_thresholds(axes, thresholds)
    risen = max(len(run.rows) for run in ranked[0].runs) // 3  # epochs: the steep rise, which would squash the rest
    late = [fmean(values) for c in colored for e, values in c.by_epoch("val/acc").items() if e > risen]
    axes.set_ylim(bottom=min(late or [0.01]) - 0.01)
    plots.legend_above(figure, axes)
    name_ends(axes, colored, short_labels(ranked, MOST_CHARACTERS))
    figure.subplots_adjust(right=0.68)
    bands = "Lines are means over seeds, bands reach from the least to the greatest run."
    return Plot("accuracy", "Validation accuracy over the epochs", bands, figure)


def name_ends(axes: Any, configurations: Configurations, labels: Mapping[Key, str]) -> None:
    """Name the curves at the right in their colours, as high as they end where there is room."""
    low, high = axes.get_ylim()
    names = {c.key: f"{labels[c.key]}, n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{c.n}" for c in configurations}
    texts = {key: "\n".join(textwrap.wrap(name, 19, max_lines=3)) for key, name in names.items()}
    halves = {key: LINE / HIGH / 2 * (text.count("\n") + 1.4) for key, text in texts.items()}
    ends = {c.key: fmean([*c.by_epoch("val/acc").values()][-1]) for c in configurations}
    top, below = 1.0, 2 * sum(halves.values())
    for c in sorted(configurations, key=lambda c: -ends[c.key]):
        half, text = halves[c.key], texts[c.key]
        below -= 2 * half
        middle = max(min((ends[c.key] - low) / (high - low), top - half), below + half)
        axes.text(1.03, middle, text, transform=axes.transAxes, va="center", fontsize=8, color=color_of(c))
        top = middle - half


def plot_lengths(groups: Sequence[Configurations], thresholds: Sequence[str]) -> Plot:
    """Final validation accuracy against the number of epochs, of groups that differ in that alone."""
    figure, (axes,) = plots.make_panels("epochs of the run", {"final validation accuracy": 2.6})
    ways = {"final_val_acc": "as usually computed"}
    if any(c.values("final_val_acc_recal") for group in groups for c in group):
        ways["final_val_acc_recal"] = "batch-norm statistics re-estimated"
    for metric, label in ways.items():
        filled = metric == "final_val_acc"
        plots.draw_points(axes, groups, "epochs", metric, filled)
        if len(ways) > 1:
            color, face = ("#777777", None) if filled else ("#bbbbbb", "white")
            axes.plot([], [], "o-", ms=4, lw=1, color=color, markerfacecolor=face, label=label)
    plots.draw_thresholds(axes, thresholds)
    plots.name_groups(axes, groups, "epochs")
    plots.legend_above(figure, axes)
    about = "Each point is a run of that many epochs; lines join the means, bars are 95 % intervals (from n = 3 on)."
    return Plot("lengths", "Accuracy against number of epochs", f"{about} {plots.seeds_note(groups)}", figure)


def plot_reached(configurations: Configurations, threshold: str) -> Plot:
    """The share of runs whose validation accuracy has reached the threshold by an epoch, with its interval."""
    figure, (axes,) = plots.make_panels("epoch", {f"share of runs at {threshold}": 2.4})
    for c in configurations:
        epochs = range(max(len(run.rows) for run in c.runs) + 1)
        counts = [sum(first <= epoch for first in c.values(f"epoch_to_{threshold}")) for epoch in epochs]
        lows, highs = zip(*(share_interval(k, c.n) for k in counts), strict=True)
        label = f"{c.label}, n = {c.n}"
        axes.step(epochs, [k / c.n for k in counts], where="post", color=color_of(c), lw=1.2, label=label)
        axes.fill_between(epochs, lows, highs, step="post", color=color_of(c), alpha=0.12, lw=0)
    plots.legend_above(figure, axes)
    caption = f"Runs with an epoch of {threshold} or more so far; bands are Clopper and Pearson's 95 % interval."
    return Plot("reached", f"Share of runs that have reached {threshold}", caption, figure)


def plot_profiles(configurations: Configurations, costs: Sequence[Mapping[Key, float]]) -> Plot:
    """Performance profiles. costs: of each threshold, the epochs that the mean of the configurations takes to it."""
    figure, (axes,) = plots.make_panels("factor of the fewest epochs", {"share of thresholds": 2.4})
    factors = [sorted(found[c.key] / min(found.values()) for found in costs if c.key in found) for c in configurations]
    most = 1.05 * max(factor for reached in factors for factor in (1.0, *reached))
    for c, reached in zip(configurations, factors, strict=True):
        shares = [place / len(costs) for place in (*range(len(reached) + 1), len(reached))]
        axes.step([1.0, *reached, most], shares, where="post", color=color_of(c), lw=1.2, label=c.label)
    plots.legend_above(figure, axes)
    what = f"the share of {len(costs)} thresholds that the mean over seeds reaches within a factor of the fewest epochs"
    return Plot("profiles", "Performance profiles", f"Dolan and Moré 2002: {what}.", figure)
