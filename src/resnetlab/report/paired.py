"""Statistics of the predictions that runs have kept: paired tests, calibration, ensembles, noise of an accuracy."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from resnetlab.errors import first_line
from resnetlab.runs.files import sha256
from resnetlab.runs.layout import PREDICTIONS
from resnetlab.runs.load import Run

Array = npt.NDArray[Any]
RESAMPLES = 10_000
BINS = 15  # of the calibration error, as in resnetlab evaluate


class Answers(NamedTuple):
    """The predictions kept by a configuration's runs. images: digest of images and labels. right: {seed: (N,) of bool}.

    metrics: of all these runs together, by their names in columns.toml.
    """

    images: str
    right: Mapping[int, Array]
    metrics: Mapping[str, float]


class PairedTests(NamedTuple):
    """Two configurations on the same N images: the last columns of pairs.csv.

    seeds: those that both have, and mcnemar: p of each. low, high: 95 % interval of the difference of the mean
    accuracies of these trained networks, on other images.
    """

    images: int
    seeds: str
    mcnemar: str
    low: float
    high: float


def answers_of(runs: Iterable[Run]) -> Answers | None:
    """Reads the predictions of a configuration's runs, None without any; adds metrics and remarks to the runs."""
    right, total, labels, images = dict[int, Array](), np.zeros(1), np.zeros(1), ""
    for run in runs:
        if (found := read_predictions(run)) is None:
            continue
        if right and found[2] != images:
            run.remarks.append(f"{PREDICTIONS} is of other images than that of seed {min(right)}: left out")
            continue
        views, labels, images = found
        total, right[run.seed] = total + views[0], views[0].argmax(1) == labels
        run.metrics["final_val_ece"] = calibration_error(views[0], right[run.seed])
        if len(views) > 1:
            run.metrics["final_val_acc_tta"] = float((np.sum(views, 0).argmax(1) == labels).mean())
    if len(right) < 2:
        return Answers(images, right, {}) if right else None
    ensemble = {"final_val_acc_ensemble": float((total.argmax(1) == labels).mean())}
    return Answers(images, right, ensemble | accuracy_noise(np.array([*right.values()])))


def read_predictions(run: Run) -> tuple[list[Array], Array, str] | None:
    """(probabilities (N, classes) of the images and, if kept, of their mirror images; labels; digest of both).

    None where the run has kept none. A file that is damaged, or of other weights, is a remark of the run.
    """
    if not (path := run.path / PREDICTIONS).is_file():
        return None
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            labels, digest = file["labels"], sha256(file["images"].tobytes() + file["labels"].tobytes())
            logits = [file[name].astype(np.float32) for name in ("logits", "mirrored") if name in file]
        powers = [np.exp(view - view.max(1, keepdims=True)).reshape(len(labels), -1) for view in logits]
        views = [power / power.sum(1, keepdims=True) for power in powers]
        acc = float((views[0].argmax(1) == labels).mean())
        if abs(acc - run.metrics.get("final_val_acc", -1)) > 0.002 + 1.5 / len(labels):  # another device's rounding
            raise ValueError(f"its accuracy is {acc:.4f}, so it is of other weights or images")
        if not np.isfinite(views).all():
            raise ValueError("it has NaN or infinity")
    except Exception as error:  # NumPy raises many kinds for damaged files
        run.remarks.append(f"{PREDICTIONS} cannot be used: {first_line(error)}")
        return None
    return views, labels, digest


def paired_tests(first: Answers | None, second: Answers | None) -> PairedTests | None:
    """None where a side has no predictions, or the images are not the same."""
    if first is None or second is None or first.images != second.images:
        return None
    a, b = (np.mean([*side.right.values()], axis=0) for side in (first, second))
    ps = {seed: mcnemar(first.right[seed], second.right[seed]) for seed in first.right if seed in second.right}
    return PairedTests(len(a), " ".join(map(str, ps)), " ".join(map(str, ps.values())), *bootstrap_interval(a - b))


def mcnemar(first: Array, second: Array) -> float:
    """Two-sided p of McNemar's exact test: of the images that one network alone has right, half are due to each."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def bootstrap_interval(differences: Array) -> tuple[float, float]:
    """95 % percentile interval of the mean over images, which are drawn with replacement; always the same draws.

    Few values differ, so their numbers are drawn, from the multinomial distribution, instead of the images: 100 times
    as fast for 10,000 images.
    """
    values, counts = np.unique(differences, return_counts=True)
    n = len(differences)
    means = np.random.default_rng(0).multinomial(n, counts / n, size=RESAMPLES) @ values / n
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def calibration_error(probabilities: Array, hits: Array) -> float:
    """Expected calibration error: |accuracy - confidence| in equal bins of the confidence, weighted by their images."""
    confidence = probabilities.max(1)
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(places, hits - confidence)).sum() / len(hits))


def accuracy_noise(right: Array) -> dict[str, float]:
    """Two parts of the sd of an accuracy over k seeds, after Jordan (2023), arXiv 2304.01910. right: (k, N) of bool.

    From errors that are independent from image to image, sqrt(sum p (1 - p)) / N with p an image's share of right
    answers: noise of these N images. And of the accuracy on all images there could be, sqrt(N / (N - 1) (s^2 - that^2))
    with s the sd that is seen. Both variances are unbiased; below zero, the second is shown as zero.
    """
    n = right.shape[1]
    noise = right.var(0, ddof=1).sum() / n**2
    beyond = (right.mean(1).var(ddof=1) - noise) * n / max(1, n - 1)
    return {"val_acc_sd_independent": math.sqrt(noise), "val_acc_sd_distribution": math.sqrt(max(0.0, beyond))}
