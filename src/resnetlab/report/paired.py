"""Statistics of the predictions that runs have kept: paired tests, calibration, ensembles, noise of an accuracy."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, softmax

from resnetlab.errors import first_line
from resnetlab.runs.layout import PREDICTIONS
from resnetlab.runs.load import Run


class Answers(NamedTuple):
    """Predictions of a configuration: digest of its images, {seed: (N,) of bool}, and metrics of all runs together."""

    digest: str = ""
    right: Mapping[int, np.ndarray] = {}
    metrics: Mapping[str, float] = {}


class PairedTests(NamedTuple):
    """Two configurations on the same images, as in pairs.csv. seeds: those that both have; mcnemar: p of each.

    low, high: 95 % interval of the difference of their mean accuracies, of these trained networks on other images.
    """

    images: int
    seeds: str
    mcnemar: str
    low: float
    high: float


def answers_of(runs: Iterable[Run]) -> Answers:
    """Reads the predictions of a configuration's runs; adds metrics and remarks to the runs."""
    right, total, labels, digest = dict[int, np.ndarray](), np.zeros(1), np.zeros(1), ""
    for run in runs:
        if (run.path / PREDICTIONS).is_file():
            try:
                views, labels, digest = read_predictions(run, digest)
                total, right[run.seed] = total + views[0], views[0].argmax(1) == labels
            except Exception as error:  # NumPy raises many kinds for damaged files
                run.remarks.append(f"{PREDICTIONS} cannot be used: {first_line(error)}")
                continue
            if len(views) > 1:
                run.metrics.setdefault("final_val_acc_flip", float((np.sum(views, 0).argmax(1) == labels).mean()))
    if len(right) < 2:
        return Answers(digest, right)
    ensemble = {"final_val_acc_ensemble": float((total.argmax(1) == labels).mean())}
    return Answers(digest, right, ensemble | accuracy_noise(np.array([*right.values()])))


def read_predictions(run: Run, digest: str) -> tuple[list[np.ndarray], np.ndarray, str]:
    """(probabilities (N, classes) of the images and, if kept, of their mirror images; labels; digest of the images).

    Adds the calibration error to the run. digest: the one that is expected; "" for any. Raises many kinds of errors.
    """
    with (run.path / PREDICTIONS).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        labels, found, error = file["labels"], str(file["images"]), float(file["ece"])
        logits = [file[name].astype(np.float32) for name in ("logits", "mirrored") if name in file]
    views = [softmax(view.reshape(len(labels), -1), axis=1) for view in logits]
    ce = float(-np.log(np.maximum(views[0][np.arange(len(labels)), labels], 1e-30)).mean())
    known = abs(ce - run.metrics.get("final_val_ce", -1)) <= 0.002 * (1 + ce)  # float16, another device's rounding
    if not (known and np.isfinite(views).all() and 0 <= error <= 1):
        raise ValueError(f"with a cross-entropy of {ce:.4f} it is of other weights or images, or has NaN in it")
    if digest not in ("", found):
        raise ValueError("it is of other images than those of the seeds before")
    run.metrics["final_val_ece"] = error
    return views, labels, found


def paired_tests(first: Answers, second: Answers) -> PairedTests | None:
    """None where a side has no predictions, or the images are not the same."""
    if not first.digest or first.digest != second.digest:
        return None
    a, b = (np.mean([*side.right.values()], axis=0) for side in (first, second))
    ps = {seed: mcnemar(first.right[seed], second.right[seed]) for seed in first.right if seed in second.right}
    return PairedTests(len(a), " ".join(map(str, ps)), " ".join(map(str, ps.values())), *bootstrap_interval(a - b))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p of McNemar's exact test: of the images that one network alone has right, half are due to each."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean over images drawn with replacement; always the same draws.

    Few values differ: their numbers are drawn, from the multinomial distribution, 100 times as fast as 10,000 images.
    """
    values, counts = np.unique(differences, return_counts=True)
    n = len(differences)
    means = np.random.default_rng(0).multinomial(n, counts / n, size=2000) @ values / n
    return tuple(np.quantile(means, (0.025, 0.975)).tolist())


def accuracy_noise(right: np.ndarray) -> dict[str, float]:
    """Two parts of the sd s of an accuracy over seeds, after Jordan (2023), arXiv 2304.01910. right: (k, N) of bool.

    Of errors independent from image to image: sqrt(sum p (1 - p)) / N, p an image's share of right answers. Of the
    accuracy on all images there could be: sqrt(N / (N - 1) (s^2 - that^2)). Both variances are unbiased; none is shown
    below zero.
    """
    n = right.shape[1]
    noise = right.var(0, ddof=1).sum() / n**2
    beyond = (right.mean(1).var(ddof=1) - noise) * n / max(1, n - 1)
    return {"val_acc_sd_independent": noise**0.5, "val_acc_sd_distribution": max(0.0, beyond) ** 0.5}
