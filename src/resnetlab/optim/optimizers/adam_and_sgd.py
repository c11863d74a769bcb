"""Options that are made of torch's classes: Adam, AdamW, RAdam and NAdam, SGD, and an optimizer of the user's.

`adam` and `adamw` are one algorithm here, on purpose: in Keras Adam(weight_decay=x) is AdamW(weight_decay=x), and what
tells the published "Adam" runs from the "AdamW" runs is the regularization beside them (l2, weight_decay, or both).
regularization=coupled is torch's Adam(weight_decay), where the decay passes through the division by sqrt(v).

eps: Keras' 1e-7 (torch: 1e-8). Keras adds it to sqrt(v) before the bias correction (the "epsilon hat" of Kingma & Ba,
end of section 2), torch after it; Keras' step t is torch's with eps / sqrt(1 - beta2^t): 3.2e-6 at t = 1, 1e-7 in the
end (measured: docs/decisions.md).

SGD has torch's momentum, v = momentum*v + g; w -= lr*v. Keras keeps the lr inside, m = momentum*m - lr*g; w += m. The
two agree while the lr is constant; when it changes (1cycle!), torch's applies the new lr at once to the whole of v,
Keras' only to the new gradient.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from resnetlab.dotted import call
from resnetlab.errors import require
from resnetlab.optim.optimizers.base import Groups, Optimizer, adam_update, fused_or_default, sgd_update

# torch wraps step() of every optimizer class at its first use, to run the step hooks; the inner step is taken without,
# or hooks would run twice.
_adam_step, _sgd_step = inspect.unwrap(torch.optim.Adam.step), inspect.unwrap(torch.optim.SGD.step)


@dataclass
class _AdamKin(Optimizer):
    beta2: float = 0.999  # decay of the mean squared gradient per step, in [0, 1)
    eps: float = 1e-7  # added to the root of the mean squared gradient

    def keywords(self, lr: float, momentum: float, decoupled: bool) -> dict[str, Any]:
        """Arguments of torch's constructors that all of them have."""
        return {"lr": lr, "betas": (momentum, self.beta2), "eps": self.eps, "decoupled_weight_decay": decoupled}


class TensorAdam(torch.optim.Adam):
    """torch's Adam, with an update of our own where beta1 is a tensor that a captured graph reads at each step."""

    def create_state(self) -> None:
        """Creates the state that the first step would create."""
        for p in (p for group in self.param_groups for p in group["params"]):
            state = self.state[p]
            if not state:
                state.update({key: torch.zeros_like(p, requires_grad=False) for key in ("exp_avg", "exp_avg_sq")})
            state["step"] = state.get("step", torch.zeros(())).to(p.device, torch.float32)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; returns the closure's loss."""
        if not any(isinstance(group["betas"][0], Tensor) for group in self.param_groups):
            return _adam_step(self, closure)
        assert closure is None
        for group in self.param_groups:
            if weights := [p for p in group["params"] if p.grad is not None]:
                adam_update(self, group, weights)
        return None


@dataclass
class Adam(_AdamKin):
    """Adam (Kingma & Ba, arXiv:1412.6980), decayed as the regularization says."""

    name: str = "adam"
    fused: bool | None = None  # one kernel for all tensors: true | false; null: where torch has it for the device

    capturable: ClassVar[bool] = True

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        fused = fused_or_default(self.fused, groups)
        return TensorAdam(groups, fused=fused, **self.keywords(lr, momentum, decoupled))


@dataclass
class AdamW(Adam):
    """The same as Adam: with regularization=weight_decay, AdamW (arXiv:1711.05101), torch's to the bit."""

    name: str = "adamw"


@dataclass
class RAdam(_AdamKin):
    """RAdam (Liu et al., arXiv:1908.03265): Adam whose first five steps, with beta2 = 0.999, are plain momentum."""

    name: str = "radam"

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        return torch.optim.RAdam(groups, **self.keywords(lr, momentum, decoupled))


@dataclass
class NAdam(_AdamKin):
    """NAdam (Dozat 2016): Adam with Nesterov's look-ahead. Keras' Nadam is momentum_decay=1."""

    name: str = "nadam"
    momentum_decay: float = 4e-3  # d in beta1 = momentum * (1 - 0.96^(t*d) / 2) at step t; at least 0

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        keywords = self.keywords(lr, momentum, decoupled)
        return torch.optim.NAdam(groups, momentum_decay=self.momentum_decay, **keywords)


