"""The machine itself: how fast it copies and multiplies large matrices, and what is in it."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch

from resnetlab.bench_peers.spec import Spec
from resnetlab.bench_peers.turns import synchronize
from resnetlab.bench_peers.wire import Wire
from resnetlab.manifest import processor

__all__ = ["copy_rate", "main", "matmul_rate"]

TYPES = {"32-true": torch.float32, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def rate(work: float, do: Callable[[], object], device: torch.device, seconds: float = 1.0) -> float:
    """Work a second: the median over repetitions that together take about so long, after three that do not count."""
    found = []
    start = time.perf_counter()
    for turn in range(1000):
        synchronize(device)
        mark = time.perf_counter()
        do()
        synchronize(device)
        if turn >= 3:
            found.append(work / (time.perf_counter() - mark))
        if len(found) >= 5 and time.perf_counter() - start > seconds:
            break
    return statistics.median(found)


def copy_rate(device: torch.device, mib: int) -> float:
    """Bytes read and written in a second, copying `mib` from one tensor into another."""
    a = torch.ones(mib * 2**18, device=device)
    b = torch.zeros_like(a)
    return rate(2 * a.nbytes, lambda: b.copy_(a), device)


def matmul_rate(device: torch.device, precision: str, side: int) -> float:
    """Floating-point operations in a second, multiply and add counted apart, in a product of two square matrices."""
    a = torch.randn(side, side, device=device).to(TYPES[precision])
    b = torch.empty_like(a)
    return rate(2 * side**3, lambda: torch.mm(a, a, out=b), device)


def main() -> None:
    wire, spec = Wire(), Spec.read()
    device = torch.device(spec.device)
    cuda = device.type == "cuda"
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, which is what torch's convolutions use there by default
    precisions = spec.names or ("32-true",)
    mib, side = (2048, 8192) if cuda else (256, 2048)
    wire.say(
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
        copy_bytes_per_second=copy_rate(device, mib),
        matmul_flops_per_second={precision: matmul_rate(device, precision, side) for precision in precisions},
    )


if __name__ == "__main__":
    main()
