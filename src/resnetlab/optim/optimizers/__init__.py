"""The optimizers: adam, adamw, sgd, radam, nadam, muon, custom. Each is one dataclass, config and builder in one."""

from resnetlab.optim.optimizers.adam import Adam, AdamW, NAdam, RAdam
from resnetlab.optim.optimizers.base import (
    REFUSED,
    Optimizer,
    check_pair,
    group_counts,
    make_capturable,
    make_eager,
    set_lr_momentum,
)
from resnetlab.optim.optimizers.muon import Muon
from resnetlab.optim.optimizers.sgd import SGD, CustomOptimizer

__all__ = [
    "OPTIMIZERS",
    "REFUSED",
    "SGD",
    "Adam",
    "Optimizer",
    "check_pair",
    "group_counts",
    "make_capturable",
    "make_eager",
    "set_lr_momentum",
]

_CLASSES: list[type[Optimizer]] = [Adam, AdamW, SGD, RAdam, NAdam, Muon, CustomOptimizer]
OPTIMIZERS = {cls.name: cls for cls in _CLASSES}
