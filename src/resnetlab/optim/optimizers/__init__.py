"""The optimizers: adam, adamw, sgd, radam, nadam, muon, custom. Each is one dataclass, config and builder in one."""

from resnetlab.optim.optimizers.adam_and_sgd import SGD, Adam, AdamW, CustomOptimizer, NAdam, RAdam
from resnetlab.optim.optimizers.base import Optimizer, check_pair
from resnetlab.optim.optimizers.muon import Muon

__all__ = ["OPTIMIZERS", "Optimizer", "check_pair"]

_CLASSES: list[type[Optimizer]] = [Adam, AdamW, SGD, RAdam, NAdam, Muon, CustomOptimizer]
OPTIMIZERS = {cls.name: cls for cls in _CLASSES}
