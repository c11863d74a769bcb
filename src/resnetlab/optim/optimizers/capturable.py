"""Adam's and SGD's updates with lr and momentum as device tensors, so that a CUDA graph can replay them.

torch's fused kernels take lr as a tensor, but momentum as a number, which a graph would freeze. These are the same
formulas in torch's multi-tensor functions. step_taken: a scalar tensor, 0 for a step that the gradient scaler skips,
where nothing may change, and 1 otherwise.
"""

from typing import Any

import torch
from torch import Tensor

Tensors = list[Tensor]


def adam_update(optimizer: torch.optim.Optimizer, group: dict[str, Any], weights: Tensors) -> None:
    """torch.optim.Adam's step, in place (Kingma & Ba, arXiv:1412.6980, algorithm 1, eps as torch has it)."""
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
    """(the weights' gradients, float32, without the gradient scaler's factor; step_taken).

    For a step that is skipped they are 0. Since 0 * inf is not, the zeros are made of the numbers' bits.
    """
    grads = [weight.grad for weight in weights if weight.grad is not None]
    scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    if found_inf is None:
        return grads, torch.ones((), device=grads[0].device)
    step_taken = 1 - found_inf.view(())
    torch._foreach_mul_([grad.view(torch.int32) for grad in grads], step_taken.to(torch.int32))
    return (grads if scale is None else list(torch._foreach_div(grads, scale.view(())))), step_taken
