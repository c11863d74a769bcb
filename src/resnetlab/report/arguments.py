"""What the series argues from, for one study: decay, batch size, noise scale, and what selecting the epoch adds."""

from collections.abc import Callable, Iterator, Sequence

from resnetlab.report.decay import fluctuation, over_decay, penalty
from resnetlab.report.derive import LEVELS, noise_scales
from resnetlab.report.plots import (
    COLORS,
    MOST_BARS,
    Configurations,
    Plot,
    best_first,
    draw_points,
    groups_along,
    label_epochs,
    log_scale,
    make_panels,
    name_bars,
    seeds_note,
    selection_note,
)
from resnetlab.report.riddle import riddle

__all__ = ["argue"]


def argue(configurations: Configurations, thresholds: Sequence[str]) -> Iterator[Plot | str]:
    """The study's pictures; in place of one that cannot be drawn the reason, as a sentence."""
    drawers: tuple[Callable[[Configurations, Sequence[str]], Plot | str], ...]
    drawers = (over_decay, fluctuation, riddle, penalty, over_batch, noise, selection)
    for draw in drawers:
        yield draw(configurations, thresholds)


def over_batch(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    lines = groups_along(configurations, "batch_size")
    if not lines:
        return "Transition epochs, seconds, watts and joules over the batch size: needs it to vary alone."
    members = [c for line in lines for c in line]
    costs = [("seconds_per_epoch", "s / epoch"), ("power_w", "W"), ("joules_per_epoch", "J / epoch")]
    costs = [(name, text) for name, text in costs if any(c.values(name) for c in members)]
    figure, panels = make_panels(2.4, *[1.2] * len(costs))
    for place, level in enumerate(LEVELS):
        for line in lines:
            known = [
                (c.setting("batch_size"), c.mean(f"epoch_to_{level}")) for c in line if c.values(f"epoch_to_{level}")
            ]
            label = f"{level:g}" if line is lines[0] else None
            panels[0].plot(
                *zip(*known, strict=True) if known else ([], []), "o-", ms=3, lw=1, color=COLORS[place], label=label
            )
    panels[0].set_ylabel("transition epoch", fontsize=9)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low, high + 0.3 * (high - low))  # room for the legend above the lines
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


def noise(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    drawn = [c for c in best_first(configurations) if noise_scales(c.runs[0])][: len(COLORS)]
    if not drawn:
        return "Noise scale: needs runs that tell their batch size and images a second."
    figure, panels = make_panels(2.4)
    for color, c in zip(COLORS, drawn, strict=False):
        epochs, scales = zip(*noise_scales(c.runs[0]), strict=True)
        panels[0].plot(
            epochs, scales, color=color, lw=1.2, label=f"{c.label}, n = {c.n}", marker="." if len(epochs) < 8 else None
        )
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


def selection(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
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
    test = (
        ""
        if tested
        else "No split here has an untouched test set (data.split=holdout has), so only the last epoch is free of it. "
    )
    caption = f"What selecting the epoch on the validation images adds. {test}Means over seeds. "
    caption += selection_note(len(bars), configurations)
    return Plot("selection", "Selection bias", caption, figure)
