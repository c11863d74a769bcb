"""The series' riddle: why does the validation loss swing under strong decay while the training loss does not?

Three answers can be told apart: running batch-norm statistics that lag behind the weights (then the swings are gone
with re-estimated statistics, and with group norm, which has none), the loss surface (then they stay), or both.
"""

from collections.abc import Iterator, Sequence

from resnetlab.report.columns import Column
from resnetlab.report.groups import Configuration, differing_keys
from resnetlab.report.plots import (
    COLORS,
    Configurations,
    Plot,
    draw_band,
    label_epochs,
    log_scale,
    make_panels,
    means,
    seeds_note,
    values_by_epoch,
)
from resnetlab.runs.summary import FLUCTUATION_EPOCHS as EPOCHS

__all__ = ["COLUMNS", "answer", "participants", "riddle"]

COLUMNS = (
    Column("swing_running", "val swing, running", "swing of the validation ce, running statistics", 3),
    Column("swing_recal", "re-estimated", "the same with batch-norm statistics re-estimated on training images", 3),
    Column("swing_train", "train swing", "swing of the training ce", 3),
    Column("least_val_acc", "least val acc, running", "least validation accuracy, running statistics", 3),
    Column("least_val_acc_recal", "re-estimated", "least validation accuracy, re-estimated statistics", 3),
    Column("weight_norm", "weight norm", "Euclidean norm of all weights, mean over these epochs", 1),
    Column("relative_update", "relative update", "|change| / |weights| of one step, each epoch's last; mean", 5),
)
SWINGS = 2.0  # a swing is a riddle if it is more than so many times that of the training loss
SILENT = {"recalibrate_bn", "threads"}  # change nothing in a run
LEFT = 0.5  # and explained by the statistics if less than this share of it is left without the running ones


def participants(configurations: Configurations) -> list[Configuration]:
    """Those with enough epochs, in a study that has re-estimated statistics or norms without running ones."""
    if not any(c.values("swing_recal") or norm(c) != "batch" for c in configurations):
        return []
    return sorted((c for c in configurations if c.values("swing_running")), key=lambda c: (norm(c), decay(c)))


def riddle(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    """Validation loss with running and re-estimated statistics, weight norm and relative update over the epochs."""
    drawn = participants(configurations)[: len(COLORS)]
    if not drawn:
        return (
            "The riddle of the swinging validation loss: needs recalibrate_bn=true or model.norm=group, runs of "
            f"{EPOCHS[0] + 4} epochs or more, and a schedule that is not stretched."
        )
    figure, (loss, weights, update) = make_panels(2.8, 1.1, 1.1)
    for color, c in zip(COLORS, drawn, strict=False):
        draw_band(loss, c.runs, "val/ce", color, c.label)
        again = values_by_epoch(c.runs, "val/ce_recal")
        loss.plot(list(again), means(again), "--", color=color, lw=1.1)
        draw_band(weights, c.runs, "weight_norm", color, None)
        draw_band(update, c.runs, "relative_update", color, None)
    log_scale(loss)
    for axes, text in ((loss, "validation ce"), (weights, "weight norm"), (update, "relative update")):
        axes.set_ylabel(text, fontsize=9)
    loss.legend(fontsize=7)
    label_epochs(update)
    caption = (
        "Validation cross-entropy with running (solid) and re-estimated (dashed) batch-norm statistics of the same "
        f"weights; their norm; how far each epoch's last step moves them. {seeds_note([drawn])}"
    )
    return Plot("riddle", "The riddle of the swinging validation loss", caption, figure)


def answer(configurations: Configurations) -> Iterator[str]:
    """What the figures of one study say, one sentence a configuration with batch norm, then the answer."""
    found = participants(configurations)
    pairs = [c for c in found if norm(c) == "batch" and c.values("swing_recal")]
    for c in pairs:
        yield sentence(c, control_of(c, found))
    riddles = [c for c in pairs if c.mean("swing_running") > SWINGS * c.mean("swing_train")]
    if not pairs:
        yield "No run here was validated with both kinds of statistics, so the cause cannot be told."
    elif not riddles:
        yield (
            f"No configuration swings more than {SWINGS:g} times as much as its training loss: no riddle here, and no "
            "answer."
        )
    else:
        yield conclusion(riddles, [(c, control) for c in riddles if (control := control_of(c, found))])


def sentence(c: Configuration, control: Configuration | None) -> str:
    text = (
        f"{c.label} (n = {c.n}): the validation cross-entropy swings by {c.mean('swing_running'):.3g} with running "
        f"statistics and by {c.mean('swing_recal'):.3g} with re-estimated ones, that of training by "
        f"{c.mean('swing_train'):.3g}"
    )
    if control is not None:
        text += f"; with {norm(control)} norm instead (n = {control.n}) by {control.mean('swing_running'):.3g}"
    return f"{text}."


def control_of(c: Configuration, found: Configurations) -> Configuration | None:
    """The same without running statistics, which cannot be re-estimated there."""
    return next((other for other in found if (differing_keys(c, other) or set()) - SILENT == {"model.norm"}), None)


def conclusion(riddles: Configurations, controls: Sequence[tuple[Configuration, Configuration]]) -> str:
    shares = [c.mean("swing_recal") / c.mean("swing_running") for c in riddles]
    text = (
        f"In {len(riddles)} of these the validation loss swings more than {SWINGS:g} times as much as the training "
        f"loss; re-estimating the statistics leaves {percent(shares)} of the swing"
    )
    if controls:
        kept = [control.mean("swing_running") / c.mean("swing_running") for c, control in controls]
        text += f", norms without them {percent(kept)}"
    explained = sum(share < LEFT for share in shares)
    if explained == 0:
        verdict = "the running statistics do not explain it"
    elif explained < len(riddles):
        verdict = f"they explain most of it in {explained} of {len(riddles)}"
    else:
        verdict = "most of the swing is the running statistics', not the loss surface's"
    alone = " One run each, though: a hint." if max(c.n for c in riddles) == 1 else ""
    return f"{text}. As far as these runs go, {verdict}.{alone}"


def percent(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def norm(configuration: Configuration) -> str:
    return str(configuration.setting("model.norm") or "batch")


def decay(configuration: Configuration) -> float:
    return float(configuration.setting("wd") or 0.0)
