"""What the series argues from, drawn for one study: decay, penalty, batch size, noise scale, selection."""

import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from resnetlab.report.configurations import Configuration
from resnetlab.report.derive import LEVELS, noise_scales
from resnetlab.report.figures import COLORS, Picture, logarithmic, paper, whole_epochs

__all__ = ["argue", "lines_along"]

Configurations = Sequence[Configuration]
MOST_BARS = 20
ONE_BY_ONE = "Points are single runs; lines join the means of configurations that differ in nothing else."


def argue(configurations: Configurations, thresholds: Sequence[str]) -> Iterator[Picture | str]:
    """The study's pictures; in place of one that cannot be drawn the reason, as a sentence."""
    drawers: tuple[Callable[[Configurations, Sequence[str]], Picture | str], ...]
    drawers = (over_decay, fluctuation, penalty, over_batch, noise, selection)
    for draw in drawers:
        yield draw(configurations, thresholds)


def over_decay(configurations: Configurations, thresholds: Sequence[str]) -> Picture | str:
    lines = lines_along(configurations, "wd")
    if not lines:
        return "Accuracy and epochs over wd: needs two configurations that differ in wd alone."
    figure, panels = paper(2.0, 2.0)
    names = thresholds[:2]
    points(panels[0], lines, "wd", "best_val_acc")
    for place, name in enumerate(names):
        points(panels[1], lines, "wd", f"epoch_to_{name}", filled=place == 0)
    panels[0].set_ylabel("best val acc", fontsize=9)
    panels[1].set_ylabel(" and ".join([f"epochs to {names[0]}", *(f"{n} (hollow)" for n in names[1:])]), fontsize=8)
    panels[1].set_xlabel("wd", fontsize=9)
    if not any(c.values(f"epoch_to_{name}") for line in lines for c in line for name in names):
        panels[1].text(0.5, 0.5, "no run reached it", transform=panels[1].transAxes, ha="center", fontsize=9)
    legend(panels[0], lines)
    caption = f"Best validation accuracy and epochs to the threshold over wd. {ONE_BY_ONE} {counted(lines)}"
    return Picture("wd", "Weight decay", caption, figure)


def fluctuation(configurations: Configurations, thresholds: Sequence[str]) -> Picture | str:
    lines = [line for line in lines_along(configurations, "wd") if any(c.values("val_loss_fluctuation") for c in line)]
    if not lines:
        return "Fluctuation of the validation loss over wd: needs wd to vary alone, and runs of 14 epochs or more."
    figure, panels = paper(2.4)
    points(panels[0], lines, "wd", "val_loss_fluctuation")
    logarithmic(panels[0])
    panels[0].set_ylabel("max - min of val ce, epochs 10 to 36", fontsize=8)
    panels[0].set_xlabel("wd", fontsize=9)
    legend(panels[0], lines)
    caption = f"How far the validation loss swings in epochs 10 to 36 over wd. {ONE_BY_ONE} {counted(lines)}"
    return Picture("fluctuation", "Swings of the validation loss", caption, figure)


def penalty(configurations: Configurations, thresholds: Sequence[str]) -> Picture | str:
    bars = [c for c in best(configurations) if c.values("final_train_ce") and c.values("final_penalty")][:MOST_BARS]
    if len({c.setting("regularization") for c in bars}) < 2 and not any(
        v for c in bars for v in c.values("final_penalty")
    ):
        return "Cross-entropy and penalty apart: needs an L2 penalty, or two regularizations to set beside each other."
    figure, panels = paper(0.5 + 0.36 * len(bars))
    places = range(len(bars))
    ce, extra = ([mean(c, figure_) for c in bars] for figure_ in ("final_train_ce", "final_penalty"))
    panels[0].barh(places, ce, color=COLORS[0], height=0.6, label="train cross-entropy")
    panels[0].barh(places, extra, left=ce, color=COLORS[4], height=0.6, label="penalty (and label smoothing)")
    panels[0].plot([mean(c, "final_val_ce") for c in bars], places, "D", color="black", ms=4, label="val cross-entropy")
    name_bars(figure, panels[0], bars)
    panels[0].set_xlabel("loss at the end of the run", fontsize=9)
    figure.legend(fontsize=7, loc="upper right", ncols=3)
    caption = f"Final training loss taken apart, means over seeds. {limited(len(bars), configurations)}"
    return Picture("penalty", "Cross-entropy and penalty", caption, figure)


def over_batch(configurations: Configurations, thresholds: Sequence[str]) -> Picture | str:
    lines = lines_along(configurations, "batch_size")
    if not lines:
        return "Transition epochs, seconds, watts and joules over the batch size: needs it to vary alone."
    members = [c for line in lines for c in line]
    costs = [("seconds_per_epoch", "s / epoch"), ("power_w", "W"), ("joules_per_epoch", "J / epoch")]
    costs = [(name, text) for name, text in costs if any(c.values(name) for c in members)]
    figure, panels = paper(2.4, *[1.2] * len(costs))
    for place, level in enumerate(LEVELS):
        for line in lines:
            known = [
                (c.setting("batch_size"), mean(c, f"epoch_to_{level}")) for c in line if c.values(f"epoch_to_{level}")
            ]
            label = f"{level:g}" if line is lines[0] else None
            panels[0].plot(
                *zip(*known, strict=True) if known else ([], []), "o-", ms=3, lw=1, color=COLORS[place], label=label
            )
    panels[0].set_ylabel("transition epoch", fontsize=9)
    panels[0].legend(fontsize=7, title="val acc", title_fontsize=7)
    for axes, (name, text) in zip(panels[1:], costs, strict=True):
        points(axes, lines, "batch_size", name)
        axes.set_ylabel(text, fontsize=9)
    panels[-1].set_xscale("log", base=2)
    sizes = sorted({c.setting("batch_size") for c in members})
    panels[-1].set_xticks(sizes, [str(size) for size in sizes])
    panels[-1].set_xlabel("batch size", fontsize=9)
    unknown = "" if len(costs) == 3 else " No run has measured power or energy."
    caption = f"Epochs at which an accuracy is first reached, and what an epoch costs. {counted(lines)}{unknown}"
    return Picture("batch-size", "Batch size", caption, figure)


