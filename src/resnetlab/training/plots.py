"""Plots of schedules, learning-rate range tests and interpolations, from rows; the command `resnetlab schedule`."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from resnetlab.config.overrides import jobs_of
from resnetlab.console import say
from resnetlab.errors import ConfigError
from resnetlab.optim.schedules import length_warning
from resnetlab.runs.files import make_folder, write_atomically, write_text
from resnetlab.runs.summary import Row
from resnetlab.training.build import planned_lr_momentum

Line = NDArray[np.float64]  # (points, 2): x and y
PICTURES = (".png", ".svg", ".pdf")
DASH = 8  # points, of lines that lie on each other
MARKERS = {"steepest": "v", "valley": "o", "minimum/10": "s"}


def draw_schedules(plans: Mapping[str, Sequence[tuple[float, float, float]]], path: Path) -> None:
    """{label: (epochs done, lr, momentum) of the steps}: the learning rate above, the momentum below.

    Equal lines are dashed in turn, so that each is seen.
    """
    figure = Figure(figsize=(8, 6), layout="constrained")
    rate, momentum = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    for panel, column in ((rate, 1), (momentum, 2)):
        lines = [np.array([(point[0], point[column]) for point in points]) for points in plans.values()]
        for label, line, dashes in zip(plans, lines, dashes_in_turn(lines), strict=True):
            panel.plot(*line.T, marker="." if len(line) < 30 else None, linestyle=dashes, label=label, linewidth=1.2)
    rate.set(ylabel="learning rate")
    momentum.set(ylabel="momentum or beta1", xlabel="epoch")
    _finish(figure, [rate, momentum], path, legend=len(plans) > 1 and len(plans) <= 12)


def dashes_in_turn(lines: Sequence[Line]) -> list[Any]:
    """matplotlib's line style of each: solid, or where n of them look the same, 1/n of it in its turn."""
    styles: list[Any] = []
    for line in lines:
        same = [place for place, other in enumerate(lines) if looks_like(other, line)]
        turn = len([place for place in same if place < len(styles)])
        period = DASH * len(same)
        styles.append(((period - DASH * turn) % period, (DASH, period - DASH)) if len(same) > 1 else "-")
    return styles


def looks_like(a: Line, b: Line) -> bool:
    """Whether one would hide the other: apart by less than a line's width, about a 300th of the panel."""
    return a.shape == b.shape and bool((np.abs(a - b).max(0) <= np.maximum(a.max(0), b.max(0)) / 300).all())


def draw_range_test(
    curves: Mapping[str, tuple[Sequence[Row], Mapping[str, float | None]]], linear: bool, path: Path
) -> None:
    """{label: (rows of range_test, its suggestions)}: losses over the learning rate, one colour a run."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    shown = "loss" if len(curves) == 1 else "smoothed"
    finite = [[row[shown] for row in rows if math.isfinite(row[shown])] for rows, _ in curves.values()]
    lowest, highest = min(map(min, finite)), max(max(losses[: len(losses) // 2 + 1]) for losses in finite)
    for number, (label, (rows, suggested)) in enumerate(curves.items()):
        color = f"C{number % 10}"
        rates = [row["lr"] for row in rows]
        if len(curves) == 1:
            axes.plot(rates, [row["loss"] for row in rows], color=color, alpha=0.25, linewidth=0.8, label="each batch")
        axes.plot(rates, [row["smoothed"] for row in rows], color=color, label=label if len(curves) > 1 else "smoothed")
        for rule, lr in suggested.items():
            if lr is None:
                continue
            height = min(rows, key=lambda row: abs(math.log(row["lr"] / lr)))["smoothed"]
            named = f"{rule}: {lr:.2g}" if len(curves) == 1 else (rule if number == 0 else None)
            axes.plot([lr], [height], MARKERS[rule], color=color, markersize=8, markeredgecolor="black", label=named)
    axes.set(xlabel="learning rate", ylabel="training loss, smoothed", xscale="linear" if linear else "log")
    margin = 0.1 * (highest - lowest)
    axes.set_ylim(lowest - margin, highest + 2 * margin)  # the explosion at the end is cut off
    _finish(figure, [axes], path, legend=True)


def draw_interpolation(rows: Sequence[Row], first: str, second: str, path: Path) -> None:
    """Rows of interpolate(): losses and accuracies over alpha, at whose 1 `first` is and at whose 0 `second`."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    alphas = [row["alpha"] for row in rows]
    reestimated = "val/ce_recal" in rows[0]
    for axes, name in ((loss, "ce"), (accuracy, "acc")):
        for part, color in (("train", "tab:red"), ("val", "tab:blue")):
            if reestimated:
                values = [row[f"{part}/{name}_recal"] for row in rows]
                label = f"{part}, batch-norm statistics re-estimated"
                axes.plot(alphas, values, _marker(rows), color=color, label=label)
            values = [row[f"{part}/{name}"] for row in rows]
            style: dict[str, Any] = (
                {"linestyle": "--", "linewidth": 1, "marker": "."} if reestimated else {"marker": "."}
            )
            axes.plot(
                alphas, values, color=color, label=f"{part}, statistics on the line" if reestimated else part, **style
            )
        for alpha, which, side in ((1.0, first, "left"), (0.0, second, "right")):
            axes.axvline(alpha, color="gray", linewidth=0.8, linestyle=":")
            offset = (2 if alpha else -2, -9)
            where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": side}
            axes.annotate(which, (alpha, 1), offset, **where, fontsize=8, color="gray")
    half = (alphas[1] - alphas[0]) / 2 if len(alphas) > 1 else 0.5
    label = "negative variances on the line"
    for row in rows:
        if row.get("negative_variances", 0) > 0:
            for axes in (loss, accuracy):
                span = row["alpha"] - half, row["alpha"] + half
                axes.axvspan(*span, color="tab:orange", alpha=0.15, linewidth=0, label=label)
            label = "_"  # once in the legend
    shown = [row[key] for row in rows for key in row if key.split("_")[0].endswith("/ce") and math.isfinite(row[key])]
    if shown and max(shown) > 5 * min(shown):
        loss.set_yscale("log")
    loss.set(ylabel="cross-entropy")
    accuracy.set(ylabel="accuracy", xlabel=f"alpha: {second} at 0, {first} at 1")
    _finish(figure, [loss, accuracy], path, legend=True)


