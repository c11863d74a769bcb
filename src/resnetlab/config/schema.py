"""The schema: one dataclass a group, its fields the keys of the command line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from resnetlab.config.trainer import TRAINERS, TrainerOptions
from resnetlab.data import SOURCES, Data
from resnetlab.models.options import MODELS, Model
from resnetlab.optim.averaging import AVERAGINGS, Averaging
from resnetlab.optim.optimizers import OPTIMIZERS, Optimizer
from resnetlab.optim.regularization import REGULARIZATIONS, Regularization
from resnetlab.optim.schedules import SCHEDULES, Schedule

OBJECTIVES = ("final_val_acc", "best_val_acc", "final_val_acc_avg", "final_test_acc")


@dataclass
class Config:
    """One run. Null for wd, l2, momentum and ema_momentum means the default of the option that uses them."""

    model: Model = MISSING
    data: Data = MISSING
    optimizer: Optimizer = MISSING
    schedule: Schedule = MISSING
    regularization: Regularization = MISSING
    averaging: Averaging = MISSING
    trainer: TrainerOptions = MISSING
    study: str = "default"
    seed: int = 0
    epochs: int = 60
    batch_size: int = 64
    lr: float = 8e-4
    wd: float | None = None
    l2: float | None = None
    momentum: float | None = None
    ema_momentum: float | None = None
    shift: float = 0.07
    thresholds: list[float] = field(default_factory=lambda: [0.92, 0.93])
    objective: str = "final_val_acc"
    threads: int | None = None
    engine: str = "auto"  # how the step is run: eager | compile | graph; auto: graph on a CUDA device, where it can be
    recalibrate_bn: bool = False
    snapshots: list[int] = field(default_factory=list)  # epochs whose checkpoint is kept
    force: bool = False


GROUPS: dict[str, dict[str, Any]] = {
    "model": MODELS,
    "data": {name: Data(name=name) for name in SOURCES},
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "regularization": REGULARIZATIONS,
    "averaging": AVERAGINGS,
    "trainer": TRAINERS,
}


def register() -> None:
    """Stores the schemas under schema/, where they do not show up among a group's options."""
    store = ConfigStore.instance().store
    store(name="lab_schema", node=Config)
    for group, options in GROUPS.items():
        for name, node in options.items():
            store(group=f"schema/{group}", name=name, node=node)


register()


def conf_dir() -> Path:
    """The folder of the configuration files: inside an installed wheel, or beside src/ in a clone."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "conf"
