"""How many jobs at once, with how many threads, on which device."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from resnetlab.config import Config
from resnetlab.errors import ConfigError

__all__ = ["Share", "check_launcher", "cores", "gpus_of_a_job", "share"]


@dataclass(frozen=True)
class Share:
    """jobs at once, threads for each of them, and the devices that take turns ("" where there is no choice)."""

    jobs: int
    threads: int
    devices: tuple[str, ...] = ("",)

    def environment(self, slot: int, threads: int | None = None) -> dict[str, str]:
        """What the job in that slot finds in its environment, beside what is there.

        OMP_NUM_THREADS, and not the key `threads`, because that would be another run, in another folder; what the
        user has put there stays.
        """
        count = str(threads or os.environ.get("OMP_NUM_THREADS") or self.threads)
        device = self.devices[slot % len(self.devices)]
        return {"OMP_NUM_THREADS": count, **({"CUDA_VISIBLE_DEVICES": device} if device else {})}


def check_launcher(values: Mapping[str, int | None]) -> None:
    """Raises ConfigError for a value of hydra/launcher=processes that makes no sense."""
    for key, least in (("jobs", 1), ("runs_per_device", 1), ("retries", 0)):
        value = values.get(key)
        if value is not None and not least <= value <= 1024:
            raise ConfigError(f"hydra.launcher.{key} (={value}) must be in {least}..1024")


def share(configs: list[Config], jobs: int | None, runs_per_device: int) -> Share:
    """The machine's cores and GPUs divided among the jobs that run at once.

    It does not depend on how many jobs are left to run: the same command again computes with the same threads.
    """
    gpus = visible_gpus() if any(c.trainer.resolved_accelerator == "cuda" for c in configs) else ()
    at_once = jobs or (runs_per_device * len(gpus) if gpus else cores())
    return Share(at_once, max(1, cores() // at_once), gpus or ("",))


def gpus_of_a_job(configs: list[Config], asked: float | None) -> float:
    """What is asked for, or one where the jobs would use it."""
    return float(any(c.trainer.resolved_accelerator == "cuda" for c in configs)) if asked is None else asked


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> tuple[str, ...]:
    """The names that CUDA_VISIBLE_DEVICES takes."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in listed.split(",") if name.strip()]
    count = torch.cuda.device_count()
    return tuple(names[:count] or map(str, range(count)))
