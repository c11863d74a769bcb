"""The series' plots of one study: decay and batch size."""

from collections.abc import Sequence

from resnetlab.published.batchnorm_lag import plot_lag
from resnetlab.report import plots
from resnetlab.report.derive import LEVELS
from resnetlab.report.groups import groups_along
from resnetlab.report.plots import Configurations, Plot, seeds_note

ONE_BY_ONE = "Points are single runs; lines join the means of configurations that differ in nothing else."


def plot_decay(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    """Best validation accuracy, epochs to the first two thresholds and fluctuation of the validation loss over wd."""
    lines = groups_along(configurations, "wd")
    if not lines:
        return "Accuracy, epochs and fluctuation over wd: needs two configurations that differ in wd alone."
    members = [c for line in lines for c in line]
    names = [name for name in thresholds if any(c.values(f"epoch_to_{name}") for c in members)][:2]
    asked = " and ".join([f"epochs to {name}{' (hollow)' * (name != names[0])}" for name in names])
    panels = {"best val acc": ["best_val_acc"], asked: [f"epoch_to_{name}" for name in names]}
    panels["max - min of val ce"] = ["val_loss_fluctuation"]  # in epochs 10 to 36
    panels = {label: metrics for label, metrics in panels.items() if any(c.values(m) for m in metrics for c in members)}
    figure, axes = plots.make_panels("wd", dict.fromkeys(panels, 2.0))
    for panel, (label, metrics) in zip(axes, panels.items(), strict=True):
        for place, metric in enumerate(metrics):
            plots.draw_points(panel, lines, "wd", metric, filled=place == 0)
        if label == "max - min of val ce":
            plots.log_scale(panel)
    plots.name_groups(axes[0], lines, "wd")
    plots.legend_above(figure, axes[0])
    drawn = "Best validation accuracy, epochs to a threshold, fluctuation of the validation loss in epochs 10 to 36"
    caption = f"{drawn}, as far as measured. {ONE_BY_ONE} {seeds_note(lines)}"
    return Plot("wd", "Weight decay", caption, figure)


def plot_batch_size(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    lines = groups_along(configurations, "batch_size")
    if not lines:
        return "Epochs to an accuracy, seconds, watts and joules over the batch size: needs it to vary alone."
    members = [c for line in lines for c in line]
    costs = {"s / epoch": "seconds_per_epoch", "W": "power_w", "J / epoch": "joules_per_epoch"}
    costs = {label: name for label, name in costs.items() if any(c.values(name) for c in members)}
    reached = [str(level) for level in LEVELS if any(c.values(f"epoch_to_{level}") for c in members)]
    levels = reached if len(reached) > 1 else thresholds[: len(LEVELS)]
    figure, panels = plots.make_panels("batch size", {"epoch at val acc": 2.4} | dict.fromkeys(costs, 1.2))
    for place, level in enumerate(levels):
        for line in lines:
            known = [c for c in line if c.values(f"epoch_to_{level}")]
            points = [c.setting("batch_size") for c in known], [c.mean(f"epoch_to_{level}") for c in known]
            label = level if line is lines[0] else None
            panels[0].plot(*points, "o-", ms=3, lw=1, color=f"{0.75 * place / len(levels):.2f}", label=label)
    plots.legend_above(figure, panels[0])
    for axes, name in zip(panels[1:], costs.values(), strict=True):
        plots.draw_points(axes, lines, "batch_size", name)
    panels[-1].set_xscale("log", base=2)
    sizes = sorted({c.setting("batch_size") for c in members})
    panels[-1].set_xticks(sizes, [str(size) for size in sizes])
    source = " Watts and joules are the card's." if len(costs) == 3 else " No run has measured power or energy."
    caption = f"Epochs at which an accuracy is first reached, and what an epoch costs. {seeds_note(lines)}{source}"
    return Plot("batch-size", "Batch size", caption, figure)


# each returns its plot, or where it cannot be drawn a sentence that says why
SERIES_PLOTS = (plot_decay, plot_lag, plot_batch_size)
