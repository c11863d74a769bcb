"""One run on several devices of a machine, a process of torchrun's for each: checks and collectives. No Lightning."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from resnetlab.errors import ConfigError, LabError

T = TypeVar("T")


def launched_processes() -> int:
    """The number of processes that torchrun has started; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_available() and dist.is_torchelastic_launched() else 1


def is_secondary() -> bool:
    """Whether this is any but the first of torchrun's processes: it trains, prints nothing and writes nothing."""
    return launched_processes() > 1 and os.environ["RANK"] != "0"


def check_launch(devices: int) -> None:
    """Raises ConfigError unless there is a process for each device."""
    if (processes := launched_processes()) == devices:
        return
    if processes == 1:
        command = f"torchrun --standalone --nproc-per-node={devices} -m resnetlab train ... trainer.devices={devices}"
        raise ConfigError(f"trainer.devices (={devices}) needs a process for each device: {command}")
    raise ConfigError(f"trainer.devices (={devices}) must be {processes}, the processes that torchrun has started")


@contextmanager
def process_group(devices: int) -> Iterator[None]:
    """Connects the processes of a run on several devices; does nothing for one device.

    Raises ConfigError if torchrun has not started one process for each device, LabError when another process ends.
    """
    check_launch(devices)
    if devices == 1:
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    except RuntimeError as error:
        if "gloo" not in str(error):
            raise
        raise LabError("another process of the run has ended or does not answer; the same command goes on") from None
    finally:
        dist.destroy_process_group()


@contextmanager
def silence_secondary() -> Iterator[None]:
    """Discards what a process other than the first prints; the traceback of an unexpected error is still shown."""
    if not is_secondary():
        yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises the error instead of printing it
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


def decide_once(decide: Callable[[], T]) -> T:
    """The first process's answer, in every process. If `decide` raises there, the others exit with status 1."""
    if world_size() == 1:
        return decide()
    answers: list[T | None] = [None]
    try:
        if rank() == 0:
            answers = [decide()]
    finally:
        dist.broadcast_object_list(answers, 0)
    if answers[0] is None:
        sys.exit(1)
    return answers[0]


def rank() -> int:
    """This process's number among those that train together, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The processes that train together; 1 outside of training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce(value: Tensor, operation: str = "SUM") -> Tensor:
    """The sum over all processes, or MIN; in a new tensor where there are several."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value, getattr(dist.ReduceOp, operation))
    return value


def gather(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks."""
    values = [value] * world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values
