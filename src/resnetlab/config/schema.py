"""The typed configuration of a run: one dataclass, its fields the keys of the command line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from resnetlab.config.identity import LONG, SHORT, identity_of, readable_name
from resnetlab.config.logger import LOGGERS, LoggerOptions
from resnetlab.config.trainer import TRAINERS, TrainerOptions
from resnetlab.data import SOURCES, Data
from resnetlab.data.own_images import OWN
from resnetlab.models.options import MODELS, Model
from resnetlab.optim.averaging import AVERAGINGS, Averaging
from resnetlab.optim.optimizers import OPTIMIZERS, Optimizer
from resnetlab.optim.regularization import REGULARIZATIONS, Regularization
from resnetlab.optim.schedules import SCHEDULES, Schedule
from resnetlab.runs.layout import OUTPUTS_VARIABLE, SEED, RunFolder

OBJECTIVES = ("final_val_acc", "best_val_acc", "final_val_acc_avg", "final_test_acc")


@dataclass
class Config:
    """One run. Null for wd, l2, momentum and ema_momentum means the default of the option that uses them.

    Treat it as immutable: identity, name and folder are computed at first use; dataclasses.replace makes another.
    """

    model: Model
    data: Data
    optimizer: Optimizer
    schedule: Schedule
    regularization: Regularization
    averaging: Averaging
    trainer: TrainerOptions
    logger: LoggerOptions
    study: str = "default"  # name of the folder below outputs/ that the run belongs to
    # folder of all studies; by default that of the environment variable RESNETLAB_OUTPUTS, or outputs
    outputs: str = f"${{oc.env:{OUTPUTS_VARIABLE},outputs}}"
    seed: int = 0  # of the weights, the order of the images and the augmentation
    epochs: int = 60  # length of the run
    batch_size: int = 64  # training images per step
    lr: float = 8e-4  # learning rate, which the schedule multiplies by its factor
    wd: float | None = None  # weight decay, where the regularization has one; null: the regularization's default
    l2: float | None = None  # factor of the L2 penalty, where the regularization has one; null: its default
    momentum: float | None = None  # SGD's momentum or Adam's beta1, in [0, 1); null: the optimizer's
    ema_momentum: float | None = None  # of averaging=ema, in [0, 1); null: 0.99
    shift: float = 0.07  # largest random shift of the images, a fraction of their side in [0, 0.5]
    # validation accuracies in (0, 1); the first epoch that reaches each is reported: epoch_to_0.92
    thresholds: list[float] = field(default_factory=lambda: [0.92, 0.93])
    # what a search maximizes: final_val_acc | best_val_acc | final_val_acc_avg | final_test_acc
    objective: str = "final_val_acc"
    threads: int | None = None  # CPU threads of torch, 1 to 1024; null: torch's default
    engine: str = "auto"  # how a step runs: eager | compile | graph | auto: graph on a CUDA device where it can be
    # evaluate also with batch-norm statistics re-estimated on training images: val/acc_recal
    recalibrate_bn: bool = False
    init: str | None = None  # checkpoint whose weights the network begins with; null: they are drawn from the seed
    freeze: list[str] = field(default_factory=list)  # parts of the network that are not trained, as [stem,units.0]
    snapshots: list[int] = field(default_factory=list)  # epochs whose checkpoint is kept
    # auto: go on from a copy of another run's checkpoint, up to where the two are the same run | off
    trunk: str = "off"
    force: bool = False  # train again although the run is finished

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that makes it another run than the defaults' (config/identity.py)."""
        return identity_of(self, GROUPS)

    @cached_property
    def long_name(self) -> str:
        """The name with more digits of the same hash: of 8 digits, two configurations may share a folder."""
        return readable_name(self, self.identity)

    @property
    def name(self) -> str:
        """For example resnet56v2-cifar10-adamw-piecewise_linear-weight_decay-wd0.1-3f9a2c71."""
        return self.long_name[: SHORT - LONG]

    @property
    def study_folder(self) -> Path:
        return Path(self.outputs) / self.study

    @cached_property
    def folder(self) -> RunFolder:
        """outputs/<study>/<long name>/seed=<n> below the current folder; with the name if an older version made it."""
        older = self.study_folder / self.name
        folder = older if older.is_dir() else older.with_name(self.long_name)
        return RunFolder(folder / f"{SEED}{self.seed}")


def _instances(options: Mapping[str, type]) -> dict[str, Any]:
    return {name: option() for name, option in options.items()}


GROUPS: dict[str, dict[str, Any]] = {  # each option with its defaults
    "model": dict(MODELS),
    "data": {name: Data(name=name) for name in (*SOURCES, *OWN)},
    "optimizer": _instances(OPTIMIZERS),
    "schedule": _instances(SCHEDULES),
    "regularization": _instances(REGULARIZATIONS),
    "averaging": _instances(AVERAGINGS),
    "trainer": dict(TRAINERS),
    "logger": dict(LOGGERS),
}