def _marker(points: Sequence[Any]) -> str:
    """A dot at every point where there are so few that a line alone might show nothing."""
    return ".-" if len(points) < 30 else "-"


def _finish(figure: Figure, panels: Sequence[Any], path: Path, legend: bool) -> None:
    for axes in panels:
        axes.grid(alpha=0.3)
    if legend:
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8, handlelength=3.5
        )
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=110))


DRAWN_POINTS = 2000  # of a schedule, at most


def schedule_command(arguments: Sequence[str], out: Path) -> None:
    """Draws lr and momentum of every job of the command line, without training, and prints the main values."""
    if out.is_dir():
        raise ConfigError(f"--out (={out}) is a folder; name a picture, such as {out / 'schedule.png'}")
    if out.suffix.lower() not in PICTURES:
        raise ConfigError(f"--out (={out}) must end in {', '.join(PICTURES[:-1])} or {PICTURES[-1]}")
    make_folder(out.parent)
    plans = {}
    for label, config in jobs_of(arguments):
        label = label or config.schedule.name
        span, table = planned_lr_momentum(config)
        steps = range(0, span.steps, max(1, span.steps // DRAWN_POINTS))
        plans[label] = [(k / span.steps_per_epoch, float(table[k, 0]), float(table[k, 1])) for k in steps]
        peak = int(table[:, 0].argmax())
        say(
            f"{label}: {span.epochs} epochs of {span.steps_per_epoch} steps; lr {table[0, 0]:.3g} at first, at most "
            f"{table[peak, 0]:.3g} in epoch {peak // span.steps_per_epoch + 1}, {table[-1, 0]:.3g} at last; momentum "
            f"{table[:, 1].min():.3g} to {table[:, 1].max():.3g}"
        )
        if config.schedule.stateful:
            say(f"note: {config.schedule.name} changes the lr by the validation metrics; drawn is what it begins with")
        if remark := length_warning(config.schedule, span):
            say(f"note: {remark}")
    draw_schedules(plans, out)
    say(f"picture: {out}")


@contextmanager
def write_even_if_interrupted(write: Any, measured: Iterable[Any]) -> Iterator[None]:
    """Writes when the work inside has ended, and also when it is interrupted, unless nothing was measured.

    An interrupt goes on with a message about what was written, or with none.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not any(measured):
            raise
        write()
        raise KeyboardInterrupt("interrupted; what was measured is written") from None
    write()


def write_labelled_rows(path: Path, curves: dict[str, list[Row]]) -> None:
    """One CSV of several runs' rows, with the run's label in front."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = list(next(iter(curves.values()))[0])
    writer.writerow(["run", *columns])
    for label, rows in curves.items():
        writer.writerows([label, *(repr(row[column]) for column in columns)] for row in rows)
    write_text(path, text.getvalue())
