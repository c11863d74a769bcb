"""The series' own plot of one run: accuracies, losses and learning rate over the epochs."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from resnetlab.runs.files import write_atomically
from resnetlab.runs.summary import Row

TRAIN, VALIDATION, RECALIBRATED, AVERAGED = "tab:red", "tab:blue", "tab:cyan", "tab:purple"


def draw_curves(
    rows: Sequence[Row],
    thresholds: Sequence[float],
    title: str,
    path: Path,
    plan: Sequence[tuple[float, float]] = (),
    sign: str | None = None,
    since: int | None = None,
) -> None:
    """Writes a picture: train red, validation blue, thresholds green (the first solid, the others dotted).

    An epoch's figures stand where it ends: epoch e at e. plan: (epochs done, lr) within the run, for schedules that
    follow every step; without it the lr of each epoch's first step is drawn. sign, since: the summary's fit_sign and
    overfitting_since.
    """
    figure = Figure(figsize=(8, 9))
    figure.subplots_adjust(left=0.14, right=0.98, top=0.95, bottom=0.06, hspace=0.06)  # a layout engine draws it twice
    accuracy, loss, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.2])
    figure.suptitle(title, fontsize=9, y=0.98)
    _lines(accuracy, rows, "acc")
    for number, threshold in enumerate(thresholds):
        style, label = ":" if number else "-", f"threshold {threshold:g}"
        accuracy.axhline(threshold, color="tab:green", linestyle=style, linewidth=1, label=label)
    accuracy.set(ylabel="accuracy")
    _lines(loss, rows, "loss")
    if any(row["train/loss"] != row["train/ce"] for row in rows):  # a penalty or label smoothing is in the loss
        for column, color in (("train/ce", TRAIN), ("val/ce", VALIDATION)):
            label = f"{column.split('/')[0]}, cross-entropy alone"
            loss.plot(*_points(rows, column), color=color, linestyle="--", linewidth=1, label=label)
    if since is not None:
        loss.axvline(since, color="tab:orange", linestyle=":", label=f"overfitting since epoch {since}")
    elif sign == "underfitting":
        loss.plot([], [], " ", label="underfitting: validation ends below training")
    loss.set(ylabel="loss", yscale="log")
    low, high = loss.get_ylim()
    loss.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    loss.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if high < 10 * low else NullFormatter())
    times, rates = _points(rows, "lr") if not plan else (list(part) for part in zip(*plan, strict=True))
    rate.plot(times, rates, color="black", linewidth=1, drawstyle="default" if plan else "steps-pre")
    rate.set(ylabel="learning rate", xlabel="epoch")
    if min(rates) > 0 and max(rates) >= 10 * min(rates):
        rate.set_yscale("log")
        rate.set_ylim(bottom=max(0.8 * min(rates), 1e-4 * max(rates)))  # 1cycle ends at 4e-6 of its peak
        rate.yaxis.set_minor_formatter(NullFormatter())  # the decades are enough in so low a panel
    for axes in (accuracy, loss, rate):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    accuracy.legend(fontsize=8)
    loss.legend(fontsize=8)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))


def _lines(axes: object, rows: Sequence[Row], name: str) -> None:
    marker = "." if len(rows) < 30 else None
    for prefix, suffix, color, label in (
        ("train", "", TRAIN, "train"),
        ("val", "", VALIDATION, "val"),
        ("val", "_recal", RECALIBRATED, "val, batch-norm statistics re-estimated"),
        ("val", "_avg", AVERAGED, "val, averaged weights"),
    ):
        epochs, values = _points(rows, f"{prefix}/{name}{suffix}")
        if epochs:
            axes.plot(epochs, values, color=color, marker=marker, label=label)  # type: ignore[attr-defined]


def _points(rows: Sequence[Row], column: str) -> tuple[list[float], list[float]]:
    present = [row for row in rows if column in row]
    return [row["epoch"] for row in present], [row[column] for row in present]
