"""TensorBoard's pages: the epochs' scalars, the network, augmented inputs, hparams and the confusion matrix."""

import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from resnetlab.config.schema import Config
from resnetlab.data import ImageData
from resnetlab.runs.summary import CHOICES, SETTINGS

GRID_IMAGES, MAGNIFY = 64, 2
CARDS = {  # TensorBoard orders its cards by the alphabet: accuracy, loss and lr come first, single points (result) last
    **{"acc": "accuracy", "loss": "loss", "ce": "loss", "acc5": "more"},
    **{"time": "process", "power": "process", "weight_norm": "parameters", "relative_update": "parameters"},
}


def scalars(row: Mapping[str, float]) -> dict[str, float]:
    """A row of metrics.csv under TensorBoard's names: val/acc_recal becomes accuracy/val_recal; no epoch, its axis."""
    return {card(column): value for column, value in row.items() if column != "epoch"}


def card(column: str) -> str:
    part, _, rest = column.partition("/")
    metric, _, kind = rest.partition("_")
    if part in CARDS:
        return f"{CARDS[part]}/{rest or part}"
    if metric in CARDS:
        suffix = "_".join(filter(None, (metric if metric in ("acc5", "ce") else "", kind)))
        return f"{CARDS[metric]}/{part}_{suffix}".rstrip("_")
    return column


class TensorBoardPages(L.Callback):
    """Writes what TensorBoard shows beside the scalars."""

    def __init__(self, config: Config) -> None:
        """For the hparams tab: the options, the top-level values, and what else differs from the defaults; no None."""
        values = {choice: getattr(config, choice).name for choice in CHOICES}
        values |= {key: getattr(config, key) for key in SETTINGS}
        values = config.identity | values
        plain = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in values.items()}
        self.hyperparameters: dict[str, Any] = plain

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        for logger in _loggers(trainer) if trainer.current_epoch == 0 else []:
            logger.experiment.add_image("pictures/first batch, augmented", input_grid(data, pl_module.device), 0)
            logger.experiment.add_text("model", f"```\n{pl_module.model}\n```", 0)

    def finish(
        self, trainer: L.Trainer, summary: Mapping[str, Any], confusion: torch.Tensor, names: tuple[str, ...]
    ) -> None:
        """Writes the summary's numbers to the hparams tab and draws the confusion matrix (classes, classes)."""
        metrics = {
            f"result/{key}": float(summary[key])
            for key in ("final_val_acc", "best_val_acc", "best_epoch", "final_val_ce", "final_train_ce")
            if summary.get(key) is not None
        }
        epoch = summary["epochs_trained"]
        for logger in _loggers(trainer):
            write_hparams(logger, self.hyperparameters, metrics, epoch)
            logger.experiment.add_figure(
                "pictures/confusion matrix, validation", confusion_figure(confusion, names), epoch
            )
            logger.experiment.flush()


def write_hparams(
    logger: TensorBoardLogger, values: Mapping[str, Any], metrics: Mapping[str, float], epoch: int
) -> None:
    """Write the run's row of the hparams tab.

    Without the list of columns that SummaryWriter.add_hparams writes too: TensorBoard (2.21) would take the first run's
    for all, and hide the keys that only others have.
    """
    _, start, end = hparams(dict(values), {})
    for summary in (start, end):
        logger.experiment._get_file_writer().add_summary(summary)
    for name, value in metrics.items():
        logger.experiment.add_scalar(name, value, epoch)


def input_grid(data: ImageData, device: torch.device) -> torch.Tensor:
    """The first images of epoch 1 as the network sees them, the mean added again: (3, H, W) in [0, 1]."""
    x, _ = next(data.batches(1, device))
    pixels = x[:GRID_IMAGES] * data.normalizer.std.to(device) + data.normalizer.mean.to(device)
    grid = make_grid(pixels.clamp(0, 1).cpu(), nrow=8)
    return grid.repeat_interleave(MAGNIFY, 1).repeat_interleave(MAGNIFY, 2)


def confusion_figure(counts: torch.Tensor, names: tuple[str, ...]) -> Figure:
    """Rows are true classes, columns predictions; with the counts where they fit."""
    from sklearn.metrics import ConfusionMatrixDisplay  # a second, which no start waits for

    warnings.filterwarnings("ignore", "Glyph .* missing")  # of classes whose names are Chinese, say
    figure = Figure(figsize=(10, 10), layout="constrained")
    display = ConfusionMatrixDisplay(counts.cpu().numpy(), display_labels=names)
    display.plot(ax=figure.add_subplot(), cmap="Blues", include_values=len(names) <= 20, xticks_rotation=45)
    return figure


def _loggers(trainer: L.Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
