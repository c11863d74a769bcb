"""Plots of a network's answers, schedules, range tests and interpolations; the command `resnetlab schedule`."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from resnetlab.config.overrides import jobs_of
from resnetlab.console import say
from resnetlab.data import Images
from resnetlab.errors import ConfigError
from resnetlab.optim.schedules import length_warning
from resnetlab.runs.files import make_folder, write_atomically, write_rows
from resnetlab.runs.summary import Row
from resnetlab.training.module import lr_momentum_table

PICTURES = (".png", ".svg", ".pdf")
STYLES = ("-", "--", "-.", ":")  # in turn, so that of equal lines each is seen
DRAWN_POINTS = 2000  # of a schedule, at most
MARKERS = {"steepest": "v", "valley": "o", "minimum/10": "s"}


def draw_schedules(plans: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """{label: (steps, 3) of epochs done, lr, momentum}: the learning rate above, the momentum below."""
    figure, panels = figure_of_panels(6, 2, 1)
    for panel, column in zip(panels, (1, 2), strict=True):
        for (label, points), style in zip(plans.items(), cycle(STYLES), strict=False):
            line = np.asarray(points)[:, [0, column]].T
            panel.plot(*line, style, marker="." if len(points) < 30 else None, label=label, linewidth=1.2)
    panels[0].set(ylabel="learning rate")
    panels[1].set(ylabel="momentum or beta1", xlabel="epoch")
    write_figure(figure, path, legend=1 < len(plans) <= 12)


def draw_range_test(
    curves: Mapping[str, tuple[Sequence[Row], Mapping[str, float | None], str | None]], linear: bool, path: Path
) -> None:
    """{label: (rows of range_test, its suggestions, the preferred rule)}: losses over the learning rate.

    One colour a run; the preferred suggestion is larger and has its number beside it.
    """
    figure, (axes,) = figure_of_panels(5.5, 1)
    single = len(curves) == 1
    for number, (label, (rows, suggested, chosen)) in enumerate(curves.items()):
        color, rates = f"C{number % 10}", column(rows, "lr")
        if single:
            axes.plot(rates, column(rows, "loss"), color=color, alpha=0.25, linewidth=0.8, label="each batch")
        start = suggested.get(chosen or "")
        line = label if start is None else f"{label}: lr {start:.2g}"
        axes.plot(rates, column(rows, "smoothed"), color=color, label="smoothed" if single else line)
        for rule, lr in suggested.items():
            if lr is not None:
                height = min(rows, key=lambda row: abs(math.log(row["lr"] / lr)))["smoothed"]
                best = rule == chosen
                named = f"{rule}: {lr:.2g}" if single else (rule if number == 0 else None)
                style = {"color": color, "markersize": 12 if best else 7, "markeredgecolor": "black"}
                axes.plot(lr, height, MARKERS[rule], label=f"{named}, preferred" if single and best else named, **style)
                if best:
                    text, place = f"lr {lr:.2g}", {"xytext": (9, 7), "textcoords": "offset points"}
                    axes.annotate(text, (lr, height), **place, color=color, fontsize=9, fontweight="bold")
    axes.set(xlabel="learning rate", ylabel="training loss, smoothed", xscale="linear" if linear else "log")
    seen = [column(rows, "loss" if single else "smoothed") for rows, *_ in curves.values()]
    finite = [[loss for loss in losses if math.isfinite(loss)] for losses in seen]
    lowest, highest = min(map(min, finite)), max(max(losses[: len(losses) // 2 + 1]) for losses in finite)
    margin = 0.1 * (highest - lowest)
    axes.set_ylim(lowest - margin, highest + 2 * margin)  # the explosion at the end is cut off
    write_figure(figure, path)


def draw_interpolation(rows: Sequence[Row], first: str, second: str, path: Path) -> None:
    """Rows of interpolate(): losses and accuracies over alpha, at whose 1 `first` is and at whose 0 `second`."""
    figure, (loss, accuracy) = figure_of_panels(7, 1, 1)
    for axes, name in ((loss, "ce"), (accuracy, "acc")):
        draw_interpolated(axes, rows, name)
        for alpha, which, side in ((1.0, first, "left"), (0.0, second, "right")):
            axes.axvline(alpha, color="gray", linewidth=0.8, linestyle=":")
            where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": side}
            axes.annotate(which, (alpha, 1), (2 if alpha else -2, -9), **where, fontsize=8, color="gray")
    shown = [row[key] for row in rows for key in row if key.split("_")[0].endswith("/ce") and math.isfinite(row[key])]
    if shown and max(shown) > 5 * min(shown):
        loss.set_yscale("log")
    loss.set(ylabel="cross-entropy")
    accuracy.set(ylabel="accuracy", xlabel=f"alpha: {second} at 0, {first} at 1")
    write_figure(figure, path)


def draw_interpolated(axes: Any, rows: Sequence[Row], name: str) -> None:
    """The parts' ce or acc over alpha; shaded where variances on the line are negative."""
    alphas, reestimated = column(rows, "alpha"), f"val/{name}_recal" in rows[0]
    for part, color in (("train", "tab:red"), ("val", "tab:blue")):
        if reestimated:
            marker, label = ".-" if len(rows) < 30 else "-", f"{part}, batch-norm statistics re-estimated"
            axes.plot(alphas, column(rows, f"{part}/{name}_recal"), marker, color=color, label=label)
        label = f"{part}, statistics on the line" if reestimated else part
        style, width = (".--", 1) if reestimated else (".-", None)
        axes.plot(alphas, column(rows, f"{part}/{name}"), style, linewidth=width, color=color, label=label)
    half = (alphas[1] - alphas[0]) / 2 if len(alphas) > 1 else 0.5
    negative = [row["alpha"] for row in rows if row.get("negative_variances", 0) > 0]
    for alpha in negative:
        label = "negative variances on the line" if alpha == negative[0] else "_"  # once in the legend
        axes.axvspan(alpha - half, alpha + half, color="tab:orange", alpha=0.15, linewidth=0, label=label)


