"""The randomness of an epoch as one table: a pure function of (seed, epoch).

So a killed run resumes to the bit, processes agree without communication, and a step draws no random number.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# independent streams, so that one more table never changes those that exist
ORDER, SHIFT, FLIP, TORCH, BALANCE = range(5)


@dataclass(frozen=True)
class EpochPlan:
    """Order, shift and flip of each image in an epoch.

    order: int64 (N,), the images' indices in the order in which they are shown.
    shift: float32 (N, 2), rows and columns in pixels, for the n-th image shown.
    flip: bool (N,), horizontally, for the n-th image shown.
    """

    order: Tensor
    shift: Tensor
    flip: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.order, self.shift, self.flip

    def to(self, device: torch.device) -> "EpochPlan":
        return EpochPlan(*(tensor.to(device) for tensor in self.tensors()))


def epoch_plan(seed: int, epoch: int, images: int, max_shift: float, *, whole_pixels: bool = False) -> EpochPlan:
    """The plan of `epoch` (from 1) for a set of `images`.

    max_shift, in pixels: shifts are uniform in [-max_shift, max_shift), continuous as Keras' ImageDataGenerator draws
    them, or with whole_pixels uniform over the integers -max_shift..max_shift, as pad-and-crop does.
    """
    order = _stream(seed, epoch, ORDER).permutation(images)
    uniform = _stream(seed, epoch, SHIFT).random((images, 2), dtype=np.float32)
    flip = _stream(seed, epoch, FLIP).random(images, dtype=np.float32) < 0.5
    if whole_pixels:
        shift = np.floor(uniform * (2 * max_shift + 1)) - max_shift
    else:
        shift = (2 * uniform - 1) * np.float32(max_shift)
    return EpochPlan(torch.from_numpy(order), torch.from_numpy(shift.astype(np.float32)), torch.from_numpy(flip))


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
