"""The LightningModule of one run: network, loss, optimizer, schedule and metrics."""

import math
import warnings
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import get_total_norm

from resnetlab.config.compose import from_plain
from resnetlab.config.schema import Config
from resnetlab.data import Chunk, ImageData, derive_seed
from resnetlab.data.normalize import normalize
from resnetlab.errors import DataError, Diverged, LabError
from resnetlab.optim.averaging import reestimated_statistics
from resnetlab.optim.regularization import conv_kernels, penalty
from resnetlab.optim.schedules import ReduceOnPlateau, RunLength, schedule_table
from resnetlab.runs.summary import Row
from resnetlab.training.distributed import all_reduce, rank, world_size
from resnetlab.training.engine.cuda_graph import CaptureFailed, CudaGraphRunner, StatisticsRunner
from resnetlab.training.engine.fewer_launches import FewerLaunches
from resnetlab.training.engine.select import select_engine, without_graph
from resnetlab.training.engine.step import SAM, DeviceBatches, EagerRunner, ScaledOptimizer, TrainStep, clip_gradients
from resnetlab.training.lightning_internals import advance_global_step, exit_at_sigterm, gradient_scaler
from resnetlab.training.metrics import EpochMetrics


def base_momentum(config: Config) -> float:
    return config.optimizer.default_momentum if config.momentum is None else config.momentum


def lr_momentum_table(config: Config, span: RunLength) -> npt.NDArray[np.float64]:
    """The run's (steps, 2) table of learning rates and momenta: the schedule's, with the average's own lr in it."""
    found = schedule_table(config.schedule, config.lr, base_momentum(config), span)
    config.averaging.override_lr(found, span)
    return found


