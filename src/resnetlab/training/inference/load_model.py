"""A checkpoint as a network that takes images as a person has them, without the data set."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnetlab.config.schema import Config
from resnetlab.config.trainer import TrainerOptions
from resnetlab.console import print_stderr
from resnetlab.data.normalize import normalize
from resnetlab.errors import require_one_of
from resnetlab.runs.summary import AVERAGED, best_column
from resnetlab.training.callbacks.checkpoints import network_state
from resnetlab.training.evaluate import build_recorded, load_state, load_weights, read_config, require_weights


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
    averaged; reestimated: the last with re-estimated batch-norm statistics. Of a folder, last is last.ckpt, the others
    best.ckpt. root: of the data set, for older checkpoints. model: dotted path of a custom one. Raises LabError.
    """
    require_one_of("weights", weights, ("best", "last", "averaged", "reestimated"))
    path, name = Path(checkpoint), "last.ckpt" if weights == "last" else "best.ckpt"
    path = next((file for file in (path / name, path / "checkpoints" / name) if file.is_file()), path)
    config, content = read_config(path, root, model, with_data=False)
    averaged = best_column(config) == AVERAGED and int(content["state_dict"].get("average.n_averaged", 0)) > 0
    kind = {"best": "averaged" if averaged else "raw", "last": "raw"}.get(weights, weights)
    require_weights(path, content, kind)
    preprocessing = content.get("preprocessing")
    if preprocessing is None or (kind != "raw" and kind not in content["statistics"]):
        lacking = f"the normalization or the statistics of its {kind} weights"
        print_stderr(f"{path} lacks {lacking}; reading its data set for them")
        module, data = build_recorded(config, content, path)
        preprocessing = data.preprocessing()
        with load_weights(module, data, content, kind, TrainerOptions().device):
            network = deepcopy(module.model).cpu()
    else:
        network = config.model.build(len(preprocessing["classes"]), torch.Generator())
        load_state(network, network_state(content, kind), path)
        network = network.to(memory_format=torch.channels_last) if config.trainer.channels_last else network
    found = Classifier(network, preprocessing)
    found.config, found.checkpoint, found.path, found.weights = config, content, path, kind
    return found
