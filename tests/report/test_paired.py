"""Kept predictions in the report: paired tests, ensembles, noise and calibration against second computations."""

import csv
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from resnetlab.cli import main
from resnetlab.report.compare import compare
from resnetlab.report.groups import Collection, collect
from resnetlab.report.paired import accuracy_noise, bootstrap_interval, mcnemar
from resnetlab.report.write import write_report
from synthetic import change_summary, write_run

RUNS, N = Path("runs"), 300
LABELS = np.random.default_rng(99).integers(0, 10, N)


def write_predictions(folder: Path, seed: int, images: str = "a", **changes: Any) -> tuple[Any, Any]:
    """Puts random logits into a run's folder, and their accuracy into its summary; (logits, mirrored) as written."""
    chance = np.random.default_rng(seed)
    views = chance.normal(size=(2, N, 10))
    views[:, np.arange(N), LABELS] += 2
    logits, mirrored = (views - views.max(2, keepdims=True)).astype(np.float16)
    arrays = {"logits": logits, "mirrored": mirrored, "labels": LABELS, "images": images, "ece": 0.01 * seed} | changes
    np.savez(folder / "predictions.npz", **{key: value for key, value in arrays.items() if value is not None})
    accuracy = float((logits.argmax(1) == LABELS).mean())
    ce = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(LABELS))
    change_summary(folder, final_val_acc=accuracy, final_val_ce=float(ce))
    return logits, mirrored


def two_configurations(seeds: Sequence[int] = (0, 1, 2)) -> dict[float, list[tuple[Any, Any]]]:
    """Runs of wd 0.1 and 0.3 with predictions; what was written."""
    return {
        wd: [write_predictions(write_run(RUNS, seed=seed, wd=wd), round(100 * wd) + seed) for seed in seeds]
        for wd in (0.1, 0.3)
    }


def by_wd(collection: Collection) -> dict[float, Any]:
    return {c.setting("wd"): c for c in collection.configurations}


def remarks() -> list[str]:
    return [remark for run in collect([RUNS]).runs for remark in run.remarks]


def pairs() -> list[dict[str, str]]:
    write_report(collect([RUNS]), Path("out"))
    return list(csv.DictReader(Path("out/pairs.csv").read_text().splitlines()))


@pytest.mark.parametrize("shares", [(0.9, 0.8), (0.9, 0.9), (1.0, 1.0), (0.5, 0.52), (0.0, 1.0)])
def test_mcnemars_exact_test_is_scipys_binomial_test_of_the_images_that_one_alone_has_right(
    shares: tuple[float, float],
) -> None:
    chance = np.random.default_rng(0)
    first, second = (chance.random(400) < share for share in shares)
    b, c = int(np.sum(first > second)), int(np.sum(second > first))
    wanted = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(first, second) == pytest.approx(wanted, rel=1e-9)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_mcnemars_test_by_hand() -> None:
    """5 images that the first alone has right and none for the second: 2 * 0.5^5."""
    first, second = np.ones(20, dtype=bool), np.arange(20) >= 5
    assert mcnemar(first, second) == 2 / 32


def test_the_bootstrap_is_that_of_a_loop_that_draws_images() -> None:
    chance = np.random.default_rng(3)
    differences = (chance.random((3, N)) < 0.8).mean(0) - (chance.random((5, N)) < 0.7).mean(0)
    means = [differences[chance.integers(0, N, N)].mean() for _ in range(4000)]
    low, high = bootstrap_interval(differences)
    spread = np.std(
        means
    )  # a quantile's standard error: 0.042 spreads of 4,000 draws, 0.06 of 2,000; both at twice that
    assert low == pytest.approx(np.quantile(means, 0.025), abs=0.15 * spread)
    assert high == pytest.approx(np.quantile(means, 0.975), abs=0.15 * spread)
    assert high - low == pytest.approx(2 * 1.96 * differences.std() / math.sqrt(N), rel=0.05)
    assert bootstrap_interval(differences) == (low, high)  # the same draws
    assert bootstrap_interval(np.full(N, 1 / 3)) == pytest.approx((1 / 3, 1 / 3))


