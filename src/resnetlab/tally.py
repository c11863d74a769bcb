"""The statistics of an epoch of training, kept on the device until they are asked for."""

import torch
from torch import Tensor

from resnetlab.ranks import total

__all__ = ["Tally"]


class Tally:
    """Means over images of loss (with penalty), ce (cross-entropy) and acc: sums in one tensor, added to in place."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, ce: Tensor, correct: Tensor, images: int) -> None:
        """Adds a batch: scalar means over its `images`, and the number of correct answers."""
        weighted = torch.stack([loss.double(), ce.double(), torch.ones_like(loss, dtype=torch.float64)]) * images
        self.sums.add_(torch.cat([weighted, correct.double().view(1)]))

    def compute(self, prefix: str = "") -> dict[str, float]:
        """The means since the last call, over all processes that train together, and starts anew."""
        loss, ce, images, correct = total(self.sums).tolist()
        self.sums.zero_()
        return {f"{prefix}loss": loss / images, f"{prefix}ce": ce / images, f"{prefix}acc": correct / images}
