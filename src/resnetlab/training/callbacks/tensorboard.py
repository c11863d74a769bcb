"""TensorBoard's pages: the network and augmented inputs at the start; hparams and the confusion matrix at the end."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torchvision.utils import make_grid

from resnetlab.config.schema import Config
from resnetlab.data import ImageData

GRID_IMAGES, MAGNIFY = 64, 2
GROUPS = ("model", "data", "optimizer", "schedule", "regularization", "averaging")
KEYS = ("seed", "epochs", "batch_size", "lr", "wd", "l2", "momentum", "ema_momentum", "shift")


class TensorBoardPages(L.Callback):
    """Writes what TensorBoard shows beside the scalars."""

    def __init__(self, config: Config) -> None:
        values = {key: getattr(config, key) for key in KEYS}
        self.hyperparameters = {group: getattr(config, group).name for group in GROUPS}
        self.hyperparameters |= {key: str(value) if value is None else value for key, value in values.items()}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        for logger in _loggers(trainer) if trainer.current_epoch == 0 else []:
            logger.experiment.add_image("inputs/first batch, augmented", input_grid(data, pl_module.device), 0)
            logger.experiment.add_text("model", f"```\n{pl_module.model}\n```", 0)

    def finish(
        self, trainer: L.Trainer, summary: Mapping[str, Any], confusion: torch.Tensor, names: tuple[str, ...]
    ) -> None:
        """Writes the summary's numbers to the hparams tab and draws the confusion matrix (classes, classes)."""
        metrics = {
            f"hparam/{key}": float(summary[key])
            for key in ("final_val_acc", "best_val_acc", "best_epoch", "final_val_ce", "final_train_ce")
            if summary.get(key) is not None
        }
        epoch = summary["epochs_trained"]
        for logger in _loggers(trainer):
            logger.log_hyperparams(self.hyperparameters, metrics, step=epoch)
            logger.experiment.add_figure("confusion matrix, validation", confusion_figure(confusion, names), epoch)
            logger.experiment.flush()


def input_grid(data: ImageData, device: torch.device) -> torch.Tensor:
    """The first images of epoch 1 as the network sees them, the mean added again: (3, H, W) in [0, 1]."""
    x, _ = next(data.batches(1, device))
    pixels = x[:GRID_IMAGES] * data.normalizer.std.to(device) + data.normalizer.mean.to(device)
    grid = make_grid(pixels.clamp(0, 1).cpu(), nrow=8)
    return grid.repeat_interleave(MAGNIFY, 1).repeat_interleave(MAGNIFY, 2)


def confusion_figure(counts: torch.Tensor, names: tuple[str, ...]) -> Figure:
    """Rows are true classes, columns predictions; shown as shares of a row, with the counts where they fit."""
    figure = Figure(figsize=(7, 6))
    figure.subplots_adjust(left=0.2, right=0.97, top=0.97, bottom=0.14)
    axes = figure.add_subplot()
    shares = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    picture = axes.imshow(shares.cpu().numpy(), vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(picture, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= 20:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        for row, column in product(range(len(names)), repeat=2):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", fontsize=8, color=color)
    return figure


def _loggers(trainer: L.Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
