"""The series' plots of one study: decay, batch size, noise scale, and what selecting the epoch adds."""

from collections.abc import Sequence

from resnetlab.published.batchnorm_lag import plot_lag
from resnetlab.report.derive import LEVELS, noise_scales
from resnetlab.report.plots import (
    COLORS,
    MOST_BARS,
    Configurations,
    Plot,
    best_first,
    draw_legend,
    draw_points,
    groups_along,
    label_epochs,
    log_scale,
    make_panels,
    name_bars,
    seeds_note,
    selection_note,
)

ONE_BY_ONE = "Points are single runs; lines join the means of configurations that differ in nothing else."


def plot_decay(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    lines = groups_along(configurations, "wd")
    if not lines:
        return "Accuracy and epochs over wd: needs two configurations that differ in wd alone."
    figure, panels = make_panels(2.0, 2.0)
    names = thresholds[:2]
    draw_points(panels[0], lines, "wd", "best_val_acc")
    for place, name in enumerate(names):
        draw_points(panels[1], lines, "wd", f"epoch_to_{name}", filled=place == 0)
    panels[0].set_ylabel("best val acc", fontsize=9)
    panels[1].set_ylabel(" and ".join([f"epochs to {names[0]}", *(f"{n} (hollow)" for n in names[1:])]), fontsize=8)
    panels[1].set_xlabel("wd", fontsize=9)
    if not any(c.values(f"epoch_to_{name}") for line in lines for c in line for name in names):
        panels[1].text(0.5, 0.5, "no run reached it", transform=panels[1].transAxes, ha="center", fontsize=9)
    draw_legend(panels[0], lines)
    caption = f"Best validation accuracy and epochs to the threshold over wd. {ONE_BY_ONE} {seeds_note(lines)}"
    return Plot("wd", "Weight decay", caption, figure)


def plot_fluctuation(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    lines = [line for line in groups_along(configurations, "wd") if any(c.values("val_loss_fluctuation") for c in line)]
    if not lines:
        return "Fluctuation of the validation loss over wd: needs wd to vary alone, and runs of 14 epochs or more."
    figure, panels = make_panels(2.4)
    draw_points(panels[0], lines, "wd", "val_loss_fluctuation")
    log_scale(panels[0])
    panels[0].set_ylabel("max - min of val ce, epochs 10 to 36", fontsize=8)
    panels[0].set_xlabel("wd", fontsize=9)
    draw_legend(panels[0], lines)
    caption = f"How far the validation loss fluctuates in epochs 10 to 36 over wd. {ONE_BY_ONE} {seeds_note(lines)}"
    return Plot("fluctuation", "Fluctuation of the validation loss", caption, figure)


def plot_penalty(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    bars = [c for c in best_first(configurations) if c.values("final_train_ce") and c.values("final_penalty")]
    bars = bars[:MOST_BARS]
    if len({c.setting("regularization") for c in bars}) < 2 and not any(any(c.values("final_penalty")) for c in bars):
        return "Cross-entropy and penalty apart: needs an L2 penalty, or two regularizations to set beside each other."
    figure, panels = make_panels(0.5 + 0.36 * len(bars))
    places = range(len(bars))
    ce, extra = ([c.mean(metric) for c in bars] for metric in ("final_train_ce", "final_penalty"))
    panels[0].barh(places, ce, color=COLORS[0], height=0.6, label="train cross-entropy")
    panels[0].barh(places, extra, left=ce, color=COLORS[4], height=0.6, label="penalty (and label smoothing)")
    panels[0].plot([c.mean("final_val_ce") for c in bars], places, "D", color="black", ms=4, label="val cross-entropy")
    name_bars(figure, panels[0], bars)
    panels[0].set_xlabel("loss at the end of the run", fontsize=9)
    figure.legend(fontsize=7, loc="upper right", ncols=3)
    caption = f"Final training loss taken apart, means over seeds. {selection_note(len(bars), configurations)}"
    return Plot("penalty", "Cross-entropy and penalty", caption, figure)


def plot_batch_size(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    lines = groups_along(configurations, "batch_size")
    if not lines:
        return "Transition epochs, seconds, watts and joules over the batch size: needs it to vary alone."
    members = [c for line in lines for c in line]
    costs = [("seconds_per_epoch", "s / epoch"), ("power_w", "W"), ("joules_per_epoch", "J / epoch")]
    costs = [(name, text) for name, text in costs if any(c.values(name) for c in members)]
    figure, panels = make_panels(2.4, *[1.2] * len(costs))
    for place, level in enumerate(LEVELS):
        for line in lines:
            known = [c for c in line if c.values(f"epoch_to_{level}")]
            points = [c.setting("batch_size") for c in known], [c.mean(f"epoch_to_{level}") for c in known]
            label = f"{level:g}" if line is lines[0] else None
            panels[0].plot(*points, "o-", ms=3, lw=1, color=COLORS[place], label=label)
    panels[0].set_ylabel("transition epoch", fontsize=9)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low, high + 0.3 * (high - low))  # room for the draw_legend above the lines
    shape = {"ncols": len(LEVELS), "loc": "upper center", "columnspacing": 1.0, "handlelength": 1.2}
    panels[0].legend(fontsize=7, title="val acc", title_fontsize=7, **shape)
    for axes, (name, text) in zip(panels[1:], costs, strict=True):
        draw_points(axes, lines, "batch_size", name)
        axes.set_ylabel(text, fontsize=9)
    panels[-1].set_xscale("log", base=2)
    sizes = sorted({c.setting("batch_size") for c in members})
    panels[-1].set_xticks(sizes, [str(size) for size in sizes])
    panels[-1].set_xlabel("batch size", fontsize=9)
    source = " Watts and joules are the card's." if len(costs) == 3 else " No run has measured power or energy."
    caption = f"Epochs at which an accuracy is first reached, and what an epoch costs. {seeds_note(lines)}{source}"
    return Plot("batch-size", "Batch size", caption, figure)


def plot_noise_scale(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    drawn = [c for c in best_first(configurations) if noise_scales(c.runs[0])][: len(COLORS)]
    if not drawn:
        return "Noise scale: needs runs that tell their batch size and images a second."
    figure, panels = make_panels(2.4)
    for color, c in zip(COLORS, drawn, strict=False):
        epochs, scales = zip(*noise_scales(c.runs[0]), strict=True)
        style = {"color": color, "lw": 1.2, "marker": "." if len(epochs) < 8 else None}
        panels[0].plot(epochs, scales, label=f"{c.label}, n = {c.n}", **style)
    log_scale(panels[0])
    panels[0].set_ylabel("g = εN / (B(1 - m))", fontsize=9)
    label_epochs(panels[0])
    panels[0].legend(fontsize=7)
    caption = (
        "Smith and Le's noise scale at the start of each epoch: ε learning rate, N training images, B batch size, m "
        "momentum (beta1 of Adam and its kin, for which the formula was not derived). It is set, "
        f"not measured: the same for every seed. {selection_note(len(drawn), configurations)}"
    )
    return Plot("noise-scale", "Noise scale", caption, figure)


def plot_selection(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    bars = [c for c in best_first(configurations) if c.values("best_val_acc") and c.values("final_val_acc")][:MOST_BARS]
    figure, panels = make_panels(0.5 + 0.36 * len(bars))
    marks = (
        ("best_val_acc", "best epoch, validation", "o", COLORS[1]),
        ("final_val_acc", "last epoch, validation", "s", COLORS[0]),
        ("best_test_acc", "best epoch, test", "v", COLORS[2]),
        ("final_test_acc", "last epoch, test", "D", "black"),
    )
    tested = any(c.values("final_test_acc") for c in bars)
    for name, text, marker, color in marks[: 4 if tested else 2]:
        known = [(c.mean(name), place) for place, c in enumerate(bars) if c.values(name)]
        panels[0].plot(*zip(*known, strict=True), marker, color=color, ms=5, label=text, alpha=0.85)
    name_bars(figure, panels[0], bars)
    panels[0].set_xlabel("accuracy", fontsize=9)
    figure.legend(fontsize=7, loc="upper right", ncols=2)
    caption = "What selecting the epoch on the validation images adds. "
    if not tested:
        caption += (
            "No split here has an untouched test set (data.split=holdout has), so only the last epoch is free of it. "
        )
    caption += f"Means over seeds. {selection_note(len(bars), configurations)}"
    return Plot("selection", "Selection bias", caption, figure)


# each returns its plot, or where it cannot be drawn a sentence that says why
SERIES_PLOTS = (plot_decay, plot_fluctuation, plot_lag, plot_penalty, plot_batch_size, plot_noise_scale, plot_selection)
