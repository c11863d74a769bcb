"""bare: the lab's own network, optimizer, precision and memory format on one resident batch, and nothing else."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from resnetlab.bench_peers.spec import Spec
from resnetlab.build import build_module
from resnetlab.data import ImageData

__all__ = ["bare_step"]


def bare_step(spec: Spec, data: ImageData) -> tuple[Callable[[], None], Callable[[], float]]:
    """(a plain PyTorch step on one batch that lies on the device, the loss of the last one)."""
    torch.backends.cudnn.benchmark = True  # as the lab's Trainer has it
    device = torch.device(spec.device)
    module = build_module(spec.config, data).to(device)
    model, optimizer = module.model.train(), module.build_optimizer()
    x, y = next(data.batches(1, device))
    scaler = torch.amp.GradScaler(spec.device, enabled=spec.precision == "16-mixed")
    last = torch.tensor(float("nan"))

    def step() -> None:
        nonlocal last
        optimizer.zero_grad()
        with torch.autocast(spec.device, dtype=spec.amp_type, enabled=spec.amp_type is not None):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        last = loss.detach()

    return step, lambda: float(last)
