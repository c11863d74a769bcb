"""Weight averages (EMA, SWA), and batch-norm statistics re-estimated for the weights as they are now.

An average is a second network beside the one that is trained, kept by torch's AveragedModel: it is part of every
checkpoint, and training does not see it (but for EMA's overwrite_frequency). Its batch-norm statistics are not its own:
whoever evaluates it has to re-estimate them (Izmailov et al. 2018, arXiv 1803.05407, section 3.2).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from resnetlab.errors import ConfigError, check_limits, require
from resnetlab.optim.schedules import RunLength
from resnetlab.optim.schedules.decay_and_piecewise import floor_with_tolerance


class PairedAverage(AveragedModel):
    """An average whose weights, and those of the network, are listed once: to find ResNet56v2's 228 in both takes a
    millisecond, longer than a whole captured step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.averages: list[Tensor] = list(self.module.parameters())
        self.weights: list[Tensor] = list(model.parameters())


@dataclass
class Averaging:
    """Config of the group `averaging`; the base class is averaging=none."""

    name: str = "none"

    default_momentum: ClassVar[float | None] = None  # what ema_momentum means when null; None = not used here

    def check(self) -> None:
        """Raises ConfigError at the first key that makes no sense."""
        check_limits("averaging", vars(self))

    def check_span(self, span: RunLength) -> None:
        """Refuses what can only be seen with the run's length known. Raises ConfigError."""

    def create(self, model: nn.Module) -> PairedAverage | None:
        """An average of the model's weights, still empty; None where there is none."""
        return None if self.name == "none" else PairedAverage(model)

    def update(self, average: PairedAverage, model: nn.Module, step: int, span: RunLength, m: float | None) -> None:
        """Takes the weights after `step` (from 0, over the run) into the average, where due. m: ema_momentum."""

    def override_lr(self, table: npt.NDArray[np.float64], span: RunLength) -> None:
        """Writes a learning rate of its own into the run's table (steps, 2), in place."""


@dataclass
class EMA(Averaging):
    """An exponential moving average: after each step average = m * average + (1 - m) * weights, m = ema_momentum.

    Keras' use_ema: step 0 copies, and every overwrite_frequency steps the weights become the average. Null is
    never: Keras then overwrites them once, when training has ended, which is our averaged figure of the last epoch.
    warmup is TensorFlow's num_updates.
    Nothing is read back from the device. A step that the gradient scaler skips under 16-mixed is averaged all the same.
    """

    name: str = "ema"
    overwrite_frequency: int | None = None  # steps after which the weights become the average; null: never
    warmup: bool = False  # ema_momentum is at most (1 + k) / (10 + k) at step k, so that the first weights fade soon

    default_momentum: ClassVar[float | None] = 0.99  # Keras'

    @torch.no_grad()
    def update(self, average: PairedAverage, model: nn.Module, step: int, span: RunLength, m: float | None) -> None:
        assert m is not None
        averages, weights = average.averages, average.weights
        m = min(m, (1 + step) / (10 + step)) if self.warmup else m
        if step == 0:
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, weights, 1 - m)
        average.n_averaged += 1
        if (step + 1) % span.steps_per_epoch == 0:
            statistics = {id(b) for norm in batch_norms(model) for b in norm.buffers()}  # which are re-estimated
            for own, trained in zip(average.module.buffers(), model.buffers(), strict=True):
                if id(trained) not in statistics:
                    own.copy_(trained)
        if self.overwrite_frequency is not None and (step + 1) % self.overwrite_frequency == 0:
            torch._foreach_copy_(weights, averages)


@dataclass
class SWA(Averaging):
    """Stochastic weight averaging: the plain mean of the weights after each epoch beyond `start`, the last included.

    Izmailov et al. 2018 (arXiv 1803.05407).
    """

    name: str = "swa"
    start: float = 0.75  # epochs before the first one that is averaged: a number, or a fraction of the run below 1
    lr: float | None = None  # constant learning rate from there on; null: the schedule's
    anneal_epochs: int = 0  # epochs from the schedule's rate to averaging.lr, as torch's SWALR; 0: at once
    anneal: str = "cos"  # form of that: cos | linear

    def check(self) -> None:
        super().check()
        start_ok = 0 <= self.start < 1 or (self.start >= 1 and float(self.start).is_integer())
        require(start_ok, "averaging.start", f"{self.start:g}", "be a fraction below 1 or a whole number of epochs")
        ok = self.anneal_epochs == 0 or (self.anneal_epochs > 0 and self.lr is not None)
        require(ok, "averaging.anneal_epochs", self.anneal_epochs, "be 0, or a number of epochs towards averaging.lr")

    def check_span(self, span: RunLength) -> None:
        start_ok = self.start < span.epochs
        require(start_ok, "averaging.start", f"{self.start:g}", f"be below the {span.epochs} epochs of the run")
        averaged = span.epochs - self.epochs_before(span)
        must = f"be less than the {averaged} averaged epochs: averaging.lr is reached after it"
        require(self.anneal_epochs < averaged, "averaging.anneal_epochs", self.anneal_epochs, must)

    def epochs_before(self, span: RunLength) -> int:
        """Epochs that are trained before those whose weights are averaged."""
        return int(self.start) if self.start >= 1 else floor_with_tolerance(self.start * span.epochs)

    def update(self, average: PairedAverage, model: nn.Module, step: int, span: RunLength, m: float | None) -> None:
        epochs, rest = divmod(step + 1, span.steps_per_epoch)
        if rest == 0 and epochs > self.epochs_before(span):
            average.update_parameters(model)

    def override_lr(self, table: npt.NDArray[np.float64], span: RunLength) -> None:
        if self.lr is not None:
            rates = table[self.epochs_before(span) * span.steps_per_epoch :, 0]
            x = np.minimum(np.arange(len(rates)) // span.steps_per_epoch / (self.anneal_epochs or 1), 1.0)
            x = (1 - np.cos(np.pi * x)) / 2 if self.anneal == "cos" else x
            rates[:] = self.lr + (rates[0] - self.lr) * (1 - x) if self.anneal_epochs else self.lr


AVERAGINGS: dict[str, type[Averaging]] = {"none": Averaging, "ema": EMA, "swa": SWA}


def resolve_momentum(averaging: Averaging, momentum: float | None) -> float | None:
    """ema_momentum as it acts: null filled with the default. Raises ConfigError for a value that is not used."""
    if momentum is None:
        return averaging.default_momentum
    if averaging.default_momentum is None:
        raise ConfigError(f"ema_momentum (={momentum:g}) is not used by averaging={averaging.name}; take averaging=ema")
    return momentum


@contextmanager
def reestimated_statistics(
    model: nn.Module, inputs: Iterable[Tensor], take: Callable[[Tensor, int], object] | None = None
) -> Iterator[None]:
    """Inside: the model's running statistics are the plain mean over `inputs`; outside: the model is as it was.

    inputs: batches (N, C, H, W) of training images. Only batch norms see training mode, so no random number is drawn.
    take: instead of a forward pass of the model, with a batch and its number (from 1).
    """
    norms = batch_norms(model)
    buffers = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    momenta, modes = [norm.momentum for norm in norms], {module: module.training for module in model.modules()}
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        with torch.no_grad():
            for number, x in enumerate(inputs if norms else (), 1):
                for norm in norms:
                    norm.momentum = 1 / number  # as momentum=None, which reads a counter back in each layer and batch
                model(x) if take is None else take(x, number)
        model.eval()
        yield
    finally:
        for norm, saved, momentum in zip(norms, buffers, momenta, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(saved[name])
        for module, training in modes.items():
            module.training = training


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers of the model that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
