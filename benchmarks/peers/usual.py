"""The input pipeline that everybody writes: torchvision's transforms image by image, in DataLoader's workers."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

from resnetlab.bench_peers.spec import Spec

__all__ = ["usual_loader"]

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Pictures(Dataset):
    """Arrays in memory, handed out as torchvision's CIFAR10 hands out its own."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Any) -> None:
        self.pixels, self.labels, self.transform = pixels, labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def usual_loader(spec: Spec) -> DataLoader:
    """Crops and flips as everybody's, shifted by as many pixels as the recipe's; torch's seed is set."""
    torch.manual_seed(0)
    steps = [
        transforms.RandomCrop(32, padding=max(1, round(spec.config.shift * 32))),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    transform = transforms.Compose(steps)
    images: Dataset
    if spec.root is None:
        images = Pictures(*spec.noise(), transform)
    else:
        images = Subset(datasets.CIFAR10(spec.root, train=True, transform=transform), range(spec.whole))
    return DataLoader(
        images,
        spec.batch_size,
        shuffle=True,
        num_workers=spec.workers,
        pin_memory=spec.device == "cuda",
        persistent_workers=spec.workers > 0,
    )