class DecoupledSGD(torch.optim.SGD):
    """torch's SGD that first does w -= lr*decoupled_wd*w, a key of each group.

    Inside step(), after the closure, so that whatever skips the step skips the decay. A fused step is never skipped:
    GradScaler hands it `found_inf`, a tensor on the device, and where it is 1 the decay's factor is 1.
    The momentum buffers begin as zeros (the same first step): torch's fused step makes them of unset memory, and leaves
    them so if the first gradients overflow, as they do with the scaler's initial scale.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; returns the closure's loss."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            self._start(group)
        decay_decoupled(self)
        if not any(isinstance(group["momentum"], Tensor) for group in self.param_groups):
            _sgd_step(self)
            return loss
        for group in self.param_groups:
            if weights := [p for p in group["params"] if p.grad is not None]:
                sgd_update(self, group, weights)
        return loss

    def create_state(self) -> None:
        """Creates the state that the first step would create."""
        for group in self.param_groups:
            self._start(group, everywhere=True)

    def _start(self, group: dict[str, Any], everywhere: bool = False) -> None:
        used = isinstance(group["momentum"], Tensor) or group["momentum"]
        for p in group["params"] if used else ():
            if (everywhere or p.grad is not None) and self.state[p].get("momentum_buffer") is None:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p, requires_grad=False)


@torch.no_grad()
def decay_decoupled(optimizer: torch.optim.Optimizer) -> None:
    """w -= lr*decoupled_wd*w, a key of each group, where a step is not to be skipped (a fused one's found_inf is 1)."""
    found_inf = getattr(optimizer, "found_inf", None)
    for group in optimizer.param_groups:
        weights = [p for p in group["params"] if p.grad is not None]
        if weights and group["decoupled_wd"]:
            factor = 1 - group["lr"] * group["decoupled_wd"]
            torch._foreach_mul_(weights, factor if found_inf is None else torch.where(found_inf > 0, 1.0, factor))


@dataclass
class SGD(Optimizer):
    """SGD with momentum (0.9)."""

    name: str = "sgd"
    nesterov: bool = False  # step by g + momentum*v instead of v
    fused: bool | None = None  # one kernel for all tensors: true | false; null: where torch has it for the device

    capturable: ClassVar[bool] = True

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        require(momentum > 0 or not self.nesterov, "momentum", momentum, "be above 0 with optimizer.nesterov=true")
        key = "decoupled_wd" if decoupled else "weight_decay"
        groups = [group | {"weight_decay": 0.0, "decoupled_wd": 0.0, key: group["weight_decay"]} for group in groups]
        fused = fused_or_default(self.fused, groups)
        return DecoupledSGD(groups, lr=lr, momentum=momentum, nesterov=self.nesterov, fused=fused)


@dataclass
class CustomOptimizer(Optimizer):
    """An optimizer of the user's: function(groups, lr=lr, **parameters), whose step needs no closure.

    A decoupled decay is made here before its step, a coupled one is its own weight_decay; momentum is its own or beta1.
    """

    name: str = "custom"
    function: str = "???"  # dotted path of the class or function, such as torch.optim.RMSprop; must be given
    parameters: Any = None  # its other keyword arguments, such as 'optimizer.parameters={alpha: 0.9}'; null: none

    def check(self) -> None:
        """Raises ConfigError unless it can be made, for one weight."""
        super().check()
        self._make([{"params": [nn.Parameter(torch.ones(2, 2))], "weight_decay": 0.0}], 1e-3, 0.9, True)

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        key, parameters = "decoupled_wd" if decoupled else "weight_decay", self.parameters
        groups = [group | {"weight_decay": 0.0, "decoupled_wd": 0.0, key: group["weight_decay"]} for group in groups]
        made = call("optimizer.function", self.function, parameters, torch.optim.Optimizer, groups, lr=lr)
        twice = {"weight_decay", "momentum"} & {*(parameters or {})}
        require(not twice, "optimizer.parameters", parameters, "be without wd and momentum, which are top-level keys")
        must = "have a weight_decay of its own with regularization=coupled; take regularization=weight_decay"
        own_decay = decoupled or key in made.defaults or not any(group["weight_decay"] for group in groups)
        require(own_decay, "optimizer.function", self.function, must)
        taken = inspect.signature(made.step).parameters.values()  # Lightning passes a closure by name
        fits = any(p.kind is p.VAR_KEYWORD or (p.name == "closure" and p.default is not p.empty) for p in taken)
        require(fits, "optimizer.function", self.function, "have a step(closure=None), as torch's have")
        made.register_step_pre_hook(lambda optimizer, *_: decay_decoupled(optimizer))
        return made
