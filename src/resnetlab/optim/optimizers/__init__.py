"""The optimizers: adam, adamw, sgd, radam, nadam, muon, custom. Each is one dataclass, config and builder in one."""

from resnetlab.optim.optimizers.adam import Adam, AdamW, NAdam, RAdam
from resnetlab.optim.optimizers.base import Optimizer, check_pair
from resnetlab.optim.optimizers.muon import Muon
from resnetlab.optim.optimizers.sgd import SGD, CustomOptimizer

__all__ = ["OPTIMIZERS", "Optimizer", "check_pair"]

_CLASSES: list[type[Optimizer]] = [Adam, AdamW, SGD, RAdam, NAdam, Muon, CustomOptimizer]
OPTIMIZERS = {cls.name: cls for cls in _CLASSES}
