"""Batches of a step: gathered from the data set and the epoch's plan, both on the training device."""

import torch
from torch import Tensor

from resnetlab.data import ImageData


class DeviceBatches:
    """Gathers and augments batch after batch.

    All that it reads and writes are tensors that stay where they are: a captured graph finds the next batch, and the
    next epoch's plan, by itself. shard: (rank, devices), as for ImageData.batches.
    """

    def __init__(self, data: ImageData, device: torch.device, shard: tuple[int, int] = (0, 1)) -> None:
        self.data, self.shard = data, shard
        data.normalizer.to(device)  # before a step is compiled or captured
        self.images = data.resident(data.train, device)
        self.plan, self.host_order = data.plan(1).to(device), iter(())
        self.offsets = torch.arange(shard[0], data.batch_size, shard[1], device=device)
        self.position = torch.zeros((), dtype=torch.int64, device=device)  # in the plan, of the batch's first image

    def start_epoch(self, epoch: int) -> None:
        """Goes to the first batch of `epoch` (from 1)."""
        plan = self.data.plan(epoch)
        for old, new in zip(self.plan.tensors(), plan.tensors(), strict=True):
            old.copy_(new)
        self.host_order = iter(plan.order.split(self.data.batch_size))
        self.position.zero_()

    def batch(self, images: int) -> tuple[Tensor, Tensor]:
        """This device's share of the next batch, of `images` in all: float32 (N, C, H, W) and int64 (N,)."""
        rows = self.position + self.offsets[: self.share_of(images)]
        order: Tensor | None = None
        if self.data.config.device == "cpu":  # the host runs ahead of a GPU, and gathers while that computes
            order = next(self.host_order)[self.shard[0] :: self.shard[1]]
        return self.data.planned(self.images, self.plan, rows, order)

    def share_of(self, images: int) -> int:
        """This device's number of images in a batch of `images` over all devices."""
        rank, devices = self.shard
        return len(range(rank, images, devices))
