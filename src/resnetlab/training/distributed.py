"""One run on several devices of a machine, a process each: who is who, and what they do together.

The first process starts the others (`resnetlab.training.follower`), with the run's config.yaml. Lightning would start
its own command again, which a script with two runs, or a notebook, does not survive; and it kills the first process
without a word when another one dies.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import Tensor

FOLLOWER = "RESNETLAB_FOLLOWER"  # in the environment of all processes of a run but the first


def is_secondary() -> bool:
    """Whether this is not the first process of a run on several devices: it trains, and writes nothing."""
    return FOLLOWER in os.environ


def rank() -> int:
    """This process's number among those that train together, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The processes that train together; 1 outside of training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_min(value: Tensor) -> Tensor:
    """The least of all processes' values."""
    if world_size() > 1:
        dist.all_reduce(value, dist.ReduceOp.MIN)
    return value


def all_reduce_sum(value: Tensor) -> Tensor:
    """The sum of all processes' values; the value itself stays as it is."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Gives every process the first one's values, in place."""
    for tensor in tensors if world_size() > 1 else ():
        dist.broadcast(tensor, 0)


def gather(value: Any) -> list[Any]:
    """Every process's value, in their order."""
    values = [value] * world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def strategy(devices: int) -> dict[str, Any]:
    """What Lightning's Trainer is told of the devices."""
    if devices == 1:
        return {"devices": 1}
    from lightning.pytorch.strategies import DDPStrategy

    return {"devices": devices, "strategy": DDPStrategy()}


def local_environment() -> Any:
    """Lightning's plugin for it, whatever a cluster's environment says: it would refuse an allocation of two tasks."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    return LightningEnvironment()
