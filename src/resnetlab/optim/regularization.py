"""Regularization: Keras' L2 penalty, decoupled and coupled weight decay, label smoothing.

Three things are called "weight decay"; one step of plain SGD with learning rate lr does

    l2         loss += l2 * sum(w^2), so  w -= lr * (g + 2*l2*w)   convolution kernels only: Keras' kernel_regularizer
    coupled    g += wd*w, so              w -= lr * (g + wd*w)     every tensor: torch's SGD(weight_decay); wd = 2*l2
    decoupled  w -= lr*wd*w, then         w -= lr * g              every tensor: Keras' weight_decay, AdamW

Without momentum the last two are the same. With Adam they are not: it divides the gradient by its size, and with it
the l2 and coupled terms. The published lambda (0.05 ... 0.4) is the wd of the last line; what acts per step is lr*wd
(claim IV-22).

Letters: w a weight, g its gradient, wd and l2 the top-level keys of the same names.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from resnetlab.errors import ConfigError, check_limits, require


@dataclass
class Regularization:
    """No penalty and no decay; base config of the group `regularization`, read by the optimizer and by the loss.

    decay: "all" is every trainable tensor, batch norm and biases too, as in Keras.
    default_wd, default_l2: what the top-level keys wd and l2 mean when null; None = not used here, a value is refused.
    decay_kind: "none" | "decoupled" | "coupled", see the table at the top of the file.
    """

    name: str = "none"
    label_smoothing: float = 0.0  # of the cross-entropy in training, in [0, 1)
    decay: str = "all"  # tensors that wd reaches. all | kernels: those of two or more dimensions, no norms and biases

    default_wd: ClassVar[float | None] = None
    default_l2: ClassVar[float | None] = None
    decay_kind: ClassVar[str] = "none"

    def check(self) -> None:
        """Raises ConfigError at the first key that makes no sense."""
        check_limits("regularization", vars(self))
        if self.decay != "all" and self.decay_kind == "none":
            cure = "which has no wd; take regularization=weight_decay or leave decay out"
            raise ConfigError(f"regularization.decay (={self.decay}) is not used by regularization={self.name}, {cure}")


@dataclass
class L2(Regularization):
    """Keras' kernel_regularizer=l2(1e-4), Atienza's choice: convolution kernels only, part of the reported losses."""

    name: str = "l2"
    default_l2: ClassVar[float | None] = 1e-4


@dataclass
class WeightDecay(Regularization):
    """Decoupled decay, w -= lr*wd*w with the current lr: what every Keras optimizer does with weight_decay set."""

    name: str = "weight_decay"
    default_wd: ClassVar[float | None] = 0.2
    decay_kind: ClassVar[str] = "decoupled"


@dataclass
class Coupled(Regularization):
    """Coupled decay, g += wd*w: what torch means by SGD(weight_decay). 5e-4 is usual for SGD with lr 0.1."""

    name: str = "coupled"
    default_wd: ClassVar[float | None] = 5e-4
    decay_kind: ClassVar[str] = "coupled"


@dataclass
class L2WeightDecay(Regularization):
    """Both: the penalty of `l2` and a decoupled decay of 0.004, the default of Keras' AdamW."""

    name: str = "l2_weight_decay"
    default_wd: ClassVar[float | None] = 4e-3
    default_l2: ClassVar[float | None] = 1e-4
    decay_kind: ClassVar[str] = "decoupled"


NORM_BIASES = "-norm-biases"  # end of the name of a group of them
REGULARIZATIONS = {cls.name: cls for cls in (Regularization, L2, WeightDecay, Coupled, L2WeightDecay)}


def resolve(regularization: Regularization, wd: float | None, l2: float | None) -> tuple[float | None, float | None]:
    """(wd, l2) as they act: null filled with the regularization's defaults, None where it uses no such value.

    Resolving twice changes nothing. Raises ConfigError for a value (also 0) that is not used, and for a negative or
    non-finite one.
    """
    cures, found = ("l2_weight_decay",) * 2 if None not in (wd, l2) else ("weight_decay", "l2"), []
    defaults = regularization.default_wd, regularization.default_l2
    for key, value, default, cure in zip(("wd", "l2"), (wd, l2), defaults, cures, strict=True):
        if value is not None and default is None:
            cure = f"take regularization={cure} or leave {key} out"
            raise ConfigError(f"{key} (={value}) is not used by regularization={regularization.name}; {cure}")
        must = f"be finite and not negative; leave it out for the default {default}"
        require(value is None or (math.isfinite(value) and value >= 0), key, value, must)
        found.append(default if value is None else float(value))
    return found[0], found[1]


