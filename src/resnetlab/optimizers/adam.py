"""Adam and its kin.

`adam` and `adamw` are one algorithm here, on purpose: in Keras Adam(weight_decay=x) is AdamW(weight_decay=x), and what
tells the published "Adam" runs from the "AdamW" runs is the regularization beside them (l2, weight_decay, or both).
regularization=coupled is torch's Adam(weight_decay), where the decay passes through the division by sqrt(v).

eps: Keras' 1e-7 (torch: 1e-8). Keras adds it to sqrt(v) before the bias correction (the "epsilon hat" of Kingma & Ba,
end of section 2), torch after it; Keras' step t is torch's with eps / sqrt(1 - beta2^t): 3.2e-6 at t = 1, 1e-7 in the
end. Measured with a constant 1e-7 (tests/test_parity.py): losses of about 2 differ from Keras' by up to 3e-3 within
six steps, with the corrected one by 9e-5.
"""

from dataclasses import dataclass

import torch

from resnetlab.optimizers.base import Groups, Optimizer, check_range, fused_or_default

__all__ = ["Adam", "AdamW", "NAdam", "RAdam"]


@dataclass
class _AdamKin(Optimizer):
    beta2: float = 0.999
    eps: float = 1e-7

    def check(self) -> None:
        """Raises ConfigError unless beta2 is in [0, 1) and eps positive."""
        check_range("optimizer.beta2", self.beta2, least=0.0, below=1.0)
        check_range("optimizer.eps", self.eps, above=0.0)


@dataclass
class Adam(_AdamKin):
    """Adam (Kingma & Ba, arXiv:1412.6980), decayed as the regularization says.

    fused: one kernel for all tensors; null = where torch supports it for the parameters' device (the CPU too).
    """

    name: str = "adam"
    fused: bool | None = None

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            groups,
            lr=lr,
            betas=(momentum, self.beta2),
            eps=self.eps,
            fused=fused_or_default(self.fused, groups),
            decoupled_weight_decay=decoupled,
        )


@dataclass
class AdamW(Adam):
    """The same as Adam: with regularization=weight_decay, AdamW (arXiv:1711.05101), torch's to the bit."""

    name: str = "adamw"


@dataclass
class RAdam(_AdamKin):
    """RAdam (Liu et al., arXiv:1908.03265): Adam whose first five steps, with beta2 = 0.999, are plain momentum."""

    name: str = "radam"

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        betas = (momentum, self.beta2)
        return torch.optim.RAdam(groups, lr=lr, betas=betas, eps=self.eps, decoupled_weight_decay=decoupled)


@dataclass
class NAdam(_AdamKin):
    """NAdam (Dozat 2016): Adam with Nesterov's look-ahead.

    momentum_decay: at step t beta1 is momentum * (1 - 0.96^(t*momentum_decay) / 2).
    """

    name: str = "nadam"
    momentum_decay: float = 4e-3

    def check(self) -> None:
        """As Adam's; momentum_decay must not be negative."""
        super().check()
        check_range("optimizer.momentum_decay", self.momentum_decay, least=0.0)

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        return torch.optim.NAdam(
            groups,
            lr=lr,
            betas=(momentum, self.beta2),
            eps=self.eps,
            momentum_decay=self.momentum_decay,
            decoupled_weight_decay=decoupled,
        )
