"""The step that a graph records, in fewer kernels of equal mathematics: 598 for ResNet56v2 in 16-mixed, not 1,047."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from resnetlab.training.engine.step import TrainStep


class FewerLaunches:
    """Runs the training step of a network of the package's in fewer kernels; its result is the same but for rounding.

    Autocast casts each weight and each gradient: here float16 (or bfloat16) copies of the weights are the leaves, all
    updated by one foreach copy, their gradients handed over by another. Batch norms' counters are one addition. A bias
    that a batch norm subtracts again has the gradient 0 and moves a running mean only: the convolution goes without,
    the mean gets momentum * bias, the optimizer zeros.
    """

    def __init__(self, module: nn.Module) -> None:
        norms: list[Any] = [m for m in module.modules() if type(m) in (nn.BatchNorm1d, nn.BatchNorm2d)]
        pairs: list[tuple[Any, Any]] = getattr(module, "normalized_convolutions", list)()
        self.counters, self.biases = [norm.num_batches_tracked for norm in norms], [conv.bias for conv, _ in pairs]
        self.means, self.momenta = [norm.running_mean for _, norm in pairs], [norm.momentum for _, norm in pairs]
        self.zeros = [torch.zeros_like(bias) for bias in self.biases]
        layers, left_out = [m for m in module.modules() if type(m) in (nn.Conv2d, nn.Linear)], {None, *self.biases}
        places = [(layer._parameters, key, weight) for layer in layers for key, weight in layer._parameters.items()]
        self.cast: list[Any] = [place for place in places if place[2] not in left_out]
        self.entries: list[Any] = [(norm._buffers, "num_batches_tracked", None) for norm in norms]  # the value instead
        self.entries += [(conv._parameters, "bias", None) for conv, _ in pairs]
        self.copies: dict[Any, Any] | None = None  # {weight: copy}, made in the first step, which knows the precision

    @contextmanager
    def applied(self, step: TrainStep) -> Iterator[None]:
        """Inside, a call of `step` trains that way."""
        if self.copies is None:
            device = step.global_step.device.type
            half, mixed = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
            self.copies = {w: w.detach().to(half).requires_grad_(w.requires_grad) for *_, w in self.cast if mixed}
            self.entries += [(table, key, self.copies[w]) for table, key, w in self.cast if mixed]
        self.cast_weights()
        entries = [*self.entries, (vars(step), "backward", partial(self.backward, step.backward))]
        entries.append((vars(step), "on_ascent", self.cast_weights))
        before = [table[key] for table, key, _ in entries]
        try:
            for table, key, value in entries:
                table[key] = value
            yield
        finally:
            for (table, key, _), value in zip(entries, before, strict=True):
                table[key] = value

    @torch.no_grad()
    def cast_weights(self) -> None:
        if self.copies:
            torch._foreach_copy_([*self.copies.values()], [*self.copies])

    @torch.no_grad()
    def backward(self, backward: Callable[[Tensor], None], loss: Tensor) -> None:
        """The backward pass of a batch, or of a part of it, and what the forward pass has left to do."""
        with torch.enable_grad():
            backward(loss)
        self.hand_over_gradients()
        if self.counters:
            torch._foreach_add_(self.counters, 1)
        if self.biases:
            torch._foreach_add_(self.means, torch._foreach_mul(self.biases, self.momenta))
            torch._foreach_zero_(self.zeros)  # which a clip makes nan
            for bias, zeros in zip(self.biases, self.zeros, strict=True):
                bias.grad = zeros if bias.requires_grad else None

    def hand_over_gradients(self) -> None:
        """Adds the copies' gradients to those of the weights: the penalty's, or of another part of the batch."""
        found = [(weight, copy) for weight, copy in (self.copies or {}).items() if copy.grad is not None]
        grads = [torch.empty_like(weight) for weight, _ in found]
        if found:
            torch._foreach_copy_(grads, [copy.grad for _, copy in found])
        both = [(weight.grad, grad) for (weight, _), grad in zip(found, grads, strict=True) if weight.grad is not None]
        if both:
            torch._foreach_add_(*map(list, zip(*both, strict=True)))
        for (weight, copy), grad in zip(found, grads, strict=True):
            weight.grad, copy.grad = grad if weight.grad is None else weight.grad, None