def conv_kernels(model: nn.Module) -> list[Parameter]:
    """The trainable kernels (out, in, *window) of all convolutions, each once, in the model's order; ResNet56v2: 58.

    What Keras' kernel_regularizer sees; frozen kernels are left out there too (layer.py, _get_regularization_losses).
    """
    convolutions = (m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd))
    kernels = {id(k): k for m in convolutions for k in m.parameters(recurse=False) if k is m.weight}
    return [k for k in kernels.values() if k.requires_grad]


class _SumOfSquares(torch.autograd.Function):
    """l2 * sum(w^2) and its gradient 2*l2*w in a few launches instead of some ten per kernel.

    58 kernels, forward and backward, one CPU core: 1.6 ms instead of 5.6.
    """

    @staticmethod
    def forward(ctx: Any, l2: float, *kernels: Tensor) -> Tensor:
        ctx.save_for_backward(*kernels)
        ctx.l2 = l2
        if kernels[0].is_cuda:
            return l2 * flattened(kernels).square().sum()
        return l2 * torch.stack(torch._foreach_norm(kernels)).square().sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *torch._foreach_mul(ctx.saved_tensors, 2 * ctx.l2 * grads[0]))


def flattened(tensors: Sequence[Tensor]) -> Tensor:
    """All elements in one vector, for a norm: torch's foreach norm (2.15) copies a table from the host to a GPU."""
    return torch.cat([tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors])


def penalty(kernels: Sequence[Tensor], l2: float) -> Tensor:
    """l2 * sum(w^2) over all kernels: shape (), to add to the loss; its gradient is 2*l2*w. No kernels: 0."""
    if not kernels:
        return torch.zeros(())
    return _SumOfSquares.apply(l2, *kernels)


def decay_groups(model: nn.Module, decay: str, apart: bool = False) -> dict[str, list[tuple[str, Parameter]]]:
    """Group -> (name, tensor) of every trainable tensor of the model, each in exactly one group; no group is empty.

    decay "all": {"all"}; "kernels": {"kernels", "rest"}, and wd leaves the rest alone. apart: the norms' biases are in
    groups of their own, "all-norm-biases" or "rest-norm-biases". Raises ConfigError if nothing is trainable.
    """
    groups: dict[str, list[tuple[str, Parameter]]] = {}
    norms = (module for module in model.modules() if isinstance(module, nn.GroupNorm | nn.modules.batchnorm._BatchNorm))
    biases = {id(norm.bias) for norm in norms if apart}
    for name, p in model.named_parameters():
        if p.requires_grad:
            group = "all" if decay == "all" else "kernels" if p.ndim >= 2 else "rest"
            groups.setdefault(group + NORM_BIASES * (id(p) in biases), []).append((name, p))
    check_groups(model, {group: [p for _, p in named] for group, named in groups.items()})
    return groups


def check_groups(model: nn.Module, groups: Mapping[str, Iterable[Tensor]]) -> None:
    """Raises ConfigError unless each trainable tensor of the model is in exactly one group, and nothing else in any."""
    found: dict[int, list[str]] = {}
    for group, tensors in groups.items():
        for p in tensors:
            found.setdefault(id(p), []).append(group)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("the model has no trainable tensor; set requires_grad on some")
    for name, p in model.named_parameters():
        where = found.pop(id(p), [])
        if len(where) != p.requires_grad:
            must = "trainable: it must be in one" if p.requires_grad else "frozen: it must be in none"
            raise ConfigError(f"tensor {name} is in {len(where)} parameter groups {where} and {must}")
    if found:
        raise ConfigError(f"{len(found)} tensors in the groups are not this model's; build the optimizer from it")
