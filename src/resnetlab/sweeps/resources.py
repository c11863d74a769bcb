"""How many jobs at once, with how many threads, on which device."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from resnetlab.config.schema import Config


@dataclass(frozen=True)
class JobResources:
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


MOST = 1024
BOUNDS = {  # of the launchers' values
    **{"jobs": (1, MOST), "runs_per_device": (1, MOST), "retries": (0, MOST)},
    **{"num_cpus": (1, MOST), "num_gpus": (0, MOST)},
    **{"timeout_min": (1, 525_600), "cpus_per_task": (1, MOST), "gpus_per_node": (0, MOST), "mem_gb": (1, 100_000)},
    **{"array_parallelism": (1, 100_000), "max_num_timeout": (0, MOST)},
    **{"tasks_per_node": (1, 1), "nodes": (1, 1)},  # several would train one run at once
}


def resources_per_job(configs: list[Config], jobs: int | None, runs_per_device: int) -> JobResources:
    """The machine's cores and GPUs divided among the jobs that run at once.

    It does not depend on how many jobs are left to run: the same command again computes with the same threads.
    """
    gpus = visible_gpus() if any(c.trainer.resolved_accelerator == "cuda" for c in configs) else ()
    at_once = jobs or (runs_per_device * len(gpus) if gpus else cores())
    return JobResources(at_once, max(1, cores() // at_once), gpus or ("",))


def jobs_at_once(launcher: Mapping[str, Any], configs: list[Config]) -> int | None:
    """How many jobs a launcher of these values has running; None for Ray's on a cluster elsewhere, which may grow."""
    if "runs_per_device" in launcher:  # processes
        return resources_per_job(configs, launcher["jobs"], launcher["runs_per_device"]).jobs
    if "n_jobs" in launcher:  # joblib
        return launcher["n_jobs"] if launcher["n_jobs"] > 0 else cores()
    if "num_cpus" in launcher:  # ray
        if launcher["address"] is not None:
            return None
        room = cores() / launcher["num_cpus"]
        if gpus := gpus_per_job(configs, launcher["num_gpus"]):
            room = min(room, torch.cuda.device_count() / gpus)
        return max(1, int(room))
    if "timeout_min" in launcher:  # submitit_slurm, and submitit_local, which starts all
        return int(launcher.get("array_parallelism", cores()))
    return 1


def gpus_per_job(configs: list[Config], asked: float | None) -> float:
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
