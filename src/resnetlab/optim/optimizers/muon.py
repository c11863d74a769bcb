"""Muon for the convolution kernels, AdamW for all the rest (dense kernel, biases, norms), as one torch optimizer.

Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a matrix by the nearest
orthogonal matrix, by five Newton-Schulz steps in bfloat16. A kernel (out, in, h, w) is taken as the matrix (out,
in*h*w). The step is scaled by 0.2*sqrt(max(out, in*h*w)) (Moonshot, arXiv:2502.16982, "match_rms_adamw"), so that lr
and wd found for AdamW can be used again. torch.optim.Muon takes 2-D parameters only; here are its formulas, in its
order of operations (equal to torch 2.15 to the bit), on 2-D views.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from resnetlab.optim.optimizers.base import Groups, Optimizer, fused_or_default
from resnetlab.optim.regularization import conv_kernels

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # a, b, c of the quintic a*x + b*x^3 + c*x^5, from Keller Jordan's post
NORM_EPS = 1e-7  # the least norm that the matrix is divided by, ibidem


def as_matrix(t: Tensor, like: Tensor) -> Tensor:
    """t (out, ...) as (out, rest), the columns in the order in which `like`, of the same shape, has them in memory.

    A view if t lies in memory as `like` does (channels_last too, where t.flatten(1) were a copy and an update of it
    lost). The order of the columns is all the same to the orthogonalisation.
    """
    if not like.is_contiguous():
        t = t.permute(0, *sorted(range(1, t.ndim), key=like.stride, reverse=True))
    return t.reshape(t.shape[0], -1)


def orthogonalize(matrix: Tensor, steps: int) -> Tensor:
    """The nearest orthogonal matrix to `matrix` (rows, columns), roughly: in bfloat16, by Newton-Schulz steps.

    Its singular values lie between 0.5 and 1.5, which is near enough (Keller Jordan's post).
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(torch.bfloat16, copy=True)
    x = x.T if tall else x
    x.div_(x.norm().clamp(min=NORM_EPS))  # the largest singular value is at most 1
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the groups with "algorithm": "muon", AdamW for the others; both decay decoupled."""

    def __init__(self, groups: Groups, lr: float) -> None:
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; returns the closure's loss."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            (self._muon if group["algorithm"] == "muon" else self._adamw)(group, weights)
        return loss

    def _muon(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        for p in weights:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            assert p.grad is not None
            lr, momentum = group["lr"], group["momentum"]
            weight, grad, buffer = (as_matrix(t, p) for t in (p, p.grad, self.state[p]["momentum_buffer"]))
            buffer.lerp_(grad, 1 - momentum)
            if group.get("renormalize"):
                weight.mul_(math.sqrt(len(weight)) / weight.norm().clamp(min=NORM_EPS))
            update = orthogonalize(grad.lerp(buffer, momentum) if group["nesterov"] else buffer, group["ns_steps"])
            weight.mul_(1 - lr * group["weight_decay"])
            weight.add_(update, alpha=-lr * (0.2 * math.sqrt(max(weight.shape))))

    def _adamw(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        for p in weights:
            if not self.state[p]:
                step = torch.zeros((), dtype=torch.float32, device=p.device if group["fused"] else "cpu")
                self.state[p].update(step=step, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        grads = [p.grad for p in weights if p.grad is not None]
        means, squares, steps = ([self.state[p][key] for p in weights] for key in ("exp_avg", "exp_avg_sq", "step"))
        keys = {key: group[key] for key in ("lr", "weight_decay", "eps", "fused")}
        keys |= {"beta1": group["betas"][0], "beta2": group["betas"][1], "amsgrad": False, "maximize": False}
        adamw(weights, grads, means, squares, [], steps, **keys)


@dataclass
class Muon(Optimizer):
    """Muon on the convolution kernels, AdamW on the rest; momentum (0.95) is Muon's and the AdamW part's beta1.

    A CUDA graph cannot capture it: the update reads the lr on the host.
    """

    name: str = "muon"
    nesterov: bool = True  # orthogonalise the momentum looked ahead
    # scale each kernel to the norm sqrt(out) before each step, which undoes wd (github.com/KellerJordan/...airbench)
    renormalize: bool = False
    adamw_lr: float | None = None  # of AdamW's part, which the schedule multiplies as it does lr; null: lr
    ns_steps: int = 5  # Newton-Schulz steps, 1 to 99
    beta2: float = 0.999  # decay of the mean squared gradient per step, in [0, 1), for AdamW's part
    eps: float = 1e-7  # added to the root of the mean squared gradient, for AdamW's part
    # AdamW's part in one kernel for all tensors: true | false; null: where torch has it for the device
    fused: bool | None = None

    default_momentum: ClassVar[float] = 0.95

    def _split(self, model: nn.Module, groups: Groups) -> Groups:
        kernels = {id(k) for k in conv_kernels(model)}
        split = []
        for algorithm in ("muon", "adamw"):
            for group in groups:
                params = [p for p in group["params"] if (id(p) in kernels) == (algorithm == "muon")]
                name = f"{algorithm}-{group['name']}"
                split += [{**group, "name": name, "algorithm": algorithm, "params": params}] if params else []
        return split

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        muons = {key: getattr(self, key) for key in ("nesterov", "ns_steps", "renormalize")} | {"momentum": momentum}
        fused = fused_or_default(self.fused, groups)
        adams: dict[str, Any] = {"betas": (momentum, self.beta2), "eps": self.eps, "fused": fused}
        ratio = 1.0 if self.adamw_lr is None else self.adamw_lr / lr
        for group in groups:
            is_muon = group["algorithm"] == "muon"
            group.update(muons if is_muon else adams | {"lr_factor": group.get("lr_factor", 1.0) * ratio})
        return MuonAdamW(groups, lr=lr)
