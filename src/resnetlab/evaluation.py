"""Loss, accuracies and confusion matrix of a network on any images, outside of training."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from resnetlab.meter import Meter
from resnetlab.module import Lab

__all__ = ["evaluate"]


def evaluate(
    module: Lab, batches: Iterable[tuple[Tensor, Tensor]], classes: int, precision: str, device: torch.device
) -> tuple[dict[str, float], Tensor]:
    """({loss, ce, acc, acc5}, counts (classes, classes) with the true class as row); the module is left as it was."""
    module.to(device)
    mode = module.training
    meter = Meter(classes, top5=True).to(device)
    confusion = MulticlassConfusionMatrix(classes, validate_args=False).to(device)
    module.eval()
    with torch.inference_mode(), autocast(precision, device):
        for x, y in batches:
            logits = module.model(x)
            meter.update(*module.losses(logits, y), logits, y)
            confusion.update(logits, y)
    module.train(mode)
    return meter.compute(), confusion.compute().cpu()


def autocast(precision: str, device: torch.device) -> Any:
    """The context that a Trainer of this precision computes in."""
    dtype = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
