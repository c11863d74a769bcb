"""Builds the parts of a run from its configuration: module, data, trainer and callbacks."""

from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.strategies import DDPStrategy

from resnetlab.config.schema import Config
from resnetlab.config.validate import check_last_batch, own_callbacks
from resnetlab.data import ImageData
from resnetlab.dotted import error_in_one_line
from resnetlab.errors import ConfigError
from resnetlab.runs.summary import best_column
from resnetlab.training.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints, load_initial
from resnetlab.training.callbacks.energy import Energy
from resnetlab.training.callbacks.loggers import Loggers
from resnetlab.training.callbacks.profiler import Profile
from resnetlab.training.callbacks.progress import ProgressDisplay
from resnetlab.training.callbacks.recorder import Pruning, Recorder
from resnetlab.training.distributed import check_launch, is_secondary
from resnetlab.training.engine.select import steps_per_chunk
from resnetlab.training.lightning_internals import silence_lightning
from resnetlab.training.module import ImageClassifier
from resnetlab.training.result import EpochHook

# on_train_batch_end of a run that shares its process with others: sweeps/one_process.py sets it
AFTER_CHUNK: ContextVar[Callable[..., None] | None] = ContextVar("AFTER_CHUNK", default=None)


class Session(NamedTuple):
    """The parts of one run: what Lightning trains, and the callbacks that the run itself uses."""

    module: ImageClassifier
    data: ImageData
    trainer: L.Trainer
    recorder: Recorder
    loggers: Loggers
    digests: dict[str, str]  # of the images and the user's code, which decide a result and are no configuration's


def build(config: Config, data: ImageData | None = None) -> tuple[ImageClassifier, ImageData, L.Trainer]:
    """The module, the data (read, split) and a trainer whose callbacks write the run's folder; nothing is written yet.

    data: images of your own, instead of those that the configuration names; its chunk stays as it is. Their digest is
    then part of the configuration (module.config), and the folder another one. Raises ConfigError or DataError.
    """
    return build_session(config, data)[:3]


def build_session(
    config: Config, data: ImageData | None = None, epoch_hook: EpochHook | None = None, sweep: Path | None = None
) -> Session:
    """What build makes, and the callbacks. epoch_hook: may end the run, with RunPruned. sweep: the sweep's folder."""
    check_launch(config.trainer.devices)
    if data is None:
        data = ImageData(config.data, config.batch_size, config.shift, config.seed, steps_per_chunk(config))
    else:
        check_last_batch(config, len(data.train), *data.train.pixels.shape[2:])
        found, named = data.digest(), config.data.digest
        if found not in (data.source_digest, named):
            if named is not None:
                raise ConfigError(f"data.digest (={named}) is not that of the images handed in, which is {found}")
            config = replace(config, data=replace(config.data, digest=found))
    module, folder = build_module(config, data), config.folder
    images = config.data.digest or data.source_digest
    digests = ({} if images is None else {"images": images}) | config.code_digests
    energy = Energy()
    recorder = Recorder(folder, energy, config.trainer.patience, best_column(config))
    loggers = Loggers(config, recorder, sweep)
    callbacks = [
        energy,
        recorder,
        ProgressDisplay("off" if is_secondary() else config.trainer.progress, recorder, folder),
        loggers,
        *([Profile(folder, config.trainer.profile)] if config.trainer.profile else []),
        *own_callbacks(config),
        Checkpoints(recorder, config, digests),
        *([Pruning(recorder, epoch_hook)] if epoch_hook is not None else []),
        *([LambdaCallback(on_train_batch_end=after)] if (after := AFTER_CHUNK.get()) is not None else []),
    ]
    return Session(module, data, build_trainer(config, callbacks), recorder, loggers, digests)


def build_trainer(config: Config, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's Trainer, without what the callbacks do themselves."""
    devices = config.trainer.devices
    # Lightning (2.6.6) would detect SLURM by itself, and refuse one device in an allocation of two tasks
    environment = TorchElasticEnvironment() if devices > 1 else LightningEnvironment()
    guard = error_in_one_line("callbacks", str(config.callbacks), "go with each other and the lab's:")
    with silence_lightning(), guard if config.callbacks else nullcontext():
        return L.Trainer(
            accelerator=config.trainer.resolved_accelerator,
            devices=devices,
            strategy=DDPStrategy() if devices > 1 else "auto",
            precision=config.trainer.resolved_precision,  # type: ignore[arg-type]
            max_epochs=config.epochs,
            benchmark=True,
            logger=False,  # callbacks/loggers.py opens them when training begins
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(), environment],
            num_sanity_val_steps=0,
            log_every_n_steps=1,  # nothing is logged in a step; a larger value warns about short epochs
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )


def build_module(config: Config, data: ImageData) -> ImageClassifier:
    """The LightningModule, its weights drawn from (seed, epoch 0). Raises DataError for labels without a class."""
    data.setup()
    data.check_labels()
    module = ImageClassifier(config, data.steps_per_epoch, len(data.class_names))
    if config.init is not None:
        module.drawn = load_initial(module.model, config, len(data.class_names))
    module.preprocessing = data.preprocessing()
    module.class_weights = data.class_weights()
    return module
