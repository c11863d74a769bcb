"""The randomness of an epoch as one table: a pure function of (seed, epoch).

So a killed run resumes to the bit, processes agree without communication, and a step draws no random number.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

# independent streams, so that one more table never changes those that exist
ORDER, SHIFT, FLIP, TORCH, MIX, BALANCE, OPERATIONS, CUTOUT, JITTER = range(9)


@dataclass(frozen=True)
class EpochPlan:
    """All that is drawn for the images of an epoch: order, shift and flip of each, and what mixes or changes them.

    order: int64 (N,), the images' indices in the order in which they are shown.
    shift: float32 (N, 2), rows and columns in pixels, for the n-th image shown.
    flip: bool (N,), horizontally, for the n-th image shown.
    mix: float32 (N, 6), see `mixing`; None: no image is mixed with another.
    operations: float32 (N, n, 8), see `operations`; None: no RandAugment.
    cutout: int64 (N, 4), the top, left, bottom and right of a square that is set to 0; None: no square.
    jitter: float32 (N, 2), factors of brightness and contrast; None: no jitter.
    """

    order: Tensor
    shift: Tensor
    flip: Tensor
    mix: Tensor | None = None
    operations: Tensor | None = None
    cutout: Tensor | None = None
    jitter: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(part for part in vars(self).values() if part is not None)

    def each(self, change: Callable[[Tensor], Tensor]) -> "EpochPlan":
        """The plan of what `change` makes of each table."""
        return replace(self, **{key: change(part) for key, part in vars(self).items() if part is not None})


def epoch_plan(
    seed: int, epoch: int, images: int, max_shift: Any, *, whole_pixels: bool = False, alternating: bool = False
) -> EpochPlan:
    """The plan of `epoch` (from 1) for a set of `images`.

    max_shift, in pixels, of rows and columns or one for both: shifts are uniform in [-max_shift, max_shift), continuous
    as Keras' ImageDataGenerator draws them, or with whole_pixels uniform over the integers -max_shift..max_shift, as
    pad-and-crop does. alternating: a random half of the images is mirrored in odd epochs, the other half in even ones.
    """
    order = _stream(seed, epoch, ORDER).permutation(images)
    uniform = _stream(seed, epoch, SHIFT).random((images, 2), dtype=np.float32)
    flip = _stream(seed, 0 if alternating else epoch, FLIP).random(images, dtype=np.float32) < 0.5
    flip = flip[order] ^ (epoch % 2 == 0) if alternating else flip
    most = np.float32(max_shift)
    shift = np.floor(uniform * (2 * most + 1)) - most if whole_pixels else (2 * uniform - 1) * most
    return EpochPlan(torch.from_numpy(order), torch.from_numpy(shift.astype(np.float32)), torch.from_numpy(flip))


def mixing(seed: int, epoch: int, images: int, size: tuple[int, int], mixup: float, cutmix: float) -> Tensor:
    """Of each image shown: its partner's place in the plan, the weight of its own label, and CutMix's box, float32.

    size: height and width; mixup, cutmix: the alphas, 0 is off. The box (top, left, bottom, right) is 0 for mixup; else
    its sides are sqrt(1 - lambda) of the image's, and it is centred anywhere in it and cut off at the edge (reference).
    """
    stream = _stream(seed, epoch, MIX)
    partner, is_cut = stream.permutation(images), stream.random(images) < (0.5 if mixup and cutmix else cutmix > 0)
    cut, mixed = (stream.beta(alpha or 1, alpha or 1, images) for alpha in (cutmix, mixup))
    weight = np.where(is_cut, cut, mixed)
    half = (0.5 * np.sqrt(1 - weight)[:, None] * size).astype(np.int64)
    centre = stream.integers(0, size, (images, 2))
    box = np.hstack([(centre - half).clip(0), np.minimum(centre + half, size)]) * is_cut[:, None]
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    weight = np.where(is_cut, 1 - area / (size[0] * size[1]), weight)
    return torch.from_numpy(np.column_stack([partner, weight, box]).astype(np.float32))


def operations(seed: int, epoch: int, images: int, size: tuple[int, int], count: int, magnitude: int) -> Tensor:
    """`count` operations of RandAugment for each image shown, float32 (images, count, 8), as torchvision defines them.

    The 2x3 matrix of F.affine_grid; the operation: 0 none, 1 to 5 those of the matrix, 6 brightness, 7 colour,
    8 contrast, 9 sharpness, 10 posterize, 11 solarize, 12 autocontrast, 13 equalize; its factor. magnitude: of 30.
    """
    (height, width), part = size, magnitude / 30
    table = np.tile([1.0, 0, 0, 0, 1, 0, 0, 1], (2, 14, 1))  # by sign, and by operation
    for of_sign, m in zip(table, (part, -part), strict=True):
        of_sign[1, 1:3], of_sign[2, [3, 5]] = 0.3 * m * height / width, 0.3 * m * width / height
        of_sign[3, 2], of_sign[4, 5] = (-2 * int(150 / 331 * m * side) / side for side in (width, height))
        cos, sin = np.cos(np.radians(30 * m)), np.sin(np.radians(30 * m))
        of_sign[5, [0, 1, 3, 4]] = cos, -sin * height / width, sin * width / height, cos
        of_sign[6:10, 7] = 1 + 0.9 * m
    table[:, :, 6] = range(14)
    table[:, 10:12, 7] = 2.0 ** (8 - round(8 - 4 * part)), 255 * (1 - part)
    stream = _stream(seed, epoch, OPERATIONS)
    drawn = table[stream.integers(2, size=(images, count)), stream.integers(14, size=(images, count))]
    return torch.from_numpy(drawn.astype(np.float32))


def cutouts(seed: int, epoch: int, images: int, size: tuple[int, int], side: int) -> Tensor:
    """The square of each image shown, centred anywhere in it and cut off at the edge, as in the paper's own code."""
    start = _stream(seed, epoch, CUTOUT).integers(0, size, (images, 2)) - side // 2
    return torch.from_numpy(np.hstack([start.clip(0), np.minimum(start + side, size)]))


def jitters(seed: int, epoch: int, images: int, brightness: float, contrast: float) -> Tensor:
    """The factors of each image shown, uniform from 1 - brightness to 1 + brightness, and so for the contrast."""
    reach = np.array([brightness, contrast])
    return torch.from_numpy(_stream(seed, epoch, JITTER).uniform(1 - reach, 1 + reach, (images, 2)).astype(np.float32))


def balanced_order(seed: int, epoch: int, labels: Tensor) -> Tensor:
    """len(labels) indices, drawn with replacement so that each class that there is has an equal chance."""
    chances = 1 / labels.bincount()[labels].double().numpy()
    return torch.from_numpy(_stream(seed, epoch, BALANCE).choice(len(labels), len(labels), p=chances / chances.sum()))


def derive_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """The seed of torch's own generators in `epoch` (dropout and the like); epoch 0 is the initialisation.

    rank: the process's number, where several train together.
    """
    return int(_stream(seed, epoch, TORCH).integers(2**63, size=rank + 1)[-1])


def _stream(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, stream])
