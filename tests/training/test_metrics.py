"""An epoch's means against sums made by hand, by sorting, and in exact fractions."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from conftest import tiny
from resnetlab.training.metrics import EpochMetrics
from resnetlab.training.module import ImageClassifier

CPU = torch.device("cpu")
ZERO = torch.zeros(())


def logits_for(predicted: list[int]) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), 10).float()


def update(metrics: EpochMetrics, predicted: list[int], labels: list[int], loss: float = 0.0, ce: float = 0.0) -> None:
    metrics.update(torch.tensor(loss), torch.tensor(ce), logits_for(predicted), torch.tensor(labels))


def test_means_are_over_images_not_over_batches() -> None:
    metrics = EpochMetrics(CPU)
    update(metrics, [1, 2, 3, 4], [1, 2, 3, 0], loss=2.0, ce=1.5)
    update(metrics, [5, 5], [5, 6], loss=0.5, ce=0.25)
    update(metrics, [7], [8], loss=8.0, ce=4.0)
    # (4*2 + 2*0.5 + 1*8) / 7, (4*1.5 + 2*0.25 + 4) / 7, 4 of 7; means over batches were 3.5, 1.92, 0.42.
    assert metrics.compute() == {"loss": 17 / 7, "ce": 10.5 / 7, "acc": 4 / 7}


@pytest.mark.parametrize(("right", "of"), [(9_200, 10_000), (1, 3), (9_199, 10_000), (49_999, 50_000), (0, 7), (7, 7)])
def test_shares_are_exact(right: int, of: int) -> None:
    metrics = EpochMetrics(CPU)
    labels = torch.ones(of, dtype=torch.int64)
    predicted = torch.where(torch.arange(of) < right, 1, 2)
    for part, y in zip(predicted.split(500), labels.split(500), strict=True):
        metrics.update(ZERO, ZERO, torch.nn.functional.one_hot(part, 10).float(), y)
    # == 0.92 to the bit: "epochs to 92 %" compares with >=, and float32's 0.92 is 0.92000001669.
    assert metrics.compute()["acc"] == float(Fraction(right, of))


def test_top_1_and_top_5_are_those_found_by_sorting() -> None:
    generator = torch.Generator().manual_seed(0)
    metrics = EpochMetrics(CPU, top5=True)
    first = fifth = images = 0
    for size in (64, 64, 7):
        logits, y = torch.randn(size, 10, generator=generator), torch.randint(10, (size,), generator=generator)
        metrics.update(ZERO, ZERO, logits, y)
        for row, label in zip(logits.tolist(), y.tolist(), strict=True):
            place = sorted(range(10), key=lambda c, row=row: -row[c]).index(label)
            first, fifth, images = first + (place < 1), fifth + (place < 5), images + 1
    found = metrics.compute()
    assert 0 < first < fifth < images  # the draw tells the two apart
    assert (found["acc"], found["acc5"]) == (first / images, fifth / images)


def test_top_5_is_for_more_than_five_classes() -> None:
    assert [ImageClassifier(tiny(), 2, classes).top5 for classes in (5, 6, 10)] == [False, True, True]


def test_names_get_the_prefix_and_the_suffix() -> None:
    metrics = EpochMetrics(CPU, top5=True)
    update(metrics, [1], [1])
    names = ["val/acc5_recal", "val/acc_recal", "val/ce_recal", "val/loss_recal"]
    assert sorted(metrics.compute("val/", "_recal")) == names


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_shows_in_the_mean(bad: float) -> None:
    metrics = EpochMetrics(CPU)
    update(metrics, [1, 2], [1, 2], loss=1.0, ce=1.0)
    update(metrics, [1], [1], loss=bad, ce=1.0)
    update(metrics, [1, 2], [1, 3], loss=1.0, ce=1.0)
    found = metrics.compute()
    assert not math.isfinite(found["loss"])
    assert (found["ce"], found["acc"]) == (1.0, 0.8)
    update(metrics, [1], [1], loss=3.0, ce=2.0)
    assert metrics.compute()["loss"] == 3.0  # and is gone with its pass


def test_sums_do_not_drift_with_the_number_of_batches() -> None:
    metrics = EpochMetrics(CPU)
    tenth = torch.tensor(0.1)
    for _ in range(1000):
        metrics.update(tenth, tenth, logits_for([1, 2, 3]), torch.tensor([1, 2, 3]))
    # A batch's product is float32's, as old runs had it (1e-8 off the exact one). In float64
    # a thousand additions stay within 1e-13; summed in float32 they were off by 1e-6 and more.
    found = metrics.compute()["loss"]
    assert math.isclose(found, float(tenth * 3) / 3, rel_tol=1e-12)
    assert math.isclose(found, 0.1, rel_tol=1e-7)
