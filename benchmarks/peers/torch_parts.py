"""What the peers in torch have in common: the network, the optimizer, and torchvision's transforms image by image."""

from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.peers.protocol import JsonLines, PeerSpec, TurnCounter, resident_peak
from resnetlab.config.compose import compose
from resnetlab.config.schema import Config

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
AMP_TYPES = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def config_of(spec: PeerSpec) -> Config:
    names = [name.removeprefix("lab_") for name in spec.names if name.startswith("lab_")]
    engines = [f"engine={name.removesuffix('_compile')}" for name in names]
    engines += ["trainer.compile=true" for name in names if name.endswith("_compile")]
    return compose(
        *(f"model={spec.model}", f"batch_size={spec.batch_size}", "schedule=constant", "epochs=1000", *engines),
        *(f"trainer.precision={spec.precision}", f"trainer.accelerator={spec.device}", "trainer.progress=off"),
    )


def network(spec: PeerSpec) -> nn.Module:
    """The network as torch builds it, on its device."""
    return config_of(spec).model.build(10, torch.Generator().manual_seed(0)).to(spec.device)


def optimizer(spec: PeerSpec, model: nn.Module) -> torch.optim.Optimizer:
    """torch's AdamW with torch's own defaults, at the recipe's lr and decay."""
    return torch.optim.AdamW(model.parameters(), lr=spec.lr, weight_decay=spec.wd)


class ArrayImages(Dataset):
    """Arrays in memory, handed out as torchvision's CIFAR10 hands out its own."""

    def __init__(self, spec: PeerSpec, transform: Any) -> None:
        self.pixels, labels = spec.training_images()
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def torchvision_loader(spec: PeerSpec) -> DataLoader:
    """The usual crops and flips, shifted by as many pixels as the recipe's; sets torch's seed."""
    torch.manual_seed(0)
    crop = transforms.RandomCrop(32, padding=max(1, round(spec.shift * 32)))
    steps = [crop, transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return DataLoader(
        ArrayImages(spec, transforms.Compose(steps)),
        spec.batch_size,
        shuffle=True,
        num_workers=spec.workers,
        pin_memory=spec.device == "cuda",
        persistent_workers=spec.workers > 0,
    )


def turn_counter(lines: JsonLines, spec: PeerSpec, name: str, loss: Any) -> TurnCounter:
    """The counter of a peer that has a DataLoader. loss: a function without arguments."""
    device = torch.device(spec.device)

    def facts() -> dict[str, dict[str, float]]:
        return {"losses": {name: float(loss())}, "peak_mib": {name: peak_mib(device)}}

    return TurnCounter(lines, name, spec.batch_size, partial(synchronize, device), facts, lead=spec.lead)


def peak_mib(device: torch.device) -> float:
    """The most memory so far: what torch had allocated on a GPU, or what the process had resident, without children."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else resident_peak()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
