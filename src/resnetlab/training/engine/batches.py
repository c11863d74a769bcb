"""Where a step's images come from: the data set and the epoch's plan, both on the training device."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from resnetlab.data import ImageData


class DeviceBatches:
    """Gathers and augments batch after batch. What it reads and writes are tensors that stay where they are, so that a
    captured graph finds the next batch, and the next epoch's plan, by itself.

    share: (rank, devices), as for ImageData.batches.
    """

    def __init__(self, data: "ImageData", device: torch.device, share: tuple[int, int] = (0, 1)) -> None:
        self.data, self.share = data, share
        data.normalizer.to(device)  # before a step is compiled or captured
        self.images = data.train.to(device)
        self.table = data.plan(1).to(device)
        self.offsets = torch.arange(share[0], data.batch_size, share[1], device=device)
        self.place = torch.zeros((), dtype=torch.int64, device=device)  # in the plan, of the batch's first image

    def begin(self, epoch: int) -> None:
        """Goes to the first batch of `epoch` (from 1)."""
        for old, new in zip(self.table.tensors(), self.data.plan(epoch).tensors(), strict=True):
            old.copy_(new)
        self.place.zero_()

    def batch(self, images: int) -> tuple[Tensor, Tensor]:
        """This device's share of the next batch, of `images` in all: float32 (N, C, H, W) and int64 (N,)."""
        rows = self.place + self.offsets[: len(range(self.share[0], images, self.share[1]))]
        order, shift, flip = (table.index_select(0, rows) for table in self.table.tensors())
        found = self.images[order]
        return self.data.augmented(found, shift, flip), found.labels
