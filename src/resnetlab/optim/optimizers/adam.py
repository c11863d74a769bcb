"""Adam, AdamW, RAdam and NAdam.

`adam` and `adamw` are one algorithm here, on purpose: in Keras Adam(weight_decay=x) is AdamW(weight_decay=x), and what
tells the published "Adam" runs from the "AdamW" runs is the regularization beside them (l2, weight_decay, or both).
regularization=coupled is torch's Adam(weight_decay), where the decay passes through the division by sqrt(v).

eps: Keras' 1e-7 (torch: 1e-8). Keras adds it to sqrt(v) before the bias correction (the "epsilon hat" of Kingma & Ba,
end of section 2), torch after it; Keras' step t is torch's with eps / sqrt(1 - beta2^t): 3.2e-6 at t = 1, 1e-7 in the
end. Measured with a constant 1e-7 (tests/training/test_parity.py): losses of about 2 differ from Keras' by up to 3e-3
within six steps, with the corrected one by 9e-5.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from resnetlab.optim.optimizers.base import Groups, Optimizer, adam_update, check_range, fused_or_default

_plain_step = inspect.unwrap(torch.optim.Adam.step)  # torch wraps step() of every class to run its hooks, once


@dataclass
class _AdamKin(Optimizer):
    beta2: float = 0.999  # decay of the mean squared gradient per step, in [0, 1)
    eps: float = 1e-7  # added to the root of the mean squared gradient

    def check(self) -> None:
        check_range("optimizer.beta2", self.beta2, least=0.0, below=1.0)
        check_range("optimizer.eps", self.eps, above=0.0)

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
            return _plain_step(self, closure)
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

    def check(self) -> None:
        super().check()
        check_range("optimizer.momentum_decay", self.momentum_decay, least=0.0)

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        keywords = self.keywords(lr, momentum, decoupled)
        return torch.optim.NAdam(groups, momentum_decay=self.momentum_decay, **keywords)
