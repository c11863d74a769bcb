"""Builds the parts of a run from its configuration: module, data, trainer and callbacks."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from numpy.typing import NDArray

from resnetlab.config.compose import to_plain
from resnetlab.config.schema import Config
from resnetlab.data import ImageData, derive_seed
from resnetlab.optim.schedules import RunLength
from resnetlab.runs.layout import RunFolder
from resnetlab.training.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from resnetlab.training.callbacks.energy import Energy
from resnetlab.training.callbacks.profiler import Profile
from resnetlab.training.callbacks.progress import ProgressDisplay
from resnetlab.training.callbacks.recorder import Pruning, Recorder
from resnetlab.training.callbacks.tensorboard import TensorBoardPages, hyperparameters
from resnetlab.training.distributed import check_launch, is_secondary
from resnetlab.training.engine import select_engine
from resnetlab.training.module import ImageClassifier, lr_momentum_table
from resnetlab.training.result import EpochHook

GRAPH_CHUNK = 50  # steps in a batch of Lightning's with engine=graph, whose steps are short beside its cost
CHATTY = ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.distributed")


class Session(NamedTuple):
    """The parts of one run: what Lightning trains, and the callbacks that the run itself uses."""

    module: ImageClassifier
    data: ImageData
    trainer: L.Trainer
    recorder: Recorder
    tensorboard: TensorBoardPages


def build(config: Config, data: ImageData | None = None) -> tuple[ImageClassifier, ImageData, L.Trainer]:
    """The module, the data (read, split) and a trainer whose callbacks write the run's folder; nothing is written yet.

    data: images of your own, instead of those that the configuration names; its chunk stays as it is. Raises
    ConfigError or DataError.
    """
    session = build_session(config, data)
    return session.module, session.data, session.trainer


def build_session(config: Config, data: ImageData | None = None, epoch_hook: EpochHook | None = None) -> Session:
    """The same, with the callbacks. epoch_hook: may end the run after an epoch, with RunPruned."""
    check_launch(config.trainer.devices)
    data = data or ImageData(config.data, config.batch_size, config.shift, config.seed, steps_per_chunk(config))
    module = build_module(config, data)
    folder = config.folder
    energy = Energy()
    recorder = Recorder(folder, energy, config.trainer.patience)
    tensorboard = TensorBoardPages(hyperparameters(config))
    callbacks = [
        energy,
        recorder,
        ProgressDisplay("off" if is_secondary() else config.trainer.progress, recorder, folder),
        tensorboard,
        *([Profile(folder, config.trainer.profile)] if config.trainer.profile else []),
        *([Pruning(recorder, epoch_hook)] if epoch_hook is not None else []),
        Checkpoints(folder, recorder, to_plain(config), config.snapshots),
    ]
    return Session(module, data, build_trainer(config, folder, callbacks), recorder, tensorboard)


def build_trainer(config: Config, folder: RunFolder, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's Trainer, without what the callbacks do themselves."""
    devices = config.trainer.devices
    with silence_lightning():
        return L.Trainer(
            accelerator=config.trainer.resolved_accelerator,
            devices=devices,
            strategy=DDPStrategy() if devices > 1 else "auto",
            precision=config.trainer.resolved_precision,  # type: ignore[arg-type]
            max_epochs=config.epochs,
            benchmark=True,
            logger=TensorBoardLogger(folder.path, name="", version="", default_hp_metric=False),
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(keep_previous={folder.last}), rank_environment(devices)],
            num_sanity_val_steps=0,
            log_every_n_steps=1,  # nothing is logged in a step; a larger value warns about short epochs
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )


def rank_environment(devices: int) -> ClusterEnvironment:
    """Lightning's plugin that reads a process's rank: torchrun's for several devices, else no cluster's.

    Lightning (2.6.6) would detect SLURM by itself, and refuse one device in an allocation of two tasks.
    """
    return TorchElasticEnvironment() if devices > 1 else LightningEnvironment()


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
        engine=choose_engine(config)[0],
    )


def choose_engine(config: Config) -> tuple[str, str | None]:
    """(eager | compile | graph, a remark on the choice or None)."""
    trainer = config.trainer
    return select_engine(config.engine, trainer.device, trainer.devices, config.optimizer, config.schedule)


def steps_per_chunk(config: Config) -> int:
    """The steps in a batch of Lightning's."""
    return config.trainer.chunk or (GRAPH_CHUNK if choose_engine(config)[0] == "graph" else 1)


def planned_lr_momentum(config: Config) -> tuple[RunLength, NDArray[np.float64]]:
    """The run's length and its (steps, 2) table of lr and momentum, with no image read."""
    span = RunLength(config.data.steps_per_epoch(config.batch_size), config.epochs)
    return span, lr_momentum_table(config.schedule, config.averaging, config.lr, base_momentum(config), span)


def base_momentum(config: Config) -> float:
    return config.optimizer.default_momentum if config.momentum is None else config.momentum


@contextmanager
def silence_lightning() -> Iterator[None]:
    """Hides Lightning's advertisements, and torch 2.15's warning about a class that Lightning 2.6.6 uses inside."""
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
