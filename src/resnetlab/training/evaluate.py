"""Loss, accuracies and confusion matrix of a network on any images, outside of training."""

import math
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
from resnetlab.optim.averaging import batch_norms, reestimated_statistics
from resnetlab.training.build import build_module
from resnetlab.training.callbacks.checkpoints import describe_damage, network_state, read_checkpoint
from resnetlab.training.metrics import EpochMetrics
from resnetlab.training.module import ImageClassifier

WEIGHTS = ("raw", "averaged", "reestimated")  # the last: raw ones with re-estimated batch-norm statistics


def evaluate(
    module: ImageClassifier, data: ImageData, images: Images, device: torch.device
) -> tuple[dict[str, float], Tensor]:
    """({loss, ce, acc, acc5}, counts (classes, classes) with the true class as row), computed in float32."""
    module.to(device)
    mode, classes = module.training, len(data.class_names)
    metrics = EpochMetrics(device, module.top5)
    confusion = MulticlassConfusionMatrix(classes, validate_args=False).to(device)
    module.eval()
    countdown = Countdown("evaluated batch", -(-len(images) // data.config.eval_batch(device.type)))
    with torch.inference_mode():
        for x, y in data.eval_batches(images, device):
            logits = module.model(x)
            metrics.update(*module.losses(logits, y), logits, y)
            confusion.update(logits, y)
            countdown.tick()
    module.train(mode)
    return metrics.compute(), confusion.compute().cpu()


def without_guesses(metrics: dict[str, float]) -> dict[str, float]:
    """All of them nan where the cross-entropy is: the accuracy would be that of guessing class 0."""
    return dict.fromkeys(metrics, math.nan) if math.isnan(metrics["ce"]) else metrics


def load_weights(
    module: ImageClassifier, data: ImageData, checkpoint: dict[str, Any], weights: str, device: torch.device
) -> AbstractContextManager[None]:
    """Loads the checkpoint's raw, averaged or reestimated weights into the module's network, to be evaluated inside.

    With the batch-norm statistics of the run's own figures; of a checkpoint without them, they are re-estimated on its
    epoch's images.
    """
    module.model.load_state_dict(network_state(checkpoint, weights))
    if weights == "raw" or weights in checkpoint.get("statistics", {}):
        return nullcontext()
    count, epoch = module.config.trainer.recalibration_images, checkpoint["epoch"] + 1
    return reestimated_statistics(module.to(device).model, data.recalibration_inputs(count, epoch, device))


def evaluate_checkpoint(path: Path, part: str = "val", root: str | None = None, weights: str = "raw") -> dict[str, Any]:
    """Evaluates a checkpoint on the train, val or test part of its own data.

    root: where the data set is now, if it has moved. weights: of WEIGHTS. Raises ConfigError for a part or an average
    that is not there, DataError for a checkpoint that cannot be used.
    """
    module, data, checkpoint = open_checkpoint(path, root)
    images = {"train": data.train, "val": data.val, "test": data.test_images}[part]
    if images is None:
        raise ConfigError(f"data.split={data.config.split} has no untouched test images; evaluate on val")
    if weights == "averaged" and not module.averaged:
        raise ConfigError(f"{path} holds no averaged weights; train with averaging=ema or swa, or leave --averaged out")
    if weights == "reestimated" and not batch_norms(module.model):
        raise ConfigError(f"{path} has no batch norm, whose statistics --reestimated is about; leave it out")
    device = TrainerOptions().device
    with load_weights(module, data, checkpoint, weights, device):
        metrics = without_guesses(evaluate(module, data, images, device)[0])
    how = {} if weights == "raw" else {"weights": weights}
    epoch = checkpoint["epoch"] + 1
    return {"checkpoint": str(path), "epoch": epoch, "part": part, "images": len(images), **how, **metrics}


def open_checkpoint(path: Path, root: str | None = None) -> tuple[ImageClassifier, ImageData, dict[str, Any]]:
    """The module with a checkpoint's weights, its data, and the checkpoint itself.

    root: where the data set is now, if it has moved. The schedule is not the run's: its function would be imported and
    called because a file names it. Raises DataError in one line.
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
        # evaluation is in float32, on any one device
        plain["trainer"] |= {"accelerator": "auto", "precision": "auto", "devices": 1}
        plain["schedule"] = {"name": "constant"}
        if root is not None:
            plain["data"]["root"] = root
        config, weights, _ = from_plain(plain), checkpoint["state_dict"], checkpoint["epoch"] + 1
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        damage, previous = describe_damage(path, error), path.with_name("last.prev.ckpt")
        other = f"; {previous} is of the epoch before" if path.name == "last.ckpt" and previous.exists() else ""
        raise DataError(f"{path} is damaged or no checkpoint of the lab ({damage}){other}") from None
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    module = build_module(config, data)
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError):
        raise DataError(f"{path} is damaged or no checkpoint of the lab (its weights are of another network)") from None
    return module, data, checkpoint
