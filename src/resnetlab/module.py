"""The LightningModule: where network, loss, optimizer and schedule meet."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.averaging import reestimated_statistics
from resnetlab.data import ImageData, derive_seed
from resnetlab.errors import Diverged
from resnetlab.meter import Meter
from resnetlab.optimizers import Optimizer, set_lr_momentum
from resnetlab.regularization import Regularization, conv_kernels, penalty
from resnetlab.schedules import ReduceOnPlateau, Schedule, Span, table

__all__ = ["Lab"]

Row = dict[str, float]


class Lab(L.LightningModule):
    """One training run.

    model: (N, C, H, W) -> (N, classes) logits. lr, momentum: the schedule's base values. wd, l2: None where the
    regularization does not use them. recalibrate: training images that re-estimate the batch-norm statistics for a
    second validation, 0 for none.

    Lightning owns epochs, validation, checkpoints and devices. Optimization is manual: the step sets lr and momentum
    from the schedule's table first, so that the schedule is a function of the step's number alone. Under 16-mixed a
    step that the gradient scaler skips keeps its place in the schedule: nothing is shifted or repeated.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        regularization: Regularization,
        *,
        classes: int,
        span: Span,
        lr: float,
        momentum: float,
        wd: float | None = None,
        l2: float | None = None,
        seed: int = 0,
        recalibrate: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.optimizer, self.schedule, self.regularization = optimizer, schedule, regularization
        self.lr, self.momentum, self.wd, self.l2 = lr, momentum, wd, l2
        self.seed, self.recalibrate, self.span = seed, recalibrate, span
        self.timetable = table(schedule, lr, momentum, span)
        self.kernels = conv_kernels(model) if l2 else []
        self.train_meter = Meter(classes)
        self.val_meter = Meter(classes, top5=True)
        self.row: Row = {}  # the epoch's figures, complete when validation has ended
        self.register_buffer("first_bad_step", torch.tensor(-1), persistent=False)
        self.first_bad_step: Tensor

    def configure_optimizers(self) -> Any:
        """The optimizer; with reduce_on_plateau also its scheduler, the only one that has a state."""
        built = self.build_optimizer()
        if isinstance(self.schedule, ReduceOnPlateau):
            plateau = self.schedule.build(built)
            return {"optimizer": built, "lr_scheduler": {"scheduler": plateau}}
        return built

    def build_optimizer(self) -> torch.optim.Optimizer:
        """A new optimizer over the network's tensors, each in exactly one group."""
        return self.optimizer.build(
            self.model, lr=self.lr, momentum=self.momentum, wd=self.wd, regularization=self.regularization
        )

    def losses(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, ce): what is minimised, and the plain cross-entropy in it; both means over the batch."""
        ce = F.cross_entropy(logits, labels)
        smoothing = self.regularization.label_smoothing
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing) if smoothing else ce
        return (loss + penalty(self.kernels, self.l2) if self.l2 else loss), ce

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(derive_seed(self.seed, self.current_epoch + 1))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        x, y = batch
        step = self.current_epoch * self.span.steps_per_epoch + index
        optimizer: Any = self.optimizers()
        self.set_time(optimizer.optimizer, step)
        logits = self.model(x)
        loss, ce = self.losses(logits, y)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.train_meter.update(loss, ce, logits, y)
        self.watch(loss.detach(), step)

    def set_time(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Writes lr and momentum of `step` (from 0, over the whole run) into the optimizer."""
        lr, momentum = map(float, self.timetable[step])
        if self.schedule.stateful:
            lr = float(optimizer.param_groups[0]["lr"])
        set_lr_momentum(optimizer, lr, momentum)

    def watch(self, loss: Tensor, step: int) -> None:
        """Notes the first step whose loss is not finite; raises Diverged (on a GPU at the epoch's end)."""
        unseen = (self.first_bad_step < 0) & ~torch.isfinite(loss)
        self.first_bad_step.copy_(torch.where(unseen, step, self.first_bad_step))
        if loss.device.type == "cpu" or (step + 1) % self.span.steps_per_epoch == 0:
            bad = int(self.first_bad_step)
            if bad >= 0:
                raise Diverged("train/loss", self.current_epoch + 1, bad)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """In float32 whatever the training's precision: stale batch-norm statistics can exceed float16's range."""
        x, y = batch
        with torch.autocast(x.device.type, enabled=False):
            logits = self.model(x)
        loss, ce = self.losses(logits, y)
        self.val_meter.update(loss, ce, logits, y)

    def on_validation_epoch_end(self) -> None:
        first_step = self.current_epoch * self.span.steps_per_epoch
        lr, momentum = map(float, self.timetable[first_step])
        if self.schedule.stateful:
            lr = float(self.optimizers().optimizer.param_groups[0]["lr"])  # type: ignore[union-attr]
        self.row = {
            "epoch": self.current_epoch + 1,
            "lr": lr,
            "momentum": momentum,
            **self.train_meter.compute("train/"),
            **self.val_meter.compute("val/"),
            **(self.validate_recalibrated() if self.recalibrate else {}),
            "weight_norm": self.weight_norm(),
        }
        # for callbacks of the user's own that monitor a figure
        self.log_dict({k: v for k, v in self.row.items() if k.startswith("val/")}, logger=False, batch_size=1)
        if not torch.isfinite(torch.tensor(self.row["val/loss"])):
            raise Diverged("val/loss", self.current_epoch + 1, first_step + self.span.steps_per_epoch - 1)
        if self.schedule.stateful:
            self.lr_schedulers().step(self.row[self.schedule.monitor])  # type: ignore

    def validate_recalibrated(self) -> Row:
        """The validation again, with batch-norm statistics re-estimated on training images; the run's own stay."""
        data: ImageData = self.trainer.datamodule  # type: ignore[attr-defined]
        with (
            torch.no_grad(),
            reestimated_statistics(self.model, self.recalibration_inputs(data)),
        ):
            for batch in data.eval_batches(data.val, self.device):
                self.validation_step(batch, 0)
        return {k: v for k, v in self.val_meter.compute("val/", "_recal").items() if k != "val/acc5_recal"}

    def recalibration_inputs(self, data: ImageData) -> Iterator[Tensor]:
        """Whole training batches of about `recalibrate` images: a partial one would weigh as much as the others."""
        batches = max(1, min(self.recalibrate, len(data.train)) // data.batch_size)
        return (x for x, _ in islice(data.batches(self.current_epoch + 1, self.device), batches))

    def weight_norm(self) -> float:
        """The Euclidean norm of all trainable tensors together."""
        norms = torch._foreach_norm([p.detach() for p in self.model.parameters()])
        return float(torch.linalg.vector_norm(torch.stack(norms)))
