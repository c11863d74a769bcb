"""Normalization constants of a training set."""

import torch
from torch import Tensor

from resnetlab.data.sources import Images
from resnetlab.errors import DataError


class Normalizer:
    """uint8 (N, C, H, W) -> float32: pixels / 255, less `mean`, over `std`, on the images' device."""

    def __init__(self, kind: str, train: Images) -> None:
        """mean_image: the per-pixel mean image (C, H, W), no std (Atienza); channel: mean and std (C, 1, 1)."""
        self.mean, self.std = torch.zeros(()), torch.ones(())
        if kind == "mean_image":
            total = sum(part.sum(0, dtype=torch.float64) for part in train.pixels.split(1000))
            self.mean = (total / (255 * len(train))).float()
        elif kind == "channel":
            values = torch.arange(256, dtype=torch.float64) / 255
            counts = [torch.bincount(channel.flatten(), minlength=256).double() for channel in train.pixels.unbind(1)]
            means = [(n @ values) / n.sum() for n in counts]
            squares = [(n @ (values - mean) ** 2) / n.sum() for n, mean in zip(counts, means, strict=True)]
            stds = [square.sqrt().clamp(min=1e-3) for square in squares]  # of a channel that is the same everywhere: 0
            self.mean, self.std = (torch.stack(moments).float()[:, None, None] for moments in (means, stds))

    def __call__(self, pixels: Tensor) -> Tensor:
        self.to(pixels.device)
        return normalize(pixels, self.mean, self.std)

    def to(self, device: torch.device) -> None:
        """Moves its constants, if they are elsewhere."""
        if self.mean.device != device:
            self.mean, self.std = self.mean.to(device), self.std.to(device)


def normalize(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Raw images, uint8 or floats in 0..1, less `mean`, over `std`. Raises DataError for others."""
    fits = pixels.ndim == 4 and all(m in (1, n) for m, n in zip(mean.shape, pixels.shape[1:], strict=False))
    if fits and pixels.dtype == torch.uint8:
        return (pixels.float() / 255 - mean) / std
    if fits and pixels.is_floating_point() and pixels.min() >= 0 and pixels.max() <= 1:
        return (pixels - mean) / std
    found = f"{pixels.dtype} {tuple(pixels.shape)} in {pixels.min():g}..{pixels.max():g}"
    size = f", C H W {tuple(mean.shape)}" if mean.ndim and mean.shape[-1] > 1 else ""
    raise DataError(f"images ({found}) must be N C H W{size}, uint8 or floats in 0..1: the network normalizes them")