def validation_figures(logits: Tensor, images: Images, names: tuple[str, ...]) -> dict[str, Figure]:
    """The pictures that TensorBoard shows of a run's end."""
    labels, probabilities = images.labels.cpu(), logits.softmax(1)
    return {
        "confusion matrix": confusion_figure(multiclass_confusion_matrix(logits, labels, len(names)), names),
        "mistakes": mistakes_figure(probabilities, images, names),
        "reliability": reliability_figure(probabilities, labels),
    }


def reliability_figure(probabilities: Tensor, labels: Tensor) -> Figure:
    """Accuracy over confidence in 15 equal bins, and the expected calibration error."""
    from sklearn.calibration import CalibrationDisplay  # a second, which no start waits for

    error = float(multiclass_calibration_error(probabilities, labels, probabilities.shape[1]))
    figure, (confidence, answers) = Figure(layout="constrained"), probabilities.max(1)
    axes = figure.add_subplot(title=f"expected calibration error {error:.4f}")
    CalibrationDisplay.from_predictions((answers == labels).numpy(), confidence.numpy(), n_bins=15, ax=axes)
    axes.set(xlabel="confidence", ylabel="accuracy")
    return figure


def write_mistakes(folder: Path, logits: Tensor, images: Images, names: tuple[str, ...]) -> None:
    """Prints each class's accuracy; writes classes.csv with the counts of answers, confusion.png and mistakes.png."""
    rows, counts = [], multiclass_confusion_matrix(logits, images.labels.cpu(), len(names))  # the true class as row
    for n, (name, row) in enumerate(zip(names, counts.tolist(), strict=True)):
        acc = row[n] / max(1, sum(row))
        say(f"{name}: {acc:.4f} of {sum(row)} images")
        answers = {f"answered {other}": count for other, count in zip(names, row, strict=True)}
        rows.append({"class": name, "images": sum(row), "acc": acc, **answers})
    write_rows(folder / "classes.csv", rows)
    with warnings.catch_warnings(action="ignore"):  # of a glyph that is missing: classes whose names are Chinese, say
        for name, figure in validation_figures(logits, images, names).items():
            write_atomically(folder / f"{name.partition(' ')[0]}.png", figure.savefig)


def mistakes_figure(probabilities: Tensor, images: Images, names: tuple[str, ...]) -> Figure:
    """The 25 wrong answers with the greatest probabilities, the greatest first."""
    found, labels = probabilities.max(1), images.labels.cpu()
    wrong = (found.indices != labels).nonzero()[:, 0]
    figure = Figure(figsize=(10, 10), layout="constrained")
    shown = "the most certain of them, each with its true class: answer, its probability"
    figure.suptitle(f"{len(wrong)} of {len(labels)} answers are wrong; {shown}")
    for place, n in enumerate(wrong[found.values[wrong].argsort(descending=True)][:25].tolist()):
        axes = figure.add_subplot(5, 5, place + 1, xticks=[], yticks=[])
        axes.imshow(images.pixels[n].permute(1, 2, 0).cpu().numpy())
        title = f"{names[int(labels[n])]}: {names[int(found.indices[n])]}, {found.values[n]:.2f}"
        axes.set_title(title, parse_math=False, fontsize=8)
    return figure


def confusion_figure(counts: Tensor, names: tuple[str, ...]) -> Figure:
    """Rows are true classes, columns predictions; with the counts where they fit."""
    from sklearn.metrics import ConfusionMatrixDisplay  # a second, which no start waits for

    figure = Figure(figsize=(10, 10), layout="constrained")
    display = ConfusionMatrixDisplay(counts.cpu().numpy(), display_labels=names)
    display.plot(ax=figure.add_subplot(), cmap="Blues", include_values=len(names) <= 20, xticks_rotation=45)
    return figure


def column(rows: Sequence[Row], key: str) -> list[float]:
    return [row[key] for row in rows]


def figure_of_panels(height: float, *ratios: float) -> tuple[Figure, Any]:
    """A figure 8 inches wide, and its panels one above the other."""
    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]


def write_figure(figure: Figure, path: Path, legend: bool = True) -> None:
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    if legend:
        lines = figure.axes[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside upper center", ncols=3, fontsize=8, handlelength=3.5)
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=110))


def schedule_command(overrides: Sequence[str], out: Path) -> None:
    """Draws lr and momentum of every job of the command line, without training, and prints the main values."""
    if out.suffix.lower() not in PICTURES:
        raise ConfigError(f"--out (={out}) must end in {', '.join(PICTURES[:-1])} or {PICTURES[-1]}")
    make_folder(out.parent)
    plans = {}
    for label, config in jobs_of(overrides):
        label = label or config.schedule.name
        table = lr_momentum_table(config, span := config.span)
        points = np.column_stack([np.arange(span.steps) / span.steps_per_epoch, table])
        plans[label] = points[:: max(1, span.steps // DRAWN_POINTS)]
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
def write_even_if_interrupted(write: Callable[[], None], measured: Iterable[Any]) -> Iterator[None]:
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
