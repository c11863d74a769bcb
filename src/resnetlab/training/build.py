"""Builds the parts of a run from its configuration: module, data and trainer."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray

from resnetlab.config.compose import to_plain
from resnetlab.config.identity import run_folder
from resnetlab.config.schema import Config
from resnetlab.data import ImageData, derive_seed
from resnetlab.optim.schedules import RunLength
from resnetlab.training.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from resnetlab.training.callbacks.energy import Energy
from resnetlab.training.callbacks.profiler import Profile
from resnetlab.training.callbacks.progress import ProgressDisplay
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.callbacks.tensorboard import TensorBoardPages
from resnetlab.training.distributed import is_secondary, local_environment, strategy
from resnetlab.training.engine import select_engine
from resnetlab.training.module import ImageClassifier, lr_momentum_table

CHATTY = ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.distributed")


def build(config: Config, data: ImageData | None = None) -> tuple[ImageClassifier, ImageData, L.Trainer]:
    """The module, the data (read, split) and a trainer whose callbacks write the run's folder; nothing is written yet.

    data: images of your own, instead of those that the configuration names. Raises ConfigError or DataError.
    """
    data = data or ImageData(config.data, config.batch_size, config.shift, config.seed)
    data.chunk = config.trainer.chunk or (50 if engine_of(config)[0] == "graph" else 1)
    module = build_module(config, data)
    folder = run_folder(config)
    recorder = Recorder(folder, config.trainer.patience)
    with silence_lightning():
        trainer = L.Trainer(
            accelerator=config.trainer.resolved_accelerator,
            **strategy(config.trainer.devices),
            precision=config.trainer.resolved_precision,  # type: ignore[arg-type]
            max_epochs=config.epochs,
            benchmark=True,
            logger=TensorBoardLogger(folder.path, name="", version="", default_hp_metric=False),
            callbacks=[
                Energy(),
                recorder,
                ProgressDisplay("off" if is_secondary() else config.trainer.progress, recorder, folder),
                TensorBoardPages(hyperparameters(config)),
                *([Profile(folder, config.trainer.profile)] if config.trainer.profile else []),
                Checkpoints(folder, recorder, to_plain(config), config.snapshots),
            ],
            plugins=[AtomicCheckpointIO(keep_previous={folder.last}), local_environment()],
            num_sanity_val_steps=0,
            log_every_n_steps=1,  # nothing is logged in a step; a larger value warns about short epochs
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    return module, data, trainer


def build_module(config: Config, data: ImageData) -> ImageClassifier:
    """The LightningModule alone, its weights drawn from (seed, epoch 0)."""
    span = RunLength(data.steps_per_epoch, config.epochs)
    generator = torch.Generator().manual_seed(derive_seed(config.seed, 0))
    model = config.model.build(len(data.class_names), generator)
    if config.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return ImageClassifier(
        model,
        config.optimizer,
        config.schedule,
        config.regularization,
        config.averaging,
        classes=len(data.class_names),
        span=span,
        lr=config.lr,
        momentum=base_momentum(config),
        wd=config.wd,
        l2=config.l2,
        seed=config.seed,
        ema_momentum=config.ema_momentum,
        recalibrate=config.recalibrate_bn,
        recalibration_images=config.trainer.recalibration_images,
        engine=engine_of(config)[0],
    )


def engine_of(config: Config) -> tuple[str, str | None]:
    """(the engine that the run has, what has to be said about it)."""
    trainer = config.trainer
    return select_engine(config.engine, trainer.device, trainer.devices, config.optimizer, config.schedule)


def planned_lr_momentum(config: Config) -> tuple[RunLength, NDArray[np.float64]]:
    """The run's span and its (steps, 2) table of lr and momentum, with no image read."""
    span = RunLength(config.data.steps_per_epoch(config.batch_size), config.epochs)
    return span, lr_momentum_table(config.schedule, config.averaging, config.lr, base_momentum(config), span)


def base_momentum(config: Config) -> float:
    return config.optimizer.default_momentum if config.momentum is None else config.momentum


def hyperparameters(config: Config) -> dict[str, Any]:
    """The choices and top-level values, for TensorBoard's hparams tab."""
    keys = ("seed", "epochs", "batch_size", "lr", "wd", "l2", "momentum", "ema_momentum", "shift")
    groups = ("model", "data", "optimizer", "schedule", "regularization", "averaging")
    return {group: getattr(config, group).name for group in groups} | {key: getattr(config, key) for key in keys}


@contextmanager
def silence_lightning() -> Iterator[None]:
    """Without Lightning's advertisements, and without one warning of torch 2.15 about Lightning 2.6's own internals."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
