"""The typed configuration of a run: one dataclass, its fields the keys of the command line."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from resnetlab.config.identity import LONG, SHORT, identity_of, readable_name
from resnetlab.config.trainer import LOGGERS, TRAINERS, LoggerOptions, TrainerOptions
from resnetlab.data.options import DATA, Data
from resnetlab.dotted import code_digest
from resnetlab.errors import require
from resnetlab.models.options import MODELS, Model
from resnetlab.optim.averaging import AVERAGINGS, Averaging
from resnetlab.optim.optimizers import OPTIMIZERS, Optimizer
from resnetlab.optim.regularization import REGULARIZATIONS, Regularization
from resnetlab.optim.schedules import SCHEDULES, RunLength, Schedule, schedule_table
from resnetlab.runs.files import sha256
from resnetlab.runs.layout import OUTPUTS_VARIABLE, SEED, RunFolder


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
    # what a search maximizes and seeds=auto compares: final_val_acc | best_val_acc | final_val_acc_avg | final_test_acc
    objective: str = "final_val_acc"
    threads: int | None = None  # CPU threads of torch, 1 to 1024; null: torch's default
    engine: str = "auto"  # how a step runs: eager | compile | graph | auto: graph on a CUDA device where it can be
    # evaluate also with batch-norm statistics re-estimated on training images: val/acc_recal
    recalibrate_bn: bool = False
    # validate also with the mean of the probabilities of image and mirror image: val/acc_flip, a column of its own
    flip_tta: bool = False
    init: str | None = None  # checkpoint whose weights the network begins with; null: they are drawn from the seed
    freeze: list[str] = field(default_factory=list)  # parts of the network that are not trained, as [stem,units.0]
    callbacks: list[Any] = field(default_factory=list)  # Lightning's: [my.Class, {function: my.Other, parameters: ...}]
    snapshots: list[int] = field(default_factory=list)  # epochs whose checkpoint is kept
    predictions: bool = False  # keep what the last epoch's weights answer to each validation image: predictions.npz
    # auto: go on from a copy of another run's checkpoint, up to where the two are the same run | off
    trunk: str = "off"
    force: bool = False  # train again although the run is finished

    @property
    def span(self) -> RunLength:
        """The run's length as planned, with no image read."""
        return RunLength(self.data.steps_per_epoch(self.batch_size), self.epochs)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that makes it another run than the defaults' (config/identity.py)."""
        return identity_of(self, GROUPS)

    @cached_property
    def code_digests(self) -> dict[str, str]:
        """Digests of the user's code: the source of model, optimizer and callbacks; the rates of a schedule's function.

        As float32: the last bit of a cosine on another processor makes no other schedule.
        """
        named = {group: getattr(getattr(self, group), "function", None) for group in ("model", "optimizer")}
        found = {group: code_digest(path) for group, path in named.items() if path is not None}
        if self.callbacks:
            found["callbacks"] = " ".join(code_digest(callback_of(entry)[0]) for entry in self.callbacks)
        if hasattr(self.schedule, "function"):
            rates = schedule_table(self.schedule, self.lr, 0.0, self.span)[:, 0]
            found["schedule"] = sha256(rates.astype(np.float32).tobytes())
        return found

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


def callback_of(entry: Any) -> tuple[str, Any]:
    """(dotted path, keyword arguments or None) of an entry of `callbacks`. Raises ConfigError."""
    found = {"function": entry} if isinstance(entry, str) else entry
    ok = isinstance(found, dict) and found.keys() <= {"function", "parameters"} and "function" in found
    require(ok, "callbacks", entry, "be a list of my.Class or {function: my.Class, parameters: {every: 2}}")
    return str(found["function"]), found.get("parameters")


MADE: Any = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "regularization": REGULARIZATIONS, "averaging": AVERAGINGS}
GROUPS: dict[str, dict[str, Any]] = {"model": dict(MODELS), "data": dict(DATA)}  # each option with its defaults
GROUPS |= {group: {name: option() for name, option in options.items()} for group, options in MADE.items()}
GROUPS |= {"trainer": dict(TRAINERS), "logger": dict(LOGGERS)}
