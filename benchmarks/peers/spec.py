"""What a peer is told at its start, and the parts that all peers in torch have in common."""

import json
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from resnetlab.config import Config

__all__ = ["Spec"]


@dataclass(frozen=True)
class Spec:
    """One peer at one batch size and precision.

    names: what is asked of it. root: the folder of CIFAR-10, None for noise of its shape. images: of the training set,
    whole batches. workers: of a DataLoader. grain: steps in a row of the lab and of the bare loop.
    """

    names: tuple[str, ...]
    model: str
    batch_size: int
    precision: str
    device: str
    root: str | None
    images: int
    workers: int = 2
    grain: int = 1
    epoch_steps: int | None = None

    @classmethod
    def read(cls) -> "Spec":
        """From the command line, as `line` has written it."""
        told = json.loads(sys.argv[1])
        return cls(**{**told, "names": tuple(told["names"])})

    def line(self) -> str:
        return json.dumps(asdict(self))

    @cached_property
    def config(self) -> "Config":
        from resnetlab.config import compose

        return compose(
            f"model={self.model}",
            f"batch_size={self.batch_size}",
            f"trainer.precision={self.precision}",
            f"trainer.accelerator={self.device}",
            "schedule=constant",
            "epochs=1000",
            "trainer.progress=off",
            *([f"data.root={json.dumps(self.root)}"] if self.root else []),
            *(f"engine={name.removeprefix('lab_')}" for name in self.names if name.startswith("lab_")),
        )

    def network(self) -> nn.Module:
        """The network as torch builds it, on its device."""
        return self.config.model.build(10, torch.Generator().manual_seed(0)).to(self.device)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """torch's AdamW with torch's own defaults, at the recipe's lr and decay."""
        return torch.optim.AdamW(network.parameters(), lr=self.config.lr, weight_decay=self.config.wd or 0.0)

    @property
    def amp_type(self) -> torch.dtype | None:
        return {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(self.precision)

    @property
    def whole(self) -> int:
        """Images of a training set that is whole batches."""
        return self.images // self.batch_size * self.batch_size

    def noise(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, H, W, C) and int64 (N,)."""
        generator = np.random.default_rng(0)
        pixels = generator.integers(256, size=(self.whole, 32, 32, 3), dtype=np.uint8)
        return pixels, generator.integers(10, size=self.whole)
