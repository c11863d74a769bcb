"""Loss, accuracies, calibration and mistakes of a network on any images, outside of training."""

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from resnetlab.config.compose import from_plain
from resnetlab.config.schema import Config
from resnetlab.config.trainer import TrainerOptions
from resnetlab.console import Countdown
from resnetlab.data import Data, ImageData, Images
from resnetlab.data.sources import digest_of
from resnetlab.errors import ConfigError, DataError, first_line
from resnetlab.optim.averaging import reestimated_statistics
from resnetlab.runs.files import make_folder, write_atomically
from resnetlab.runs.layout import PREDICTIONS
from resnetlab.runs.load import read_manifest
from resnetlab.training.build import build_module
from resnetlab.training.callbacks.checkpoints import describe_damage, network_state, read_checkpoint
from resnetlab.training.metrics import EpochMetrics
from resnetlab.training.module import ImageClassifier
from resnetlab.training.plots import write_mistakes

Evaluation = tuple[dict[str, float], Tensor]


def evaluate(module: ImageClassifier, data: ImageData, images: Images, device: torch.device) -> Evaluation:
    """({loss, ce, acc, acc5, ece: calibration error in 15 bins}, logits (N, classes) on the CPU), in float32."""
    module.to(device)
    mode, metrics, found = module.training, EpochMetrics(device, module.top5), []
    module.eval()
    countdown = Countdown("evaluated batch", -(-len(images) // data.config.eval_batch(device.type)))
    with torch.inference_mode():
        for x, y in data.eval_batches(images, device):
            logits = module.model(x)
            metrics.update(*module.losses(logits, y), logits, y)
            found.append(logits)
            countdown.tick()
    module.train(mode)
    logits, labels = torch.cat(found).cpu(), images.labels.cpu()
    error = multiclass_calibration_error(logits.softmax(1), labels, logits.shape[1])
    return metrics.compute() | {"ece": float(error)}, logits


def write_predictions(path: Path, module: ImageClassifier, data: ImageData, images: Images, found: Evaluation) -> None:
    """Writes predictions.npz: float16 logits (N, classes) of the images and, if training mirrors, of mirrored ones.

    Less each image's largest, so that rounding leaves the largest where it is: plain ones near 10 are 0.008 apart.
    """
    views = {"logits": found[1]}
    if data.config.augment and data.config.flip:
        mirrored = Images(images.pixels.flip(3), images.labels)
        views["mirrored"] = evaluate(module, data, mirrored, module.device)[1]
    arrays: dict[str, Any] = {
        name: (x - x.amax(1, keepdim=True)).clamp(min=-60_000).half() for name, x in views.items()
    }
    arrays |= {"labels": images.labels.cpu(), "images": digest_of(data.class_names, [images]), "ece": found[0]["ece"]}
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


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


def evaluate_checkpoint(
    path: Path, part: str = "val", weights: str = "raw", out: Path | None = None, **opened: str | None
) -> dict[str, Any]:
    """Evaluates a checkpoint, of a run's folder its best, on the train, val or test part of its own data.

    weights: raw, averaged, or reestimated: raw ones with re-estimated batch-norm statistics. out: folder of the files.
    opened: root and model, as for read_config. Raises ConfigError for a part or an average not there, and DataError.
    """
    path = checkpoint_in(path, "best.ckpt")
    module, data, checkpoint = open_checkpoint(path, **opened)
    images = {"train": data.train, "val": data.val, "test": data.test_images}[part]
    if images is None:
        raise ConfigError(f"data.split={data.config.split} has no untouched test images; evaluate on val")
    require_weights(path, checkpoint, weights)
    if out is not None:
        make_folder(out)
    device = TrainerOptions().device
    with load_weights(module, data, checkpoint, weights, device):
        found, logits = answers = evaluate(module, data, images, device)
        if out is not None:
            name = PREDICTIONS if (part, weights, path.name) == ("val", "raw", "last.ckpt") else f"{part}_{PREDICTIONS}"
            write_predictions(out / name, module, data, images, answers)
            write_mistakes(out, logits, images, data.class_names)
    what = {"checkpoint": str(path), "epoch": checkpoint["epoch"] + 1, "part": part, "images": len(images)}
    return what | ({} if weights == "raw" else {"weights": weights}) | without_guesses(found)


def require_weights(path: Path, checkpoint: dict[str, Any], weights: str) -> None:
    """Raises ConfigError for weights that the checkpoint does not hold."""
    state = checkpoint["state_dict"]
    if weights == "averaged" and not int(state.get("average.n_averaged", 0)):
        raise ConfigError(f"{path} holds no averaged weights; train with averaging=ema or swa, or take other weights")
    if weights == "reestimated" and not any(name.endswith("running_mean") for name in state):
        raise ConfigError(f"{path} has no batch norm, whose statistics could be re-estimated; take other weights")


def checkpoint_in(path: Path, name: str) -> Path:
    """The checkpoint of that name in a run's folder, or the path itself where there is none."""
    return next((file for file in (path / name, path / "checkpoints" / name) if file.is_file()), path)


def read_config(
    path: Path, root: str | None = None, model: str | None = None, with_data: bool = True
) -> tuple[Config, dict[str, Any]]:
    """A checkpoint's configuration, and the checkpoint itself.

    root: where the data set is now, if it has moved; of data=custom the dotted path. model: that of model=custom.
    with_data=False: the network alone is checked. Schedule, optimizer and callbacks are not the run's, since what a
    file names is not called. Raises DataError in one line, ConfigError for another model.
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
        if "identity" not in checkpoint:  # of an older version
            checkpoint["identity"] = from_plain(dict(plain)).identity
        # evaluation is in float32, on any one device
        plain["trainer"] |= {"accelerator": "auto", "precision": "auto", "devices": 1}
        plain |= {"schedule": {"name": "constant"}, "optimizer": {"name": "adamw"}, "callbacks": [], "init": None}
        custom = {key: plain[key]["function"] for key in ("model", "data") if plain[key].get("name") == "custom"}
        named = {group for group, path in (("model", model), ("data", root if with_data else "")) if path is not None}
        unnamed = [group for group in custom if group not in named]
        plain["model"] |= {} if model is None else {"function": model}
        if plain["data"]["root"] == Data.root or "data" in custom:
            recorded = read_manifest(path.absolute().parent.parent).get("config", {}).get("data", {})
            plain["data"] |= {key: recorded[key] for key in ("root", "parameters") if key in recorded}
        if root is not None or "data" in custom:  # what the file names is not called
            plain["data"]["function" if "data" in custom else "root"] = root or ""
        config = from_plain(plain)
        if not unnamed:
            config.model.check()
        if model is not None and not unnamed:
            config.model.min_batch_size(*checkpoint["preprocessing"]["size"])
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        if model is not None and (isinstance(error, ConfigError) or "function" in str(error)):
            raise ConfigError(f"--model (={model}) does not go with {path}: {first_line(error)}") from None
        damage, previous = describe_damage(path, error), path.with_name("last.prev.ckpt")
        other = f"; {previous} is of the epoch before" if path.name == "last.ckpt" and previous.exists() else ""
        raise DataError(f"{path} is damaged or no checkpoint of the lab ({damage}){other}") from None
    if unnamed:
        what, flag = {"model": ("a network", "--model"), "data": ("images", "--root")}[unnamed[0]]
        cure = f"name it, if you trust it: {flag} {custom[unnamed[0]]}"
        raise DataError(f"{path} has {what} of the user's own, whose code is not in it; {cure}")
    return config, checkpoint


def open_checkpoint(
    path: Path, root: str | None = None, model: str | None = None
) -> tuple[ImageClassifier, ImageData, dict[str, Any]]:
    """The module with a checkpoint's weights, its data, and the checkpoint itself. Raises DataError in one line."""
    config, checkpoint = read_config(path, root, model)
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    module = build_module(config, data)
    load_state(module, checkpoint["state_dict"], path)
    return module, data, checkpoint


def load_state(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Loads all of the state, which came from `path`. Raises DataError."""
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError):
        raise DataError(f"{path} is damaged or no checkpoint of the lab (its weights are of another network)") from None
