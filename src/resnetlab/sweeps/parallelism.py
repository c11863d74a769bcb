"""How many jobs run at once, and how the machine's cores and GPUs are divided among them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from resnetlab.config.schema import Config


class JobResources(NamedTuple):
    """jobs: at once. threads: of each. devices: GPUs that take turns, "" where there is no choice."""

    jobs: int
    threads: int
    devices: tuple[str, ...] = ("",)

    def environment(self, slot: int, threads: int | None = None) -> dict[str, str]:
        """The variables of the job in that slot, beside the inherited ones.

        OMP_NUM_THREADS, and not the key `threads`, because that would be another run, in another folder; what the
        user has put there stays.
        """
        count = str(threads or os.environ.get("OMP_NUM_THREADS") or self.threads)
        device = self.devices[slot % len(self.devices)]
        return {"OMP_NUM_THREADS": count, **({"CUDA_VISIBLE_DEVICES": device} if device else {})}


def resources_per_job(configs: Sequence[Config], jobs: int | None, runs_per_device: int) -> JobResources:
    """Divides the cores and GPUs among `jobs` at once; null: one a core, or runs_per_device a GPU.

    The number of jobs left to run plays no part: the same command again computes with the same threads.
    """
    gpus: tuple[str, ...] = ()
    if gpus_per_job(configs, None):  # by the names that CUDA_VISIBLE_DEVICES takes
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names, count = [name.strip() for name in listed.split(",") if name.strip()], torch.cuda.device_count()
        gpus = tuple(names[:count] or map(str, range(count)))
    at_once = jobs or (runs_per_device * len(gpus) if gpus else cores())
    return JobResources(at_once, max(1, cores() // at_once), gpus or ("",))


def jobs_at_once(launcher: str, values: Mapping[str, Any], configs: Sequence[Config]) -> int | None:
    """How many jobs the launcher runs at once, with its values; None where it is not known here."""
    if launcher == "processes":
        return resources_per_job(configs, values["jobs"], values["runs_per_device"]).jobs
    if launcher == "one_process":
        return int(values["jobs"])
    if launcher == "joblib":
        return int(values["n_jobs"]) if values["n_jobs"] > 0 else cores()
    if launcher.startswith("submitit"):
        return int(values.get("array_parallelism", cores()))  # submitit_local starts all
    if launcher != "ray":
        return 1
    if values["address"] is not None:
        return None  # a cluster elsewhere, which may grow
    fit = cores() / values["num_cpus"]
    if gpus := gpus_per_job(configs, values["num_gpus"]):
        fit = min(fit, torch.cuda.device_count() / gpus)
    return max(1, int(fit))


def gpus_per_job(configs: Sequence[Config], asked: float | None) -> float:
    """The number asked for; null: one if any of the jobs would use it."""
    return float(any(c.trainer.resolved_accelerator == "cuda" for c in configs)) if asked is None else asked


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
