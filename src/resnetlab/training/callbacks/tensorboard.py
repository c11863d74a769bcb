"""TensorBoard's pages: the epochs' scalars, the network, augmented inputs, hparams and the confusion matrix."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from resnetlab.config.schema import Config
from resnetlab.data import ImageData
from resnetlab.runs.summary import CHOICES, SETTINGS, Summary
from resnetlab.training.module import ImageClassifier

GRID_IMAGES, MAGNIFY = 64, 2
LAYOUT = {name: ["Multiline", [f"{name}/train", f"{name}/val"]] for name in ("accuracy", "loss")}
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


class TensorBoardPages(TensorBoardLogger):
    """Lightning's logger, which also writes what TensorBoard shows beside the scalars."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.folder.path, name="", version="", default_hp_metric=False)
        self.config = config
        self.seen = (0, 0.0, 0.0)  # epoch, and the sums of loss and images, when the steps were last logged
        self.steps = 0

    def begin(self, trainer: L.Trainer, module: Any) -> None:
        """Writes the layout of the charts and, of a new run, its first batch and network."""
        self.steps = trainer.current_epoch * module.span.steps_per_epoch
        if self.config.logger.every:
            module.step_hooks.append(partial(self.log_step, module))
        self.experiment.add_custom_scalars({"training and validation": LAYOUT})
        if trainer.current_epoch == 0:
            grid = input_grid(trainer.datamodule, module.device)  # type: ignore[attr-defined]
            self.experiment.add_image("pictures/first batch, augmented", grid, 0)
            self.experiment.add_text("model", f"```\n{module.model}\n```", 0)

    def log_step(self, module: ImageClassifier) -> None:
        """Every `logger.every` steps: their mean loss, within the epoch, and lr. It waits for the device."""
        self.steps += 1
        if self.steps % (self.config.logger.every or 1):
            return
        epoch, before = module.current_epoch + 1, self.seen
        loss, _, images, *_ = module.step.metrics.sums.tolist()
        _, past_loss, past_images = before if before[0] == epoch else (epoch, 0.0, 0.0)
        lr, _ = module.lr_momentum(self.steps - 1)
        mean = (loss - past_loss) / (images - past_images)
        self.log_metrics({"steps/loss": mean, "steps/lr": lr}, step=self.steps)
        self.seen = epoch, loss, images

    def log_summary(self, summary: Summary, make_figures: Callable[[], Mapping[str, Figure]]) -> None:
        """Writes the summary's numbers to the hparams tab, and the pictures of the validation.

        Without the list of columns that SummaryWriter.add_hparams writes too: TensorBoard (2.21) would take the first
        run's for all, and hide the keys that only others have.
        """
        writer = self.experiment
        for part in hparams(hyperparameters(self.config), {})[1:]:
            writer._get_file_writer().add_summary(part)
        for key, value in final_metrics(summary).items():
            writer.add_scalar(f"result/{key}", value, summary["epochs_trained"])
        for name, figure in make_figures().items():
            writer.add_figure(f"pictures/{name}, validation", figure, summary["epochs_trained"])
        writer.flush()


def final_metrics(summary: Summary) -> dict[str, float]:
    """The summary's numbers that trackers show; without those that are unknown."""
    keys = ("final_val_acc", "best_val_acc", "best_epoch", "final_val_ce", "final_train_ce")
    return {key: float(summary[key]) for key in keys if summary.get(key) is not None}


def hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """The options, the top-level values, and what else differs from the defaults; no None."""
    values = config.identity | {choice: getattr(config, choice).name for choice in CHOICES}
    values |= {key: getattr(config, key) for key in SETTINGS}
    return {key: value if isinstance(value, bool | int | float) else str(value) for key, value in values.items()}


def input_grid(data: ImageData, device: torch.device) -> torch.Tensor:
    """The first images of epoch 1 as the network sees them, the mean added again: (3, H, W) in [0, 1]."""
    x, _ = next(data.batches(1, device))
    pixels = x[:GRID_IMAGES] * data.normalizer.std.to(device) + data.normalizer.mean.to(device)
    grid = make_grid(pixels.clamp(0, 1).cpu(), nrow=8)
    return grid.repeat_interleave(MAGNIFY, 1).repeat_interleave(MAGNIFY, 2)
