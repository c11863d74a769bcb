"""An optimizer of the user's, by the dotted path of its class."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from resnetlab.dotted import call, check_parameters, error_in_one_line, import_callable
from resnetlab.errors import require
from resnetlab.optim.optimizers.base import Groups, Optimizer, decay_decoupled, split_decay


@dataclass
class CustomOptimizer(Optimizer):
    """An optimizer of the user's: function(groups, lr=lr, **parameters), whose step needs no closure.

    A decoupled decay is made here before its step, a coupled one is its own weight_decay. The top-level momentum is its
    momentum or the first of its betas, if it has them.
    """

    name: str = "custom"
    function: str = "???"  # dotted path of the class or function, such as torch.optim.RMSprop; must be given
    parameters: Any = None  # its other keyword arguments, such as 'optimizer.parameters={alpha: 0.9}'; null: none

    def check(self) -> None:
        """Raises ConfigError unless it makes a step on one weight."""
        check_parameters("optimizer", self.parameters, {"lr", "weight_decay", "momentum"})
        weight = nn.Parameter(torch.ones(2, 2))
        optimizer: Any = self._make([{"name": "all", "params": [weight], "weight_decay": 0.0}], 1e-3, 0.9, True)
        weight.grad = torch.ones_like(weight)
        with error_in_one_line("optimizer.function", self.function, "make a step, without a closure"):
            optimizer.step(closure=lambda: None)  # as Lightning calls it

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        key, names = "optimizer.function", import_callable("optimizer.function", self.function, "class or function")[1]
        keywords = {"lr": lr} | ({"momentum": momentum} if "momentum" in names else {}) | (self.parameters or {})
        made = call(key, self.function, torch.optim.Optimizer, split_decay(groups, decoupled), **keywords)
        own_decay = decoupled or "weight_decay" in made.defaults or not any(group["weight_decay"] for group in groups)
        must = "have a weight_decay of its own with regularization=coupled; take regularization=weight_decay"
        require(own_decay, key, self.function, must)
        for group in made.param_groups:
            if "betas" not in group:
                group.setdefault("momentum", momentum)  # or it could not be set at each step, used or not
        made.register_step_pre_hook(lambda optimizer, *_: decay_decoupled(optimizer))
        return made
