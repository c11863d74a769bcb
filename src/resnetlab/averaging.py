"""Batch-norm statistics, re-estimated for the weights as they are now."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["reestimated_statistics"]


@contextmanager
def reestimated_statistics(model: nn.Module, inputs: Iterable[Tensor]) -> Iterator[None]:
    """Inside: the model's running statistics are the plain mean over `inputs`; outside: the model is as it was.

    inputs: batches (N, C, H, W) of training images. Only batch norms see training mode, so no random number is drawn.
    """
    norms = _batch_norms(model)
    buffers = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    momenta, modes = [norm.momentum for norm in norms], {module: module.training for module in model.modules()}
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch: a cumulative mean over the batches
            norm.train()
        with torch.no_grad():
            for x in inputs:
                model(x)
        model.eval()
        yield
    finally:
        for norm, saved, momentum in zip(norms, buffers, momenta, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(saved[name])
        for module, training in modes.items():
            module.training = training


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
