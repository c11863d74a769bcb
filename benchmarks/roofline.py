"""A network's arithmetic and traffic against the rates at which the machine multiplies and copies large arrays.

Caches can beat the second: what fits into them does not move at the rate of large arrays.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["BOUNDS", "Work", "ceiling", "work_of"]

BOUNDS = {"arithmetic": "the rate of large matrix products", "memory": "the copy rate of large arrays"}


@dataclass(frozen=True)
class Work:
    """Of one image, forward and backward: floating-point operations (multiply and add counted apart), and the elements
    that must at least be read or written."""

    flops: float
    elements: float


def work_of(network: nn.Module, side: int = 32) -> Work:
    """Counted on the network without computing anything.

    elements: of each convolution the input and the output in the forward pass, the output's gradient, the input and the
    input's gradient in the backward pass, each once: as if all that lies between convolutions cost no traffic.
    """
    network = network.to("meta")
    batch, elements = 2, 0.0

    def count(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal elements
        elements += 3 * inputs[0].numel() + 2 * output.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with FlopCounterMode(display=False) as counter:
        x, y = torch.zeros(batch, 3, side, side, device="meta"), torch.zeros(batch, dtype=torch.long, device="meta")
        F.cross_entropy(network(x), y).backward()
    for hook in hooks:
        hook.remove()
    return Work(counter.get_total_flops() / batch, elements / batch)


def ceiling(work: Work, precision: str, matmul: float, copy: float) -> dict[str, Any]:
    """Images a second by the rate of large matrix products, or by the copy rate of large arrays, whichever is fewer.

    matmul: FLOP/s; copy: bytes/s, read and written.
    """
    size = 4 if precision == "32-true" else 2
    by_matmul, by_copy = matmul / work.flops, copy / (size * work.elements)
    return {
        "precision": precision,
        "images_per_second": min(by_matmul, by_copy),
        "bound_by": "arithmetic" if by_matmul <= by_copy else "memory",
        "images_per_second_arithmetic": by_matmul,
        "images_per_second_memory": by_copy,
        "flops_per_image": work.flops,
        "bytes_per_image": size * work.elements,
        "matmul_flops_per_second": matmul,
        "copy_bytes_per_second": copy,
    }
