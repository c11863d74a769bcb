"""Figures of what a network answers: confusion matrix, worst mistakes, reliability diagram."""

import warnings
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from resnetlab.console import say
from resnetlab.data import Images
from resnetlab.runs.files import write_atomically, write_rows


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
        write_atomically(folder / "confusion.png", confusion_figure(counts, names).savefig)
        write_atomically(folder / "mistakes.png", mistakes_figure(logits.softmax(1), images, names).savefig)


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
