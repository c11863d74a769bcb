"""Loss, accuracies and confusion matrix of a network on any images, outside of training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from resnetlab.build import build_module
from resnetlab.callbacks.checkpoints import read_checkpoint
from resnetlab.config import from_plain
from resnetlab.data import ImageData
from resnetlab.errors import DataError
from resnetlab.meter import Meter
from resnetlab.module import Lab

__all__ = ["evaluate", "evaluate_checkpoint"]


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


def evaluate_checkpoint(path: Path, part: str = "val", root: str | None = None) -> dict[str, Any]:
    """What a checkpoint of ours achieves on the train, val or test part of its own data.

    root: where the data set is now, if it has moved. Raises DataError in one line.
    """
    try:
        checkpoint = read_checkpoint(path)
        plain = checkpoint["config"]
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise DataError(f"{path} is not a checkpoint of this lab ({type(error).__name__}: {error})") from error
    plain["trainer"]["accelerator"] = plain["trainer"]["precision"] = "auto"
    if root is not None:
        plain["data"]["root"] = root
    config = from_plain(plain)
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    images = {"train": data.train, "val": data.val, "test": data.test_images}[part]
    if images is None:
        raise DataError(f"data.split={config.data.split} has no untouched test images; evaluate on val")
    module = build_module(config, data)
    module.load_state_dict(checkpoint["state_dict"])
    device, precision = config.trainer.device, config.trainer.resolved_precision
    figures, _ = evaluate(module, data.eval_batches(images, device), len(data.class_names), precision, device)
    return {"checkpoint": str(path), "epoch": checkpoint["epoch"] + 1, "part": part, "images": len(images), **figures}
