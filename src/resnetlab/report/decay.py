"""What the series argues from about decay: accuracy, epochs and swings over wd; cross-entropy and penalty apart."""

from collections.abc import Sequence

from resnetlab.report.plots import (
    COLORS,
    MOST_BARS,
    Configurations,
    Plot,
    best_first,
    draw_legend,
    draw_points,
    groups_along,
    log_scale,
    make_panels,
    name_bars,
    seeds_note,
    selection_note,
)

__all__ = ["fluctuation", "over_decay", "penalty"]

ONE_BY_ONE = "Points are single runs; lines join the means of configurations that differ in nothing else."


def over_decay(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
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


def fluctuation(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    lines = [line for line in groups_along(configurations, "wd") if any(c.values("val_loss_fluctuation") for c in line)]
    if not lines:
        return "Fluctuation of the validation loss over wd: needs wd to vary alone, and runs of 14 epochs or more."
    figure, panels = make_panels(2.4)
    draw_points(panels[0], lines, "wd", "val_loss_fluctuation")
    log_scale(panels[0])
    panels[0].set_ylabel("max - min of val ce, epochs 10 to 36", fontsize=8)
    panels[0].set_xlabel("wd", fontsize=9)
    draw_legend(panels[0], lines)
    caption = f"How far the validation loss swings in epochs 10 to 36 over wd. {ONE_BY_ONE} {seeds_note(lines)}"
    return Plot("fluctuation", "Swings of the validation loss", caption, figure)


def penalty(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    bars = [c for c in best_first(configurations) if c.values("final_train_ce") and c.values("final_penalty")][
        :MOST_BARS
    ]
    if len({c.setting("regularization") for c in bars}) < 2 and not any(
        v for c in bars for v in c.values("final_penalty")
    ):
        return "Cross-entropy and penalty apart: needs an L2 penalty, or two regularizations to set beside each other."
    figure, panels = make_panels(0.5 + 0.36 * len(bars))
    places = range(len(bars))
    ce, extra = ([c.mean(figure_) for c in bars] for figure_ in ("final_train_ce", "final_penalty"))
    panels[0].barh(places, ce, color=COLORS[0], height=0.6, label="train cross-entropy")
    panels[0].barh(places, extra, left=ce, color=COLORS[4], height=0.6, label="penalty (and label smoothing)")
    panels[0].plot([c.mean("final_val_ce") for c in bars], places, "D", color="black", ms=4, label="val cross-entropy")
    name_bars(figure, panels[0], bars)
    panels[0].set_xlabel("loss at the end of the run", fontsize=9)
    figure.legend(fontsize=7, loc="upper right", ncols=3)
    caption = f"Final training loss taken apart, means over seeds. {selection_note(len(bars), configurations)}"
    return Plot("penalty", "Cross-entropy and penalty", caption, figure)
