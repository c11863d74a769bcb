"""A checkpoint as a network for raw images, and its predictions for files, folders and arrays."""

import json
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from resnetlab.config.schema import Config
from resnetlab.config.trainer import TrainerOptions
from resnetlab.console import print_stderr, say
from resnetlab.data.arrays import pixels_of_array
from resnetlab.data.normalize import normalize
from resnetlab.data.own_images import Pixels, fit, read_image
from resnetlab.errors import DataError, LabError, first_line, require_one_of
from resnetlab.runs.files import write_rows
from resnetlab.runs.layout import MANIFEST
from resnetlab.runs.summary import AVERAGED, best_column
from resnetlab.training import evaluate
from resnetlab.training.callbacks.checkpoints import network_state

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Classifier(nn.Module):
    """Logits (N, classes) of images (N, C, H, W), uint8 or floats in 0..1: normalization is inside.

    class_names: of the logits. size: (H, W). Raises DataError for images that are something else.
    """

    config: Config  # of its run
    checkpoint: dict[str, Any]
    path: Path  # of the checkpoint
    weights: str  # raw | averaged | reestimated: those that it has

    def __init__(self, network: nn.Module, preprocessing: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.size = network, tuple(preprocessing["size"])
        self.class_names = tuple(preprocessing["classes"])
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", preprocessing["mean"])
        self.register_buffer("std", preprocessing["std"])
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(normalize(images, self.mean, self.std))


def load_model(
    checkpoint: str | Path, weights: str = "best", root: str | None = None, model: str | None = None
) -> Classifier:
    """The network of a checkpoint, or of a run's folder, on the CPU and in evaluation mode.

    weights: best: those that chose the best epoch, the average where there is one; last: as the last step left them;
    averaged; reestimated: the raw ones with re-estimated batch-norm statistics. Of a folder, last is last.ckpt, the
    others best.ckpt. root: of the data set, for older checkpoints. model: dotted path of a custom one. Raises LabError.
    """
    require_one_of("weights", weights, ("best", "last", "averaged", "reestimated"))
    path = evaluate.checkpoint_in(Path(checkpoint), "last.ckpt" if weights == "last" else "best.ckpt")
    config, content = evaluate.read_config(path, root, model, with_data=False)
    averaged = best_column(config) == AVERAGED and int(content["state_dict"].get("average.n_averaged", 0)) > 0
    kind = {"best": "averaged" if averaged else "raw", "last": "raw"}.get(weights, weights)
    evaluate.require_weights(path, content, kind)
    preprocessing = content.get("preprocessing")
    if preprocessing is None or (kind != "raw" and kind not in content["statistics"]):
        print_stderr(f"{path} lacks the normalization or its {kind} weights' statistics; reading its data set for them")
        module, data, content = evaluate.open_checkpoint(path, root, model)
        preprocessing = data.preprocessing()
        with evaluate.load_weights(module, data, content, kind, TrainerOptions().device):
            network = deepcopy(module.model).cpu()
    else:
        network = config.model.build(len(preprocessing["classes"]), torch.Generator())
        evaluate.load_state(network, network_state(content, kind), path)
        network = network.to(memory_format=torch.channels_last) if config.trainer.channels_last else network
    found = Classifier(network, preprocessing)
    found.config, found.checkpoint, found.path, found.weights = config, content, path, kind
    return found


def read_images(paths: Sequence[Path], size: tuple[int, int], resize: bool = True) -> tuple[list[str], Tensor]:
    """(names, uint8 (N, 3, H, W)) of files and all pictures below folders, resized or, if they must be, refused."""
    found = []
    for name, pixels in (image for path in paths for image in read_path(path)):
        if not resize and pixels.shape[:2] != size:
            other = f"{pixels.shape[1]}x{pixels.shape[0]} pixels, the network takes {size[1]}x{size[0]}"
            raise DataError(f"{name} has {other}; --other-sizes resize makes it so")
        found.append((name, fit(pixels, size)))  # before the next is read: a folder may not fit into memory
    tensor = torch.from_numpy(np.stack([x for _, x in found])).permute(0, 3, 1, 2).contiguous()
    return [name for name, _ in found], tensor


def read_path(path: Path) -> Iterator[tuple[str, Pixels]]:
    """(name, pixels (H, W, 3)) of each image in the file or below the folder. Raises DataError."""
    if path.is_dir():
        if (path / MANIFEST).exists():
            raise DataError(f"{path} is a run's folder and no picture; name one run, and the pictures behind it")
        names = (file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        files = sorted(path / name for name in names if not any(part.startswith(".") for part in name.parts))
        if not files:
            raise DataError(f"{path} has no picture in it ({', '.join(SUFFIXES)})")
        for file in files:
            yield from read_path(file)
        return
    if path.suffix not in (".npy", ".npz"):
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            pixels = read_image(path)
        if isinstance(pixels, str):
            raise DataError(f"{path} {pixels}")
        yield str(path), pixels
        return
    try:
        loaded = np.load(path, allow_pickle=False)
        named = loaded if path.suffix == ".npz" else {"": loaded}
        arrays = {key: pixels_of_array(array) for key, array in named.items()}
        if not arrays:
            raise ValueError("it holds no array")
    except Exception as error:  # NumPy raises many kinds for damaged files
        raise DataError(f"{path} cannot be used: {first_line(error)}") from None
    for key, images in arrays.items():
        yield from ((f"{path}:{key}[{n}]", image.permute(1, 2, 0).numpy()) for n, image in enumerate(images))


@torch.inference_mode()
def probabilities_of(model: Classifier, pixels: Tensor, flip: bool = False) -> Tensor:
    """(N, classes) on the CPU. flip: the mean of those of the images and of the mirrored images."""
    views = [pixels, pixels.flip(3)] if flip else [pixels]
    found = torch.stack([torch.cat([model(part).softmax(1) for part in view.split(500)]) for view in views]).mean(0)
    if not found.isfinite().all():
        raise LabError(f"the answers of {model.path} are no finite numbers: its run diverged")
    return found


def print_predictions(names: Sequence[str], classes: Sequence[str], p: Tensor, as_json: bool, csv: Path | None) -> None:
    """Prints the five most probable classes of each image, and writes them as a table if asked to. p: (N, classes)."""
    rows: list[dict[str, Any]] = []
    for name, values, places in zip(names, *(part.tolist() for part in p.topk(min(5, len(classes)))), strict=True):
        rows.append({"image": name})
        for n, (value, place) in enumerate(zip(values, places, strict=True), 1):
            rows[-1] |= {f"class_{n}": classes[place], f"probability_{n}": value}
    if csv is not None:
        write_rows(csv, rows)
    cells = ([f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row.values()] for row in rows)
    say(json.dumps(rows, indent=1) if as_json else "\n".join(map("  ".join, cells)))
