"""Base class of the optimizers: checks, parameter groups, and the setting of lr and momentum.

Letters: w a weight, g its gradient, lr, wd and momentum the top-level keys of the same names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from resnetlab.errors import ConfigError, check_limits, require
from resnetlab.optim.regularization import NORM_BIASES, Regularization, check_groups, decay_groups, resolve

Groups = list[dict[str, Any]]
Tensors = list[Tensor]

FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")  # device types with torch's fused kernels, torch 2.11 to 2.15


def check_pair(optimizer: str, regularization: str) -> None:
    """Raises ConfigError if the two, given by their names, make no sense together."""
    if (optimizer, regularization) == ("muon", "coupled"):
        why = "Muon would orthogonalise the decay with the gradient; take regularization=weight_decay"
        raise ConfigError(f"optimizer=muon with regularization=coupled is refused: {why}")


@dataclass
class Optimizer:
    """The config of the group `optimizer`; `build` makes the torch optimizer from it.

    default_momentum: what the top-level key momentum means when null (SGD's momentum, or beta1).
    """

    name: str = ""
    # multiple of lr for the biases of the norms, on which wd acts as on the rest (64 in Jordan, arXiv 2404.00498)
    norm_bias_lr: float = 1.0
    sam: float = 0.0  # rho of SAM (Foret et al., arXiv 2010.01412), 0.05 to 0.2, at twice the compute; 0: off

    default_momentum: ClassVar[float] = 0.9
    capturable: ClassVar[bool] = False  # by a CUDA graph, with lr and momentum as tensors

    def check(self) -> None:
        """Raises ConfigError at the first key that makes no sense."""
        check_limits("optimizer", vars(self))

    def build(
        self, model: nn.Module, *, lr: float, momentum: float, wd: float | None, regularization: Regularization
    ) -> torch.optim.Optimizer:
        """One torch optimizer over all trainable tensors of the model, which must be on its device already.

        wd: as resolved, or null for the regularization's default; decoupled (w -= lr*wd*w before the update, with the
        group's current lr) or coupled (g += wd*w) as the regularization says. The L2 penalty is the loss's, not the
        optimizer's. Each group carries its "name". Raises ConfigError for a value or a pair that makes no sense.
        """
        self.check()
        regularization.check()
        check_pair(self.name, regularization.name)
        check_limits("config", {"lr": lr, "momentum": momentum})
        wd, _ = resolve(regularization, wd, None)
        factor, groups = self.norm_bias_lr, list[dict[str, Any]]()
        for name, named in decay_groups(model, regularization.decay, apart=factor != 1).items():
            own = {"lr_factor": factor} if name.endswith(NORM_BIASES) else {}
            decay = 0.0 if name.startswith("rest") else (wd or 0.0) / own.get("lr_factor", 1.0)  # lr*wd is what it was
            groups.append({"name": name, "params": [p for _, p in named], "weight_decay": decay, **own})
        found = factor == 1 or any("lr_factor" in group for group in groups)
        require(found, "optimizer.norm_bias_lr", factor, "be 1: no batch or group norm of this network has a bias")
        groups = self._split(model, groups)
        optimizer = self._make(groups, lr, momentum, regularization.decay_kind == "decoupled")
        set_lr_momentum(optimizer, lr)
        check_groups(model, {g["name"]: g["params"] for g in optimizer.param_groups})
        optimizer.register_load_state_dict_post_hook(match_layout)
        return optimizer

    def _split(self, model: nn.Module, groups: Groups) -> Groups:
        return groups

    def _make(self, groups: Groups, lr: float, momentum: float, decoupled: bool) -> torch.optim.Optimizer:
        raise NotImplementedError(f"{type(self).__name__} is a base class; take one of OPTIMIZERS")


def fused_or_default(fused: bool | None, groups: Groups) -> bool | None:
    """Resolves `fused`: null means True if torch has fused kernels for the tensors' device.

    Fused and plain kernels differ by rounding. AdamW on 170 tensors of 0.7 million weights, one CPU core, torch 2.15:
    3.5 ms a step fused, 21 plain.
    """
    devices = {p.device.type for g in groups for p in g["params"]}
    return True if fused is None and devices.issubset(FUSED_DEVICES) else fused


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Converts each loaded state to the memory layout of its weight; they differ if channels_last was switched since.

    torch's fused CPU kernels pair elements by their place in memory, so a momentum in another layout would silently
    serve other weights (torch 2.15: weights of size 1 off by 0.6 after three steps of Adam, lr 0.1).
    """
    for p, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                state[key] = torch.empty_like(p).copy_(value)


def set_lr_momentum(
    optimizer: torch.optim.Optimizer, lr: float | Tensor, momentum: float | Tensor | None = None
) -> None:
    """Writes lr into every group, and momentum (None: left alone) into "momentum" (SGD, Muon) or into beta1 of "betas".

    A group's lr is that times its "lr_factor", if it has one. A tensor (for a captured graph) is filled in place.
    """
    for group in optimizer.param_groups:
        factor = group.get("lr_factor", 1.0)
        group["lr"] = _assign(group["lr"], lr if factor == 1 else lr * factor)
        old = group["betas"][0] if "betas" in group else group.get("momentum")
        if momentum is not None and (isinstance(old, Tensor) or not isinstance(momentum, Tensor)):
            convert_momentum(group, lambda old: _assign(old, momentum))


def _assign(old: float | Tensor, new: float | Tensor) -> float | Tensor:
    if not isinstance(old, Tensor):
        return new
    return old.copy_(new) if isinstance(new, Tensor) else old.fill_(new)


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device, cycles_momentum: bool) -> None:
    """Replaces lr, momentum (where it changes) and all state by tensors on the device, for capture in a CUDA graph."""
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(float(group["lr"]), device=device)
        if "capturable" in group:
            group["capturable"] = True
        if cycles_momentum:
            convert_momentum(group, lambda value: torch.as_tensor(float(value), device=device))
    optimizer.create_state()  # type: ignore[attr-defined]


