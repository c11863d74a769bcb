"""Means over an epoch of training or validation, summed on the device until the epoch ends."""

import torch
from torch import Tensor

from resnetlab.training.distributed import all_reduce


class EpochMetrics:
    """Means over images: loss (with penalty), ce (cross-entropy), acc (top-1) and, if asked for, acc5 and acc_flip.

    Sums in one tensor, added to in place; only compute() reads it back. In float64, because the mean over 50,000 images
    should not depend on how they were batched, and 9,200 of 10,000 are to be 0.92, which float32 does not have.
    """

    def __init__(self, device: torch.device, top5: bool = False, flip: bool = False) -> None:
        """top5: the answer is among the likeliest five; flip: it is that of the mean over image and mirror image."""
        dtype = torch.float32 if device.type == "mps" else torch.float64  # which Apple's devices do not have
        self.top5, self.names = top5, ["acc", *["acc5"] * top5, *["acc_flip"] * flip]
        self.sums = torch.zeros(3 + len(self.names), dtype=dtype, device=device)

    def add(self, loss: Tensor, ce: Tensor, images: int, *correct: Tensor) -> None:
        """Adds a batch: scalar means over its `images`, and the numbers of correct answers (top-1, top-5)."""
        self.sums[:2].add_(torch.stack([loss, ce]), alpha=images)  # in float64, where the product is exact
        self.sums[2].add_(images)
        self.sums[3:].add_(torch.stack(correct))

    def update(self, loss: Tensor, ce: Tensor, logits: Tensor, labels: Tensor, flipped: Tensor | None = None) -> None:
        """Adds a batch: scalar means over it, logits (N, classes), labels (N,); flipped: logits of mirror images."""
        hits = logits.topk(5 if self.top5 else 1).indices == labels[:, None]
        correct = (hits[:, 0].sum(), hits.sum()) if self.top5 else (hits.sum(),)
        if flipped is not None:
            correct = (*correct, ((logits.softmax(1) + flipped.softmax(1)).argmax(1) == labels).sum())
        loss, ce = loss.detach(), ce.detach()
        # the batch's products in float32, as torchmetrics 1.9 had them: old runs are resumed to the bit
        totals = (loss * len(labels), ce * len(labels), torch.full_like(loss, len(labels)), *correct)
        self.sums.add_(torch.stack([total.to(self.sums.dtype) for total in totals]))

    def compute(self, prefix: str = "", suffix: str = "") -> dict[str, float]:
        """{prefix + name + suffix: mean since the last call}, over all processes that train together; starts anew."""
        loss, ce, images, *correct = all_reduce(self.sums).tolist()
        self.sums.zero_()
        sums = {"loss": loss, "ce": ce} | dict(zip(self.names, correct, strict=True))
        return {f"{prefix}{name}{suffix}": value / images for name, value in sums.items()}
