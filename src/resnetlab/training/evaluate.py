"""Loss, accuracies and confusion matrix of a network on any images, outside of training."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from resnetlab.config.compose import from_plain
from resnetlab.config.trainer import TrainerOptions
from resnetlab.console import Countdown
from resnetlab.data import ImageData, Images
from resnetlab.errors import ConfigError, DataError
from resnetlab.optim.averaging import reestimated_statistics
from resnetlab.training.build import build_module
from resnetlab.training.callbacks.checkpoints import describe_damage, read_checkpoint
from resnetlab.training.metrics import EpochMetrics
from resnetlab.training.module import ImageClassifier


def evaluate(
    module: ImageClassifier, data: ImageData, images: Images, device: torch.device, average_epoch: int | None = None
) -> tuple[dict[str, float], Tensor]:
    """({loss, ce, acc, acc5}, counts (classes, classes) with the true class as row), computed in float32.

    average_epoch: evaluate the averaged weights, with batch-norm statistics re-estimated on that epoch's images.
    """
    module.to(device)
    network = module.model
    statistics: AbstractContextManager[None] = nullcontext()
    if average_epoch is not None and module.average is not None:
        network = module.average.module
        inputs = data.recalibration_inputs(module.config.trainer.recalibration_images, average_epoch, device)
        statistics = reestimated_statistics(network, inputs)
    mode, classes = module.training, len(data.class_names)
    metrics = EpochMetrics(device, module.top5)
    confusion = MulticlassConfusionMatrix(classes, validate_args=False).to(device)
    module.eval()
    countdown = Countdown("evaluated batch", -(-len(images) // data.config.eval_batch(device.type)))
    with statistics, torch.inference_mode():
        for x, y in data.eval_batches(images, device):
            logits = network(x)
            metrics.update(*module.losses(logits, y, averaged=network is not module.model), logits, y)
            confusion.update(logits, y)
            countdown.tick()
    module.train(mode)
    return metrics.compute(), confusion.compute().cpu()


def evaluate_checkpoint(
    path: Path, part: str = "val", root: str | None = None, averaged: bool = False
) -> dict[str, Any]:
    """Evaluates a checkpoint on the train, val or test part of its own data.

    root: where the data set is now, if it has moved. averaged: the averaged weights, not the raw ones. Raises
    ConfigError for a part or an average that is not there, DataError for a checkpoint that cannot be used.
    """
    module, data, epoch = open_checkpoint(path, root)
    images = {"train": data.train, "val": data.val, "test": data.test_images}[part]
    if images is None:
        raise ConfigError(f"data.split={data.config.split} has no untouched test images; evaluate on val")
    if averaged and not module.averaged:
        raise ConfigError(f"{path} holds no averaged weights; train with averaging=ema or swa, or leave --averaged out")
    how = {"weights": "averaged"} if averaged else {}
    metrics, _ = evaluate(module, data, images, TrainerOptions().device, epoch if averaged else None)
    return {"checkpoint": str(path), "epoch": epoch, "part": part, "images": len(images), **how, **metrics}


def open_checkpoint(path: Path, root: str | None = None) -> tuple[ImageClassifier, ImageData, int]:
    """The module with a checkpoint's weights, its data, and the epoch it was saved after, from 1.

    root: where the data set is now, if it has moved. Raises DataError in one line.
    """
    if path.is_dir():
        found = next((file for name in ("best.ckpt", "*.ckpt") for file in sorted(path.rglob(name))), None)
        cure = f"name a checkpoint, such as {found}" if found else "there is no checkpoint (*.ckpt) below it"
        raise DataError(f"{path} is a folder; {cure}")
    if not path.is_file():
        raise DataError(f"{path} is not there; a run's are in its checkpoints/ folder")
    try:
        checkpoint = read_checkpoint(path)
        plain = checkpoint["config"]
        plain["trainer"] |= {"accelerator": "auto", "precision": "auto"}  # evaluation is in float32, on any device
        if root is not None:
            plain["data"]["root"] = root
        config, weights, epoch = from_plain(plain), checkpoint["state_dict"], checkpoint["epoch"] + 1
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise DataError(f"{path} is damaged or no checkpoint of the lab ({describe_damage(path, error)})") from None
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    module = build_module(config, data)
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError):
        raise DataError(f"{path} is damaged or no checkpoint of the lab (its weights are of another network)") from None
    return module, data, epoch