@pytest.mark.parametrize("sd_distribution", [0.0, 0.05])
def test_the_noise_of_an_accuracy_is_that_of_a_simulation(sd_distribution: float) -> None:
    """Seeds whose accuracy on all images has a known sd, errors independent given it; means over 100 studies."""
    chance, images, seeds = np.random.default_rng(1), 400, 50
    shift = np.linspace(-1, 1, seeds)[:, None]
    shift *= sd_distribution / shift.std(ddof=1)
    p = 0.2 + 0.6 * chance.random((100, images))
    studies = [accuracy_noise(chance.random((seeds, images)) < own + shift) for own in p]
    # standard errors over 100 studies: of the first below 0.3 %, of the second 2 % (50 seeds: sqrt(2 / 49) a study)
    variances = {key: np.mean([study[key] ** 2 for study in studies]) for key in studies[0]}
    assert variances["val_acc_sd_independent"] == pytest.approx((p * (1 - p)).mean() / images, rel=0.01)
    if sd_distribution:
        assert variances["val_acc_sd_distribution"] == pytest.approx(sd_distribution**2, rel=0.05)
    else:  # half of the estimates are cut off at zero
        assert variances["val_acc_sd_distribution"] < 0.15 * variances["val_acc_sd_independent"]


def test_the_noise_by_hand() -> None:
    """Two seeds, two images: p (1 - p) unbiased is 0.5 for the image on which they differ; sums 0.5 / 2^2."""
    found = accuracy_noise(np.array([[True, True], [True, False]]))
    assert found == {"val_acc_sd_independent": math.sqrt(0.125), "val_acc_sd_distribution": 0.0}
    together = accuracy_noise(np.array([[True, True], [False, False]]))  # both right or both wrong
    assert together == pytest.approx({"val_acc_sd_independent": 0.5, "val_acc_sd_distribution": math.sqrt(0.5)})


def test_the_table_has_tta_ensemble_calibration_and_noise_in_columns_of_their_own() -> None:
    """Against softmax and argmax of torch, image by image."""
    written = two_configurations()
    for seed in (3, 4):
        write_run(RUNS, seed=seed, wd=0.1)  # without predictions
    collection = collect([RUNS])
    for wd, c in by_wd(collection).items():
        views = torch.from_numpy(np.array(written[wd])).float().softmax(3)  # (seed, view, N, class)
        plain, tta = ((p.argmax(2).numpy() == LABELS).mean(1) for p in (views[:, 0], views.mean(1)))
        assert c.values("final_val_acc")[:3] == pytest.approx(list(plain))
        assert c.values("final_val_acc_flip") == pytest.approx(list(tta))
        ensemble = c.interval("final_val_acc_ensemble")
        assert (ensemble.n, ensemble.sd, ensemble.low) == (3, None, None)
        assert ensemble.mean == (views[:, 0].mean(0).argmax(1).numpy() == LABELS).mean()
        assert ensemble.mean > max(plain)
        assert c.values("final_val_ece") == [0.01 * (round(100 * wd) + seed) for seed in range(3)]
        right = (views[:, 0].argmax(2).numpy() == LABELS).astype(float)
        share = right.mean(0)
        assert c.mean("val_acc_sd_independent") == pytest.approx(math.sqrt((share * (1 - share)).sum() * 1.5) / N)
    page_and_tables(collection)


def page_and_tables(collection: Collection) -> None:
    """The ensemble's accuracy is written as one figure, with its n and no spread."""
    write_report(collection, Path("out"))
    (row,) = [r for r in csv.DictReader(Path("out/table.csv").read_text().splitlines()) if r["wd"] == "0.1"]
    assert (row["final_val_acc_ensemble_n"], row["final_val_acc_ensemble_sd"], row["n"]) == ("3", "", "5")
    page, text = (Path(f"out/report.{kind}") if kind == "html" else Path("out/table.md") for kind in ("html", "md"))
    ensemble = f"{float(row['final_val_acc_ensemble_mean']):.4f}"
    assert f">{ensemble}<span" in page.read_text()
    assert f"{ensemble} (n = 3 of 5)" in text.read_text()


def test_configurations_are_compared_on_the_same_images() -> None:
    written = two_configurations()
    (found,) = compare(collect([RUNS]).configurations, "final_val_acc")
    assert found.paired is not None
    right = {wd: np.array([v[0].argmax(1) == LABELS for v in views]) for wd, views in written.items()}
    sides = [right[c.setting("wd")] for c in (found.first, found.second)]
    ps = [binomtest(int(np.sum(a > b)), int(np.sum(a != b))).pvalue for a, b in zip(*sides, strict=True)]
    assert [float(p) for p in found.paired.mcnemar.split()] == pytest.approx(ps)
    assert (found.paired.images, found.paired.seeds) == (N, "0 1 2")
    assert found.paired.low < found.difference < found.paired.high
    rows = pairs()
    assert list(rows[0])[-5:] == ["paired_images", "paired_seeds", "mcnemar_p", "paired_low_95", "paired_high_95"]
    cells = {row["figure"]: [*row.values()][-5:] for row in rows}
    assert cells["final_val_acc"] == list(map(str, found.paired))
    assert cells["best_val_acc"] == [""] * 5
    assert "McNemar" in Path("out/report.html").read_text()


