"""TensorBoard's pages: the network and augmented inputs at the start; hparams and the confusion matrix at the end."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torchvision.utils import make_grid

from resnetlab.config.schema import Config
from resnetlab.data import ImageData
from resnetlab.runs.summary import CHOICES, SETTINGS

GRID_IMAGES, MAGNIFY = 64, 2


class TensorBoardPages(L.Callback):
    """Writes what TensorBoard shows beside the scalars."""

    def __init__(self, config: Config) -> None:
        """The options chosen and the top-level values are for the hparams tab, where TensorBoard takes no None."""
        values = {choice: getattr(config, choice).name for choice in CHOICES}
        values |= {key: getattr(config, key) for key in SETTINGS}
        self.hyperparameters = {key: "None" if value is None else value for key, value in values.items()}

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
    """Rows are true classes, columns predictions; with the counts where they fit."""
    from sklearn.metrics import ConfusionMatrixDisplay  # a second, which no start waits for

    figure = Figure(figsize=(10, 10), layout="constrained")
    display = ConfusionMatrixDisplay(counts.cpu().numpy(), display_labels=names)
    display.plot(ax=figure.add_subplot(), cmap="Blues", include_values=len(names) <= 20, xticks_rotation=45)
    return figure


def _loggers(trainer: L.Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