def noise(configurations: Configurations, thresholds: Sequence[str]) -> Picture | str:
    drawn = [c for c in best(configurations) if noise_scales(c.runs[0])][: len(COLORS)]
    if not drawn:
        return "Noise scale: needs runs that tell their batch size and images a second."
    figure, panels = paper(2.4)
    for color, c in zip(COLORS, drawn, strict=False):
        epochs, scales = zip(*noise_scales(c.runs[0]), strict=True)
        panels[0].plot(
            epochs, scales, color=color, lw=1.2, label=f"{c.label}, n = {c.n}", marker="." if len(epochs) < 8 else None
        )
    logarithmic(panels[0])
    panels[0].set_ylabel("g = εN / (B(1 - m))", fontsize=9)
    panels[0].set_xlabel("epoch", fontsize=9)
    whole_epochs(panels[0])
    panels[0].legend(fontsize=7)
    caption = (
        "Smith and Le's noise scale at the start of each epoch: ε learning rate, N training images, B batch size, m "
        "momentum (beta1 of Adam and its kin, for which the formula was not derived). It is set, "
        f"not measured: the same for every seed. {limited(len(drawn), configurations)}"
    )
    return Picture("noise-scale", "Noise scale", caption, figure)


def selection(configurations: Configurations, thresholds: Sequence[str]) -> Picture | str:
    bars = [c for c in best(configurations) if c.values("best_val_acc") and c.values("final_val_acc")][:MOST_BARS]
    figure, panels = paper(0.5 + 0.36 * len(bars))
    marks = (
        ("best_val_acc", "best epoch, validation", "o", COLORS[1]),
        ("final_val_acc", "last epoch, validation", "s", COLORS[0]),
        ("best_test_acc", "best epoch, test", "v", COLORS[2]),
        ("final_test_acc", "last epoch, test", "D", "black"),
    )
    tested = any(c.values("final_test_acc") for c in bars)
    for name, text, marker, color in marks[: 4 if tested else 2]:
        known = [(mean(c, name), place) for place, c in enumerate(bars) if c.values(name)]
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
    caption += limited(len(bars), configurations)
    return Picture("selection", "Selection bias", caption, figure)


def lines_along(configurations: Configurations, key: str) -> list[list[Configuration]]:
    """Groups of two or more that differ in that setting alone, each in its order; runs without a manifest in none."""
    groups: dict[str, list[Configuration]] = defaultdict(list)
    for c in configurations:
        if c.identity is not None and c.setting(key) is not None:
            rest = sorted((k, repr(v)) for k, v in c.identity.items() if k != key)
            groups[repr(rest)].append(c)
    return [sorted(line, key=lambda c: c.setting(key)) for line in groups.values() if len(line) > 1]


def points(axes: Any, lines: Sequence[Configurations], key: str, figure: str, filled: bool = True) -> None:
    """Every run as a point, the means joined, one colour a line."""
    for place, line in enumerate(lines):
        color = COLORS[place % len(COLORS)]
        style = {"color": color, "markerfacecolor": color if filled else "white", "alpha": 0.7}
        for c in line:
            values = c.values(figure)
            axes.plot([c.setting(key)] * len(values), values, "o", ms=4, **style)
        known = [(c.setting(key), mean(c, figure)) for c in line if c.values(figure)]
        axes.plot(*zip(*known, strict=True) if known else ([], []), "-" if filled else "--", color=color, lw=1)


def legend(axes: Any, lines: Sequence[Configurations]) -> None:
    """Names the lines by what their configurations have in common; with one line there is nothing to tell apart."""
    if not 1 < len(lines) <= len(COLORS):
        return
    for place, line in enumerate(lines):
        parts = [set(c.label.split(", ")) for c in line]
        common = [part for part in line[0].label.split(", ") if all(part in others for others in parts)]
        axes.plot([], [], color=COLORS[place], label=", ".join(common) or f"line {place + 1}")
    axes.legend(fontsize=7)


def name_bars(figure: Any, axes: Any, bars: Configurations) -> None:
    axes.set_yticks(range(len(bars)), [wrapped(c) for c in bars], fontsize=6.5)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    high = figure.get_size_inches()[1]
    figure.subplots_adjust(left=0.38, top=1 - 0.35 / high)


def mean(configuration: Configuration, figure: str) -> float:
    found = configuration.spread(figure)
    return float("nan") if found is None else found.mean


def best(configurations: Configurations) -> list[Configuration]:
    return sorted(configurations, key=lambda c: -mean(c, "best_val_acc"))


def wrapped(configuration: Configuration) -> str:
    return "\n".join(
        textwrap.wrap(f"{configuration.label}, n = {configuration.n}", 34, max_lines=3, placeholder=" ...")
    )


def limited(count: int, configurations: Configurations) -> str:
    if count == len(configurations):
        return "n stands behind each name."
    return f"The {count} of {len(configurations)} with the best validation accuracy; n stands behind each name."


def counted(lines: Sequence[Configurations]) -> str:
    ns = sorted({c.n for line in lines for c in line})
    return f"n = {ns[0]} a point." if len(ns) == 1 else f"n = {ns[0]} to {ns[-1]} a point."