def make_eager(optimizer: torch.optim.Optimizer) -> None:
    """Undoes make_capturable, as after a checkpoint of a captured run is restored in an eager one."""
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])
        convert_momentum(group, float)
        if "capturable" in group:
            group["capturable"] = False


def convert_momentum(group: dict[str, Any], into: Callable[[Any], Any]) -> None:
    """Replaces beta1 or momentum by what `into` makes of it; an optimizer of the user's may have neither."""
    if "betas" in group:
        group["betas"] = (into(group["betas"][0]), group["betas"][1])
    elif "momentum" in group:
        group["momentum"] = into(group["momentum"])


def group_counts(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """A row a parameter group, {"name", "tensors", "parameters", "wd", maybe "lr_factor"}, for log and manifest."""
    return [
        {
            "name": group.get("name", str(i)),
            "tensors": len(group["params"]),
            "parameters": sum(p.numel() for p in group["params"]),
            "wd": float(group.get("decoupled_wd") or group["weight_decay"]),
            **({"lr_factor": group["lr_factor"]} if group.get("lr_factor", 1.0) != 1.0 else {}),
        }
        for i, group in enumerate(optimizer.param_groups)
    ]


def adam_update(optimizer: torch.optim.Optimizer, group: dict[str, Any], weights: Tensors) -> None:
    """torch.optim.Adam's step with lr and momentum as device tensors, in place (arXiv:1412.6980, algorithm 1).

    torch's fused kernels take momentum as a number, which a CUDA graph would freeze.
    """
    grads, step_taken = gradients(optimizer, weights)
    means, squares, steps = ([optimizer.state[p][key] for p in weights] for key in ("exp_avg", "exp_avg_sq", "step"))
    lr, (beta1, beta2), wd = group["lr"], group["betas"], group["weight_decay"]
    torch._foreach_add_(steps, [step_taken] * len(steps))  # one tensor would be read back, as a number
    t = steps[0].clamp(min=1)  # 0 while the scaler has skipped all steps: the corrections would divide by 0
    if wd and group["decoupled_weight_decay"]:
        torch._foreach_mul_(weights, 1 - lr * wd * step_taken)
    elif wd:
        grads = list(torch._foreach_add(grads, weights, alpha=wd))
    update_averages(means, grads, (1 - beta1) * step_taken)
    update_averages(squares, list(torch._foreach_mul(grads, grads)), (1 - beta2) * step_taken)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, (1 - beta2**t).sqrt())
    torch._foreach_add_(roots, group["eps"])
    updates = torch._foreach_div(means, roots)
    torch._foreach_mul_(updates, step_taken * lr / (1 - beta1**t))
    torch._foreach_sub_(weights, updates)


def sgd_update(optimizer: torch.optim.Optimizer, group: dict[str, Any], weights: Tensors) -> None:
    """torch.optim.SGD's step, in place, from buffers that begin as zeros; the group's weight_decay is coupled."""
    grads, step_taken = gradients(optimizer, weights)
    buffers = [optimizer.state[p]["momentum_buffer"] for p in weights]
    lr, momentum, nesterov, wd = (group[key] for key in ("lr", "momentum", "nesterov", "weight_decay"))
    if wd:
        grads = list(torch._foreach_add(grads, weights, alpha=wd))
        torch._foreach_mul_(grads, step_taken)
    changes = torch._foreach_mul(buffers, (momentum - 1) * step_taken)
    torch._foreach_add_(changes, grads)
    torch._foreach_add_(buffers, changes)
    if nesterov:
        torch._foreach_add_(grads, torch._foreach_mul(buffers, momentum))
    torch._foreach_sub_(weights, torch._foreach_mul(grads if nesterov else buffers, lr * step_taken))


def update_averages(averages: Tensors, values: Tensors, weight: Tensor) -> None:
    """averages += weight * (values - averages), in place."""
    differences = torch._foreach_sub(values, averages)
    torch._foreach_mul_(differences, weight)
    torch._foreach_add_(averages, differences)


def gradients(optimizer: torch.optim.Optimizer, weights: Tensors) -> tuple[Tensors, Tensor]:
    """(the weights' gradients, float32, without the gradient scaler's factor; step_taken: a scalar tensor, 0 or 1).

    For a step that the scaler skips both are 0. Since 0 * inf is not, the zeros are made of the numbers' bits.
    """
    grads = [weight.grad for weight in weights if weight.grad is not None]
    scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    if found_inf is None:
        return grads, torch.ones((), device=grads[0].device)
    step_taken = 1 - found_inf.view(())
    torch._foreach_mul_([grad.view(torch.int32) for grad in grads], step_taken.to(torch.int32))
    return (grads if scale is None else list(torch._foreach_div(grads, scale.view(())))), step_taken
