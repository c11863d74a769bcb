"""Splits: pure functions (labels, sizes, seed) -> indices into the pool of all images, training images first."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnetlab.errors import require

# what data.val_size means when it is null; the tail is the 14 % of the published run post4-table2-20
SPLITS: dict[str, float | None] = {"official": None, "stratified": 10_000 / 60_000, "tail": 0.14, "holdout": 0.1}


def split(
    kind: str, labels: NDArray[np.int64], test_images: int, pool: str, val_size: float | None, seed: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(train, val, test): indices into a pool of len(labels) images, the last `test_images` the official test set.

    test: None where the official test images take part in training or validation.
    official: train on the official training images, validate on the official test images, as the series does.
    stratified: sklearn's train_test_split(stratify=labels) of `pool`: "all" images, or the official "train"ing images.
    tail: the last fraction of the training images, as Keras' validation_split takes it: unshuffled, not stratified.
    holdout: stratified, from the training images; like "tail" it leaves the official test set for one final test.
    val_size: a fraction below 1 or a number of images; None = the split's own default.
    """
    classes, train_images = len(np.unique(labels)), len(labels) - test_images
    train_images, val_images = split_sizes(kind, train_images, test_images, pool, val_size, classes)
    count = train_images + val_images
    everyone, test = torch.arange(count), None if count == len(labels) else torch.arange(count, len(labels))
    if kind in ("official", "tail"):
        return everyone[:train_images], everyone[train_images:], test
    from sklearn.model_selection import train_test_split  # takes a second to import

    parts = train_test_split(everyone.numpy(), test_size=val_images, stratify=labels[:count], random_state=seed)
    train, val = (torch.from_numpy(np.asarray(part)) for part in parts)
    return train, val, test


def split_sizes(
    kind: str, train_images: int, test_images: int, pool: str, val_size: float | None, classes: int
) -> tuple[int, int]:
    """(training, validation) images of that split, with no image read. Raises ConfigError if it cannot be made."""
    size = SPLITS[kind] if val_size is None else val_size
    if size is None:
        return train_images, test_images
    count = train_images + test_images if kind == "stratified" and pool == "all" else train_images
    key, whole = ("data.val_size", f"{size:g}"), size < 1 or size == round(size)
    require(whole, *key, "be a fraction below 1 or a whole number of images")
    val_images = count - int(np.floor(count * (1 - size))) if size < 1 else round(size)  # as Keras' split_at
    require(0 < val_images < count, *key, f"leave images on both sides of {count:,}")
    each = kind == "tail" or min(val_images, count - val_images) >= classes
    require(each, *key, f"leave each of {classes} classes an image on both sides")
    return count - val_images, val_images
