"""The other processes of a run on several devices, as the first one starts, watches and ends them."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from resnetlab.errors import LabError
from resnetlab.sweeps.child_process import import_path
from resnetlab.training.distributed import FOLLOWER

GRACE_SECONDS = 10.0  # for the first process to notice by itself, and for the others to end by themselves
LOOK_SECONDS = 0.5


def threads_of(threads: int | None, devices: int) -> int | None:
    """torch's CPU threads of each process: `threads`, or else their share of what one would have; None: as it is."""
    if threads is not None or devices == 1 or "OMP_NUM_THREADS" in os.environ:
        return threads
    return max(1, torch.get_num_threads() // devices)


@contextmanager
def with_followers(config: Path, devices: int) -> Iterator[None]:
    """Around the training: the other processes run, and none outlives it. config: the run's config.yaml.

    Afterwards this process is alone again, and its environment as it was. Raises LabError if another one has died.
    """
    if devices == 1:
        yield
        return
    environment = dict(os.environ)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(devices)}
    os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": "0"}  # Lightning: somebody else starts the processes
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    children = [start(config, number) for number in range(1, devices)]
    ended = threading.Event()
    threading.Thread(target=watch, args=(children, ended), daemon=True).start()
    try:
        yield
    except RuntimeError:  # gloo's, when the process at the other end is gone
        if (number := dead(children, GRACE_SECONDS)) is not None:
            raise LabError(dead_process_message(number)) from None
        raise
    finally:
        ended.set()
        if dist.is_initialized():
            dist.destroy_process_group()
        end(children, GRACE_SECONDS if sys.exc_info()[0] is None else 0.0)
        os.environ.clear()
        os.environ.update(environment)


def start(config: Path, number: int) -> "subprocess.Popen[bytes]":
    """The process of device `number`, in a session of its own, so that a Ctrl-C reaches it through this one only."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "resnetlab.training.follower", str(config)],
        stdin=subprocess.PIPE,  # its end tells the process that this one is gone
        env={**os.environ, "PYTHONPATH": import_path(), "LOCAL_RANK": str(number), FOLLOWER: "1"},
        start_new_session=True,
    )


def watch(children: "list[subprocess.Popen[bytes]]", ended: threading.Event) -> None:
    """Ends this process when another one has died and this one, waiting for it in torch, does not notice."""
    while not ended.wait(LOOK_SECONDS):
        if (number := dead(children)) is not None and not ended.wait(GRACE_SECONDS):
            print(f"error: {dead_process_message(number)}", file=sys.stderr, flush=True)
            os._exit(1)


def dead(children: "list[subprocess.Popen[bytes]]", patience: float = 0.0) -> int | None:
    """The number of a device whose process has ended with an error, within `patience` seconds: a closed connection is
    seen before an exit status."""
    ended = threading.Event()
    for _ in range(1 + int(patience / LOOK_SECONDS)):
        for number, child in enumerate(children, 1):
            if child.poll():
                return number
        if patience:
            ended.wait(LOOK_SECONDS)
    return None


def dead_process_message(number: int) -> str:
    return f"the process of device {number} has died; the same command goes on"


def end(children: "list[subprocess.Popen[bytes]]", patience: float) -> None:
    """Waits for the processes, and kills what has not ended."""
    for child in children:
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdin is not None:
            child.stdin.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
