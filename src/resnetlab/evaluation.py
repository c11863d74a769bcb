"""Loss, accuracies and confusion matrix of a network on any images, outside of training."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from resnetlab.build import build_module
from resnetlab.callbacks.checkpoints import read_checkpoint
from resnetlab.config import from_plain
from resnetlab.data import ImageData, Images
from resnetlab.errors import DataError, first_line
from resnetlab.meter import Meter
from resnetlab.module import Lab

__all__ = ["evaluate", "evaluate_checkpoint"]


def evaluate(module: Lab, data: ImageData, images: Images, device: torch.device) -> tuple[dict[str, float], Tensor]:
    """({loss, ce, acc, acc5}, counts (classes, classes) with the true class as row), computed in float32."""
    module.to(device)
    mode, classes = module.training, len(data.class_names)
    meter = Meter(classes, top5=True).to(device)
    confusion = MulticlassConfusionMatrix(classes, validate_args=False).to(device)
    module.eval()
    with torch.inference_mode():
        for x, y in data.eval_batches(images, device):
            logits = module.model(x)
            meter.update(*module.losses(logits, y), logits, y)
            confusion.update(logits, y)
    module.train(mode)
    return meter.compute(), confusion.compute().cpu()


def evaluate_checkpoint(path: Path, part: str = "val", root: str | None = None) -> dict[str, Any]:
    """What a checkpoint of ours achieves on the train, val or test part of its own data.

    root: where the data set is now, if it has moved. Raises DataError in one line.
    """
    if not path.is_file():
        raise DataError(f"{path} is not there; a run's are in its checkpoints/ folder")
    try:
        checkpoint = read_checkpoint(path)
        plain = checkpoint["config"]
        plain["trainer"] |= {"accelerator": "auto", "precision": "auto"}  # evaluation is in float32, on any device
        if root is not None:
            plain["data"]["root"] = root
        config = from_plain(plain)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise DataError(f"{path} is not a checkpoint of this lab ({first_line(error)})") from error
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    images = {"train": data.train, "val": data.val, "test": data.test_images}[part]
    if images is None:
        raise DataError(f"data.split={config.data.split} has no untouched test images; evaluate on val")
    module = build_module(config, data)
    module.load_state_dict(checkpoint["state_dict"])
    figures, _ = evaluate(module, data, images, config.trainer.device)
    return {"checkpoint": str(path), "epoch": checkpoint["epoch"] + 1, "part": part, "images": len(images), **figures}