def test_other_seeds_or_images_are_not_paired() -> None:
    write_predictions(write_run(RUNS, seed=0, wd=0.1), 0)
    write_predictions(write_run(RUNS, seed=1, wd=0.3), 1)
    (found,) = compare(collect([RUNS]).configurations, "final_val_acc")
    assert found.paired is not None
    assert (found.paired.seeds, found.paired.mcnemar) == ("", "")
    write_predictions(write_run(RUNS, seed=1, wd=0.3), 1, images="others")
    (found,) = compare(collect([RUNS]).configurations, "final_val_acc")
    assert found.paired is None
    assert "McNemar" not in (pairs() and Path("out/report.html").read_text())


def test_a_seed_on_other_images_is_left_out_with_a_remark() -> None:
    folders = [write_run(RUNS, seed=seed) for seed in range(3)]
    written = [write_predictions(f, seed, images="others" if seed == 2 else "a") for seed, f in enumerate(folders)]
    (c,) = collect([RUNS]).configurations
    assert c.interval("final_val_acc_ensemble").n == 2  # type: ignore[union-attr]
    total = sum(torch.from_numpy(v[0]).float().softmax(1) for v in written[:2])
    assert c.mean("final_val_acc_ensemble") == (total.argmax(1).numpy() == LABELS).mean()  # type: ignore[union-attr]
    assert remarks() == ["predictions.npz cannot be used: it is of other images than those of the seeds before"]


def test_predictions_of_another_epoch_with_the_same_accuracy_are_left_out_with_a_remark() -> None:
    folder = write_run(RUNS)
    logits, mirrored = write_predictions(folder, 0)
    np.savez(folder / "predictions.npz", logits=1.2 * logits, mirrored=mirrored, labels=LABELS, images="a", ece=0.01)
    (remark,) = remarks()
    assert remark.startswith("predictions.npz cannot be used: with a cross-entropy of ")


class Trap:
    """Says that it was unpickled."""

    def __reduce__(self) -> Any:
        return Path("pickled").touch, ()


DAMAGES: dict[str, Any] = {
    "pickled": {"logits": np.array([Trap()], dtype=object)},
    "pickled labels": {"labels": np.array([Trap()], dtype=object)},
    "no labels": {"labels": None},
    "no logits": {"logits": None},
    "no digest": {"images": None},
    "no calibration error": {"ece": None},
    "another error": {"ece": np.nan},
    "other weights": {"logits": np.random.default_rng(0).normal(size=(N, 10)).astype(np.float16)},
    "fewer images": {"logits": np.zeros((N - 1, 10), dtype=np.float16)},
    "fewer mirrored": {"mirrored": np.zeros((N - 1, 10), dtype=np.float16)},
    "no images": {"labels": np.zeros(0, dtype=np.int64), "logits": np.zeros((0, 10), dtype=np.float16)},
    "nan": {"mirrored": np.full((N, 10), np.nan, dtype=np.float16)},
    "one number": {"logits": np.float16(1.0)},
    "texts": {"labels": np.array(["cat"] * N)},
}


@pytest.mark.parametrize("kind", [*DAMAGES, "cut", "empty", "text", "bit"])
def test_damaged_predictions_are_one_remark_and_cost_nothing_else(kind: str) -> None:
    folders = [write_run(RUNS, seed=seed) for seed in range(3)]
    for seed, folder in enumerate(folders):
        write_predictions(folder, seed, **(DAMAGES.get(kind, {}) if seed == 1 else {}))
    path = folders[1] / "predictions.npz"
    content = path.read_bytes()
    place = content.find(LABELS.tobytes())
    flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    raw = {"cut": content[: len(content) // 2], "empty": b"", "text": b"hello\n", "bit": flipped}
    path.write_bytes(raw.get(kind, content))
    collection = collect([RUNS])
    assert [run.seed for run in collection.runs] == [0, 1, 2]
    (c,) = collection.configurations
    assert c.interval("final_val_acc_ensemble").n == 2  # type: ignore[union-attr]
    assert len(c.values("final_val_acc")) == 3
    (remark,) = remarks()
    assert remark.startswith("predictions.npz cannot be used: ")
    assert "\n" not in remark
    assert not Path("pickled").exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_folder_or_a_pipe_in_its_place_is_not_read(make: Callable[[Path], None]) -> None:
    make(write_run(RUNS) / "predictions.npz")
    assert remarks() == []


def test_without_predictions_nothing_is_added(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(RUNS)
    assert main(["report", "runs", "--wide"]) == 0
    printed = capsys.readouterr().out
    assert not any(word in printed for word in ("ensemble", "TTA", "calibration"))
