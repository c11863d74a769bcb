"""One training step, and the plain way to run it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from resnetlab.optim.optimizers import make_eager, set_lr_momentum
from resnetlab.training.engine.batches import DeviceBatches
from resnetlab.training.metrics import TrainMetrics

NO_STEP = 2**62  # the number of a step that there is not


class TrainStep:
    """gather -> augment -> forward -> loss -> backward -> optimizer -> statistics, all on the device.

    look: batch -> (loss, ce, correct answers), scalars. backward: what Lightning or torch does with the loss.
    optimizer: steps, and forgets gradients. No step reads anything back.
    """

    def __init__(
        self,
        feed: DeviceBatches,
        look: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
        backward: Callable[[Tensor], None],
        optimizer: Any,
    ) -> None:
        self.feed, self.look, self.backward, self.optimizer = feed, look, backward, optimizer
        self.tally = TrainMetrics(feed.place.device)
        self.clock = torch.zeros_like(feed.place)  # the step's number, over the whole run
        self.first_bad = torch.full_like(feed.place, NO_STEP)  # the first step whose loss was not finite

    def begin(self, epoch: int, step: int) -> None:
        """Goes to the first batch of `epoch` (from 1), which is step `step` of the run."""
        self.feed.begin(epoch)
        self.clock.fill_(step)
        self.first_bad.fill_(NO_STEP)

    def forward(self, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, ce, correct answers) of this device's share of the next batch, of `images` in all."""
        return self.look(*self.feed.batch(images))

    def __call__(self, images: int) -> None:
        """Trains on the next batch, of `images` over all devices."""
        rank, devices = self.feed.share
        mine = len(range(rank, images, devices))
        loss, ce, correct = self.forward(images)
        self.optimizer.zero_grad()
        # the mean over the devices of their shares' gradients is to be that of the whole batch
        self.backward(loss * (mine * devices / images) if devices > 1 else loss)
        self.optimizer.step()
        self.tally.add(loss.detach(), ce.detach(), correct, mine)
        seen = torch.where(torch.isfinite(loss.detach()), self.first_bad, torch.minimum(self.first_bad, self.clock))
        self.first_bad.copy_(seen)
        self.feed.place.add_(images)
        self.clock.add_(1)


class ScaledOptimizer:
    """torch's own backward and optimizer step, with a gradient scaler or (None) without: what a graph can capture."""

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: Any = None) -> None:
        self.optimizer, self.scaler = optimizer, scaler

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self) -> None:
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


class EagerRunner:
    """Runs the step as it stands, lr and momentum set from the host before each.

    compiled: gather, augmentation, forward and backward by torch.compile; the optimizer has fused kernels already.
    """

    def __init__(self, step: TrainStep, optimizer: torch.optim.Optimizer, compiled: bool = False) -> None:
        self.step, self.optimizer, self.name = step, optimizer, "compile" if compiled else "eager"
        make_eager(optimizer)
        if compiled:
            step.forward = torch.compile(step.forward, dynamic=False)  # type: ignore[method-assign]

    def __call__(self, images: int, lr: float, momentum: float) -> None:
        set_lr_momentum(self.optimizer, lr, momentum)
        self.step(images)