class ImageClassifier(L.LightningModule):
    """One training run. model: (N, C, H, W) -> (N, classes) logits, its weights drawn from (seed, epoch 0).

    Lightning owns epochs, validation, checkpoints and devices. Optimization is manual: the step sets lr and momentum
    from the schedule's table first, also a step that the gradient scaler skips, which keeps its place.

    On several devices each sees its share of every batch. A share's gradient counts as its images do, and metrics are
    over all shares, so the step is that of one device; only a batch norm sees no more than its own share, and the
    running statistics are the first device's.
    """

    def __init__(self, config: Config | dict[str, Any], steps_per_epoch: int, classes: int) -> None:
        """config: a dict from load_from_checkpoint; then the user's code that it names is called in training only."""
        super().__init__()
        self.automatic_optimization, recorded = False, isinstance(config, dict)
        config = from_plain(config) if isinstance(config, dict) else config
        if recorded and config.model.name == "custom":
            cure = "pass config=compose(...), or take load_model(CKPT, model=...)"
            raise DataError(f"the checkpoint has a network of the user's own, whose code is not in it; {cure}")
        self.config, self.span = config, RunLength(steps_per_epoch, config.epochs)
        self.momentum = base_momentum(config)
        if not recorded:
            _ = self.lr_momentum_table  # which refuses a schedule
        self.engine_name = select_engine(config)[0]
        model = config.model.build(classes, torch.Generator().manual_seed(derive_seed(config.seed, 0)))
        self.model = model.to(memory_format=torch.channels_last) if config.trainer.channels_last else model
        self.drawn: list[str] = []  # tensors that are not init's, for they have other classes
        frozen = tuple(f"{part}." for part in config.freeze)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not f"{name}.".startswith(frozen))
        self.average = config.averaging.create(self.model)
        self.kernels = conv_kernels(self.model) if config.l2 else []
        self.averaged_kernels = conv_kernels(self.average.module) if config.l2 and self.average is not None else []
        if self.average is not None:
            self.average.requires_grad_(False)
        self.top5 = classes > 5
        self.epoch_metrics: Row = {}  # of the last epoch that was validated
        self.began = False  # whether the training has, after all that is restored
        # {"averaged", "reestimated"}: the batch-norm statistics that its *_avg and *_recal were measured with
        self.statistics: dict[str, dict[str, Tensor]] = {}
        self.statistics_runners: dict[str, StatisticsRunner] = {}  # of the same two, with engine=graph
        self.on_fallback: Callable[[str], None] = warnings.warn  # called with the reason
        self.step_hooks: list[Callable[[], None]] = []  # called after every training step
        self.register_buffer("relative_update", torch.tensor(0.0), persistent=False)  # |new - old| / |old| of one step
        self.relative_update: Tensor
        self.preprocessing: dict[str, Any] = {}  # ImageData.preprocessing, part of every checkpoint
        self.register_buffer("class_weights", None, persistent=False)  # of the training loss: (classes,)
        self.class_weights: Tensor | None

    @cached_property
    def lr_momentum_table(self) -> npt.NDArray[np.float64]:
        return lr_momentum_table(self.config, self.span)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) not normalized, uint8 or floats in 0..1; raw weights."""
        mean, std = (self.preprocessing[key].to(images.device) for key in ("mean", "std"))
        return self.model(normalize(images, mean, std))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.preprocessing = checkpoint.get("preprocessing", self.preprocessing)

    def configure_optimizers(self) -> Any:
        """The optimizer; with reduce_on_plateau also its scheduler, the only one that has a state."""
        built = self.build_optimizer()
        if isinstance(self.config.schedule, ReduceOnPlateau):
            return {"optimizer": built, "lr_scheduler": {"scheduler": self.config.schedule.build(built)}}
        return built

    def build_optimizer(self) -> torch.optim.Optimizer:
        """A new optimizer over the network's tensors, each in exactly one group."""
        config = self.config
        return config.optimizer.build(
            self.model, lr=config.lr, momentum=self.momentum, wd=config.wd, regularization=config.regularization
        )

    def losses(
        self, logits: Tensor, labels: Tensor, averaged: bool = False, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(loss, ce): what is minimised, and the plain cross-entropy in it; both means over the batch.

        averaged: with the penalty of the average's weights. weights: of the classes, in the loss alone.
        """
        kernels = self.averaged_kernels if averaged else self.kernels
        ce = F.cross_entropy(logits, labels)
        smoothing = self.config.regularization.label_smoothing
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing) if smoothing else ce
        if weights is not None:  # as Keras: so shares of a batch add up
            each = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
            loss = (each * weights[labels]).mean()
        return (loss + penalty(kernels, self.config.l2) if self.config.l2 else loss), ce

    def batch_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A training batch's (loss, ce, number of correct answers)."""
        logits = self.model(x).float()  # the loss of mixed precision is computed in float32
        likeliest = y if y.ndim == 1 else y.argmax(1)  # of a mixture of two images
        return *self.losses(logits, y, weights=self.class_weights), (logits.argmax(1) == likeliest).sum()

    def on_train_start(self) -> None:
        self.began = True
        if world_size() > 1:
            exit_at_sigterm()
        self.cudnn_search = torch.backends.cudnn.benchmark
        self.data: ImageData = self.trainer.datamodule  # type: ignore[attr-defined]
        optimizer: Any = self.optimizers()
        self.raw_optimizer: torch.optim.Optimizer = optimizer.optimizer
        batches = DeviceBatches(self.data, self.device, (rank(), world_size()))
        most, scaler = self.config.trainer.gradient_clip, gradient_scaler(self.trainer)
        clip = None if most is None else partial(clip_gradients, list(self.model.parameters()), most, scaler)
        rho = self.config.optimizer.sam
        how = self.config.trainer.accumulate, clip, SAM(self.model, rho) if rho else None
        self.runner: EagerRunner | CudaGraphRunner
        if self.engine_name == "graph":
            scaled = ScaledOptimizer(self.raw_optimizer, scaler)
            self.step = TrainStep(batches, self.batch_loss, scaled.backward, scaled, *how)
            self.runner = CudaGraphRunner(self.step, self.model, scaled, self.lr_momentum_table)
            if self.config.model.name != "custom":  # whose code may do other things with its weights
                self.runner.fewer_launches = FewerLaunches(self.model)
        else:
            self.step = TrainStep(batches, self.batch_loss, self.manual_backward, optimizer, *how)
            self.runner = EagerRunner(self.step, self.raw_optimizer)
        if self.config.trainer.compile or self.engine_name == "compile":
            self.step.compile()

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(derive_seed(self.config.seed, self.current_epoch + 1, rank()))
        torch.backends.cudnn.benchmark = self.cudnn_search
        self.step.start_epoch(self.current_epoch + 1, self.current_epoch * self.span.steps_per_epoch)

    def training_step(self, chunk: Chunk, _: int) -> None:
        """Some steps one after the other: Lightning's batch, so that its own cost is paid once for them all."""
        for index in range(chunk.first, chunk.first + chunk.steps):
            self.one_step(index)
        if isinstance(self.step.optimizer, ScaledOptimizer):  # of a graph, which may not have been captured
            advance_global_step(self.trainer, chunk.steps)

    def one_step(self, index: int) -> None:
        """Step `index` of the epoch, from 0."""
        step, last = self.current_epoch * self.span.steps_per_epoch + index, index == self.span.steps_per_epoch - 1
        if last and index > 0:  # its shapes, and the validation's, are too rare to repay the search for algorithms
            torch.backends.cudnn.benchmark = False
        before = [p.detach().clone() for p in self.model.parameters()] if last else []
        with self.step.mark("resnetlab.step"):
            self.run_step(self.data.batch_images(index), *self.lr_momentum(step))
        for hook in self.step_hooks:
            hook()
        if last:
            change = torch._foreach_sub([p.detach() for p in self.model.parameters()], before)
            self.relative_update.copy_(get_total_norm(change) / get_total_norm(before))
        if self.average is not None:
            self.config.averaging.update(self.average, self.model, step, self.span, self.config.ema_momentum)
        waits = last or (self.device.type == "cpu" and world_size() == 1)  # for the device, to see if it has diverged
        if waits and (bad := int(all_reduce(self.step.first_nonfinite_step, "MIN"))) < TrainStep.NO_STEP:
            raise Diverged("train/loss", self.current_epoch + 1, bad)

    def run_step(self, images: int, lr: float, momentum: float) -> None:
        """One step; engine=auto goes on without a graph, from the same state, where it cannot be captured."""
        try:
            self.runner(images, lr, momentum)
            return
        except CaptureFailed as error:
            if self.config.engine == "graph":
                raise LabError(f"engine=graph: {error}; take engine=eager") from error
            self.runner, self.engine_name = EagerRunner(self.step, self.raw_optimizer), without_graph(self.config)
            self.on_fallback(f"engine={self.engine_name}, because {error}")
        self.runner(images, lr, momentum)  # when the error is gone, which holds the recording's tensors

    def lr_momentum(self, step: int) -> tuple[float, float]:
        """lr and momentum of `step` (from 0, over the whole run)."""
        lr, momentum = map(float, self.lr_momentum_table[step])
        schedule = self.config.schedule
        if isinstance(schedule, ReduceOnPlateau) and not schedule.follows_plan(step, self.span):
            group = self.raw_optimizer.param_groups[0]
            lr = float(group["lr"]) / group.get("lr_factor", 1.0)
        return lr, momentum

    def on_validation_start(self) -> None:
        self.val_metrics = EpochMetrics(self.device, self.top5, self.config.flip_tta)
        for statistics in self.model.buffers() if world_size() > 1 else ():
            torch.distributed.broadcast(statistics, 0)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.validate_batch(self.model, *batch)

    def predict_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Logits of a batch of the data module, whose images are normalized."""
        with torch.autocast(self.device.type, enabled=False):
            return self.model(batch[0])

    def validate_batch(self, network: nn.Module, x: Tensor, y: Tensor) -> None:
        """In float32 whatever the training's precision: stale batch-norm statistics can exceed float16's range."""
        with torch.autocast(x.device.type, enabled=False):
            logits = network(x)
            flipped = network(x.flip(3)) if self.config.flip_tta else None
        loss, ce = self.losses(logits, y, averaged=network is not self.model)
        self.val_metrics.update(loss, ce, logits, y, flipped)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.state.fn != "fit":
            self.log_dict(self.val_metrics.compute("test/" if self.trainer.testing else "val/"))
            return
        last_step = (self.current_epoch + 1) * self.span.steps_per_epoch - 1
        self.epoch_metrics = metrics = self.compute_metrics()
        # for callbacks of the user's own that monitor a metric
        validation = {key: value for key, value in metrics.items() if key.startswith("val/")}
        self.log_dict(validation, logger=False, batch_size=1, sync_dist=True)
        if not math.isfinite(metrics["val/loss"]):
            raise Diverged("val/loss", self.current_epoch + 1, last_step)
        if isinstance(schedule := self.config.schedule, ReduceOnPlateau) and self.current_epoch + 1 > schedule.warmup:
            self.lr_schedulers().step(metrics[schedule.monitor])  # type: ignore

    on_test_start, test_step, on_test_epoch_end = on_validation_start, validation_step, on_validation_epoch_end

    def compute_metrics(self) -> Row:
        """The epoch's metrics, over all devices: the columns of metrics.csv but for time/* and power/*."""
        lr, momentum = self.lr_momentum(self.current_epoch * self.span.steps_per_epoch)
        metrics: Row = {"epoch": self.current_epoch + 1, "lr": lr, "momentum": momentum}
        metrics |= self.step.metrics.compute("train/") | self.val_metrics.compute("val/")
        if self.config.recalibrate_bn:
            metrics |= self.validate_with_fresh_statistics(self.model, "_recal", "reestimated")
        if self.average is not None and self.averaged:
            metrics |= self.validate_with_fresh_statistics(self.average.module, "_avg", "averaged")
        weight_norm = float(get_total_norm([p.detach() for p in self.model.parameters()]))
        return metrics | {"weight_norm": weight_norm, "relative_update": float(self.relative_update)}

    @property
    def averaged(self) -> bool:
        """Whether there is an average, and weights in it."""
        return self.average is not None and int(self.average.n_averaged) > 0

    def validate_with_fresh_statistics(self, network: nn.Module, suffix: str, weights: str) -> Row:
        """The validation of `network` with re-estimated statistics, which are kept; the network's own stay."""
        data, images = self.data, self.config.trainer.recalibration_images
        inputs = data.recalibration_inputs(images, self.current_epoch + 1, self.device)
        graph = self.engine_name == "graph" and self.config.model.name != "custom"
        if graph and weights not in self.statistics_runners:
            self.statistics_runners[weights] = StatisticsRunner(network)
        with torch.no_grad(), reestimated_statistics(network, inputs, self.statistics_runners.get(weights)):
            for x, y in data.eval_batches(data.val, self.device, (rank(), world_size())):
                self.validate_batch(network, x, y)
            saved = network.state_dict().keys()  # which a buffer may be left out of
            self.statistics[weights] = {k: buffer.clone() for k, buffer in network.named_buffers() if k in saved}
        return self.val_metrics.compute("val/", suffix)
