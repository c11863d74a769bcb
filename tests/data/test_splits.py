"""Splits: sizes and members against Keras' and scikit-learn's rules, written out for the 60,000 images of CIFAR-10."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnetlab.data.splits import SPLITS, split, split_sizes
from resnetlab.errors import LIMITS, ConfigError

TEST = 10_000
Parts = tuple[Tensor, Tensor, Tensor | None]


def cifar_labels() -> NDArray[np.int64]:
    """60,000 labels, 5,000 + 1,000 of each class, in a random order on either side."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.permutation(np.repeat(np.arange(10), count)) for count in (5_000, 1_000)])


LABELS = cifar_labels()


def cut(kind: str, *, pool: str = "all", val_size: float | None = None, seed: int = 0, labels: Any = LABELS) -> Parts:
    return split(kind, labels, TEST if labels is LABELS else len(labels) // 6, pool, val_size, seed)


def check_division(train: Tensor, val: Tensor, of: int) -> None:
    """train and val are disjoint and together the first `of` indices."""
    both = torch.cat([train, val])
    assert both.dtype == torch.int64
    assert torch.equal(both.sort().values, torch.arange(of))


def counts(indices: Tensor, labels: NDArray[np.int64] = LABELS) -> list[int]:
    return np.bincount(labels[indices.numpy()], minlength=10).tolist()


@pytest.mark.parametrize(
    ("kind", "pool", "train", "val", "test"),
    [
        ("official", "all", 50_000, 10_000, None),
        ("stratified", "all", 50_000, 10_000, None),
        ("stratified", "train", 41_666, 8_334, 10_000),  # a sixth of 50,000 is 8,333.3; the floor is taken on the left
        ("tail", "all", 43_000, 7_000, 10_000),
        ("holdout", "all", 45_000, 5_000, 10_000),
    ],
)
def test_default_sizes_and_complete_disjoint_parts(kind: str, pool: str, train: int, val: int, test: int) -> None:
    train_at, val_at, test_at = cut(kind, pool=pool)
    assert (len(train_at), len(val_at)) == (train, val)
    check_division(train_at, val_at, train + val)
    assert sorted(SPLITS) == ["holdout", "official", "stratified", "tail"]
    assert LIMITS["data"]["split"]["one_of"] == [*SPLITS]
    if kind in ("official", "tail"):  # in order, whatever the seed
        assert torch.equal(train_at, torch.arange(train))
        assert torch.equal(cut(kind, seed=3)[1], torch.arange(train, train + val))
    if (kind, pool) == ("stratified", "all"):
        assert (train_at >= 50_000).any()
        assert (val_at >= 50_000).any()
    assert split_sizes(kind, 50_000, TEST, pool, None, 10) == (train, val)
    if test is None:
        assert test_at is None
    else:
        assert test_at is not None
        assert torch.equal(test_at, torch.arange(50_000, 60_000))


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.14, 0.2, 1 / 3, 0.9])
@pytest.mark.parametrize("images", [60_000, 60_006, 1_206])
def test_tail_takes_what_keras_validation_split_takes(fraction: float, images: int) -> None:
    labels = np.zeros(images, np.int64)
    train_images = images - images // 6
    train, val, _ = cut("tail", val_size=fraction, labels=labels)
    split_at = math.floor(train_images * (1 - fraction))  # keras/src/trainers/data_adapters/array_slicing.py
    assert torch.equal(train, torch.arange(split_at))
    assert torch.equal(val, torch.arange(split_at, train_images))


@pytest.mark.parametrize(("kind", "pool"), [("stratified", "all"), ("stratified", "train"), ("holdout", "all")])
@pytest.mark.parametrize("val_size", [None, 1_003, 0.25])
def test_stratified_parts_have_equal_class_counts_within_one(kind: str, pool: str, val_size: float | None) -> None:
    train, val, _ = cut(kind, pool=pool, val_size=val_size)
    for part in (train, val):
        assert max(counts(part)) - min(counts(part)) <= 1


def test_stratified_parts_keep_unequal_shares_within_one() -> None:
    labels = np.repeat(np.arange(3), [600, 300, 100])
    _, val, _ = split("stratified", labels, 100, "all", 0.2, 0)
    # 20 % of each class is a whole number, so "within one" is exact here.
    assert counts(val, labels)[:3] == [120, 60, 20]


@pytest.mark.parametrize("kind", ["stratified", "holdout"])
def test_the_seed_matters_and_nothing_else_does(kind: str) -> None:
    np.random.seed(1)
    train, val, _ = cut(kind, seed=3)
    np.random.seed(2)
    again, other = cut(kind, seed=3), cut(kind, seed=4)
    assert torch.equal(train, again[0])
    assert torch.equal(val, again[1])
    # Two independent halves of 10,000 (5,000) in 60,000 (50,000) share a sixth (a tenth) of their images.
    shared = len(np.intersect1d(val.numpy(), other[1].numpy())) / len(val)
    assert shared < 0.25


@pytest.mark.parametrize(("kind", "of"), [("stratified", 60_000), ("tail", 50_000), ("holdout", 50_000)])
@pytest.mark.parametrize(("val_size", "share"), [(0.25, 4), (2_500, None), (2_500.0, None)])
def test_val_size_is_a_fraction_or_a_number(kind: str, of: int, val_size: float, share: int | None) -> None:
    train, val, _ = cut(kind, val_size=val_size)
    assert len(val) == (of // share if share else 2_500)
    check_division(train, val, of)
    assert split_sizes(kind, 50_000, TEST, "all", val_size, 10) == (len(train), len(val))


@pytest.mark.parametrize(
    ("kind", "val_size", "stated"),
    [
        ("tail", 50_000, r"data\.val_size \(=50000\) must leave images on both sides of 50,000"),
        ("holdout", 60_000, r"data\.val_size \(=60000\) must leave images on both sides of 50,000"),
        ("stratified", 60_000, r"data\.val_size \(=60000\) must leave images on both sides of 60,000"),
        ("tail", 0.0, r"data\.val_size \(=0\) must leave"),
        ("tail", 0.999999, r"data\.val_size \(=0\.999999\) must leave"),
        ("tail", -5.0, r"data\.val_size \(=-5\) must leave"),
        ("holdout", 9, r"data\.val_size \(=9\) must leave each of 10 classes an image on both sides"),
        ("holdout", 49_991, r"data\.val_size \(=49991\) must leave each of 10 classes"),
        ("stratified", 59_991, r"data\.val_size \(=59991\) must leave each of 10 classes"),
    ],
)
def test_an_impossible_val_size_is_refused_by_its_value(kind: str, val_size: float, stated: str) -> None:
    with pytest.raises(ConfigError, match=stated) as caught:
        split_sizes(kind, 50_000, TEST, "all", val_size, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("val_size", [10, 49_990])
def test_the_edges_of_what_is_possible_are_accepted(val_size: float) -> None:
    _, val, _ = cut("holdout", val_size=val_size)
    assert split_sizes("holdout", 50_000, TEST, "all", val_size, 10) == (50_000 - val_size, val_size)
    assert len(val) == val_size
    assert set(counts(val)) == {val_size // 10}
    assert split_sizes("tail", 50_000, TEST, "all", 1, 10) == (49_999, 1)  # a tail may hold fewer images than classes
    assert cut("tail", val_size=1)[1].tolist() == [49_999]


def test_fewer_images_on_a_side_than_classes_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"data.val_size \(=5\)"):
        cut("holdout", val_size=5)
