"""The optimizers: adam, adamw, sgd, radam, nadam, muon. Each is one dataclass, its config and its builder in one."""

from resnetlab.optimizers.adam import Adam, AdamW, NAdam, RAdam
from resnetlab.optimizers.base import (
    REFUSED,
    Optimizer,
    check_pair,
    group_counts,
    on_the_device,
    on_the_host,
    set_lr_momentum,
)
from resnetlab.optimizers.muon import Muon
from resnetlab.optimizers.sgd import SGD

__all__ = [
    "OPTIMIZERS",
    "REFUSED",
    "SGD",
    "Adam",
    "AdamW",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "check_pair",
    "group_counts",
    "on_the_device",
    "on_the_host",
    "set_lr_momentum",
]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "sgd": SGD,
    "radam": RAdam,
    "nadam": NAdam,
    "muon": Muon,
}
