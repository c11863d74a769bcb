"""The series' plots of one study: decay, batch size, noise scale, and what selecting the epoch adds."""

from collections.abc import Sequence

from resnetlab.published.batchnorm_lag import plot_lag
from resnetlab.report import plots
from resnetlab.report.derive import LEVELS, noise_scales
from resnetlab.report.groups import Configuration, groups_along
from resnetlab.report.plots import Configurations, Plot, seeds_note

ONE_BY_ONE = "Points are single runs; lines join the means of configurations that differ in nothing else."


def plot_decay(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    lines = groups_along(configurations, "wd")
    if not lines:
        return "Accuracy and epochs over wd: needs two configurations that differ in wd alone."
    names = [name for name in thresholds if any(c.values(f"epoch_to_{name}") for line in lines for c in line)][:2]
    asked = " and ".join([f"epochs to {name}{' (hollow)' * (name != names[0])}" for name in names])
    figure, (accuracy, *epochs) = plots.make_panels("wd", {"best val acc": 2.0} | ({asked: 2.0} if names else {}))
    plots.draw_points(accuracy, lines, "wd", "best_val_acc")
    for place, name in enumerate(names):
        plots.draw_points(epochs[0], lines, "wd", f"epoch_to_{name}", filled=place == 0)
    plots.name_groups(accuracy, lines, "wd")
    plots.legend_above(figure, accuracy)
    reached = "and epochs to the threshold over wd" if names else "over wd; no run reached a threshold"
    caption = f"Best validation accuracy {reached}. {ONE_BY_ONE} {seeds_note(lines)}"
    return Plot("wd", "Weight decay", caption, figure)


def plot_fluctuation(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    lines = [line for line in groups_along(configurations, "wd") if any(c.values("val_loss_fluctuation") for c in line)]
    if not lines:
        return "Fluctuation of the validation loss over wd: needs wd to vary alone, and runs of 14 epochs or more."
    figure, (axes,) = plots.make_panels("wd", {"max - min of val ce, epochs 10 to 36": 2.4})
    plots.draw_points(axes, lines, "wd", "val_loss_fluctuation")
    plots.log_scale(axes)
    plots.name_groups(axes, lines, "wd")
    plots.legend_above(figure, axes)
    caption = f"How far the validation loss fluctuates in epochs 10 to 36 over wd. {ONE_BY_ONE} {seeds_note(lines)}"
    return Plot("fluctuation", "Fluctuation of the validation loss", caption, figure)


def plot_penalty(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    bars = [c for c in configurations if c.values("final_train_ce") and c.values("final_penalty")]
    bars = bars[: plots.MOST_BARS]
    if len({c.setting("regularization") for c in bars}) < 2 and not any(any(c.values("final_penalty")) for c in bars):
        return "Cross-entropy and penalty apart: needs an L2 penalty, or two regularizations to set beside each other."
    figure, axes = plots.make_bars("loss at the end of the run", bars)
    places = range(len(bars))
    ce, extra = ([c.mean(metric) for c in bars] for metric in ("final_train_ce", "final_penalty"))
    axes.barh(places, ce, color=plots.COLORS[0], height=0.6, label="train cross-entropy")
    axes.barh(places, extra, left=ce, color=plots.COLORS[4], height=0.6, label="penalty (and label smoothing)")
    axes.plot([c.mean("final_val_ce") for c in bars], places, "D", color="black", ms=4, label="val cross-entropy")
    figure.legend(fontsize=7, loc="upper right", ncols=3)
    caption = f"Final training loss taken apart, means over seeds. {plots.selection_note(len(bars), configurations)}"
    return Plot("penalty", "Cross-entropy and penalty", caption, figure)


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


def plot_noise_scale(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    alike: dict[tuple[tuple[float, float], ...], list[Configuration]] = {}
    for c in configurations:
        if found := tuple(noise_scales(c.runs[0])):
            alike.setdefault(found, []).append(c)
    if len(alike) < 2:
        return "Noise scale: needs two configurations in which it differs; lr and batch size set it."
    figure, (axes,) = plots.make_panels("epoch", {"lr N / (B (1 - momentum))": 2.4})
    for scales, (c, *others) in list(alike.items())[: plots.MOST_LINES]:
        style = {"color": plots.color_of(c), "lw": 1.2, "marker": "." if len(scales) < 8 else None}
        same = f", and {len(others)} with the same" if others else ""
        axes.plot(*zip(*scales, strict=True), label=f"{c.label}{same}", **style)
    plots.log_scale(axes)
    plots.legend_above(figure, axes)
    caption = (
        "Smith and Le's noise scale at the start of each epoch: N training images, B batch size, momentum (beta1 of "
        "Adam and its kin, for which the formula was not derived). It is set, not measured: the same for every seed."
    )
    return Plot("noise-scale", "Noise scale", caption, figure)


def plot_selection(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    bars = [c for c in configurations if c.values("best_val_acc") and c.values("final_val_acc")][: plots.MOST_BARS]
    figure, axes = plots.make_bars("accuracy", bars)
    marks = (
        ("best_val_acc", "best epoch, validation", "o", plots.COLORS[1]),
        ("final_val_acc", "last epoch, validation", "s", plots.COLORS[0]),
        ("best_test_acc", "best epoch, test", "v", plots.COLORS[2]),
        ("final_test_acc", "last epoch, test", "D", "black"),
    )
    tested = any(c.values("final_test_acc") for c in bars)
    for name, text, marker, color in marks[: 4 if tested else 2]:
        known = [(c.mean(name), place) for place, c in enumerate(bars) if c.values(name)]
        axes.plot(*zip(*known, strict=True), marker, color=color, ms=5, label=text, alpha=0.85)
    figure.legend(fontsize=7, loc="upper right", ncols=2)
    caption = "What selecting the epoch on the validation images adds. "
    if not tested:
        none = "No split here has an untouched test set (data.split=holdout has)"
        caption += f"{none}, so only the last epoch is free of it. "
    caption += f"Means over seeds. {plots.selection_note(len(bars), configurations)}"
    return Plot("selection", "Selection bias", caption, figure)


# each returns its plot, or where it cannot be drawn a sentence that says why
SERIES_PLOTS = (plot_decay, plot_fluctuation, plot_lag, plot_penalty, plot_batch_size, plot_noise_scale, plot_selection)
