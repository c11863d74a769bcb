"""One run on several devices of a machine, a process each: who is who, what they do together, and how it ends."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from resnetlab.errors import LabError

if TYPE_CHECKING:
    import lightning as L

__all__ = ["broadcast", "follows", "gather", "least", "rank", "strategy", "together", "total", "world_size"]


def follows(devices: int) -> bool:
    """Whether this is not the first process of a run on several devices: it trains, and writes nothing."""
    return devices > 1 and int(os.environ.get("LOCAL_RANK", "0")) > 0


def rank() -> int:
    """This process's number among those that train together, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The processes that train together; 1 outside of training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def least(value: Tensor) -> Tensor:
    """The least of all processes' values."""
    if world_size() > 1:
        dist.all_reduce(value, dist.ReduceOp.MIN)
    return value


def total(value: Tensor) -> Tensor:
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
    """What Lightning's Trainer is told: one machine, whatever a cluster's environment says."""
    if devices == 1:
        return {"devices": 1}
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    return {"devices": devices, "strategy": DDPStrategy(cluster_environment=LightningEnvironment())}


@contextmanager
def together(trainer: "L.Trainer", devices: int) -> Iterator[None]:
    """Around the training: Lightning starts the other processes there, by the same command; none outlives it.

    Afterwards this process is alone again, and its environment as it was. Raises LabError if another one has died.
    """
    if devices == 1:
        yield
        return
    environment = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # or Lightning sets it, and the threads
    try:
        yield
    except RuntimeError:  # gloo's, when the process at the other end is gone
        if dead := [n for n, child in enumerate(children(trainer), 1) if ended_badly(child)]:
            raise LabError(f"the process of device {dead[0]} has died; the same command goes on") from None
        raise
    finally:
        alone_again(trainer)
        os.environ.clear()
        os.environ.update(environment)


def children(trainer: "L.Trainer") -> "list[subprocess.Popen[bytes]]":
    """The processes that this one has started."""
    return getattr(trainer.strategy.launcher, "procs", [])


def ended_badly(child: "subprocess.Popen[bytes]") -> bool:
    """Whether it has ended, or is about to, with an error: a closed connection is seen before an exit status."""
    with suppress(subprocess.TimeoutExpired):
        return child.wait(timeout=2) != 0
    return False


def alone_again(trainer: "L.Trainer") -> None:
    """Ends the group, and the other processes if they do not end by themselves."""
    if dist.is_initialized():
        dist.destroy_process_group()
    for child in children(trainer):
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    children(trainer).clear()  # or Lightning's watch over them kills this process, when one has ended with an error
