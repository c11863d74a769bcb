"""The machine: what is in it, and the roofline, a network's arithmetic and traffic against the rates of large arrays.

Caches can beat the rate at which large arrays are copied: what fits into them does not move at that rate.
"""

import os
import platform
from dataclasses import replace
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers.protocol import JsonLines, PeerSpec
from benchmarks.peers.torch_parts import config_of
from resnetlab.training.describe import processor

TYPES = {"32-true": torch.float32, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class Work(NamedTuple):
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


def seconds(statement: str, **variables: Any) -> float:
    """The median of repetitions that together take about a second."""
    timer = Timer(statement, globals=variables, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=1.0).median


def copy_rate(device: torch.device, mib: int) -> float:
    """Bytes read and written in a second, copying `mib` from one tensor into another."""
    a = torch.ones(mib * 2**18, device=device)
    return 2 * a.nbytes / seconds("b.copy_(a)", a=a, b=torch.zeros_like(a))


def matmul_rate(device: torch.device, precision: str, side: int) -> float:
    """Floating-point operations in a second, multiply and add counted apart, in a product of two square matrices."""
    a = torch.randn(side, side, device=device).to(TYPES[precision])
    return 2 * side**3 / seconds("torch.mm(a, a, out=b)", torch=torch, a=a, b=torch.empty_like(a))


def main() -> None:
    """spec.names: the precisions."""
    lines, spec = JsonLines(), PeerSpec.from_command_line()
    device = torch.device(spec.device)
    cuda = device.type == "cuda"
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, which is what torch's convolutions use there by default
    mib, side = (2048, 8192) if cuda else (256, 2048)
    work, copy = work_of(config_of(replace(spec, names=())).model.build(10)), copy_rate(device, mib)
    lines.write(
        machine={
            "device": torch.cuda.get_device_name(device) if cuda else processor(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": version("lightning"),
            "cudnn": torch.backends.cudnn.version() if cuda else None,
        },
        roofline=[ceiling(work, name, matmul_rate(device, name, side), copy) for name in spec.names],
    )


if __name__ == "__main__":
    main()
