"""Normalization constants of a training set."""

import torch
from torch import Tensor

from resnetlab.data.sources import Images

NORMALIZATIONS = ("mean_image", "channel", "none")


class Normalizer:
    """uint8 (N, C, H, W) -> float32: pixels / 255, less `mean`, over `std`, on the images' device."""

    def __init__(self, kind: str, train: Images) -> None:
        """mean_image: the per-pixel mean image (C, H, W), no std (Atienza); channel: mean and std (C, 1, 1)."""
        self.mean, self.std = torch.zeros(()), torch.ones(())
        if kind == "mean_image":
            total = sum(part.sum(0, dtype=torch.float64) for part in train.pixels.split(1000))
            self.mean = (total / (255 * len(train))).float()
        elif kind == "channel":
            self.mean, self.std = _channel_moments(train.pixels)

    def __call__(self, pixels: Tensor) -> Tensor:
        self.to(pixels.device)
        return (pixels.float() / 255 - self.mean) / self.std

    def to(self, device: torch.device) -> None:
        """Moves its constants, if they are elsewhere."""
        if self.mean.device != device:
            self.mean, self.std = self.mean.to(device), self.std.to(device)


def _channel_moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = [torch.bincount(pixels[:, c].flatten(), minlength=256).double() for c in range(pixels.shape[1])]
    means = [(n @ values) / n.sum() for n in counts]
    stds = [((n @ (values - mean) ** 2) / n.sum()).sqrt() for n, mean in zip(counts, means, strict=True)]
    return torch.stack(means).float()[:, None, None], torch.stack(stds).float()[:, None, None]
