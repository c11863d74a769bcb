"""Hydra's launchers processes, one_process and ray, where it looks for them. Imported at every start: nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ProcessesConf:
    """A process for each job, `jobs` at once."""

    _target_: str = "hydra_plugins.resnetlab_launchers.ProcessesLauncher"
    jobs: int | None = None  # at once; null: as many as there are cores, or runs_per_device on every GPU
    runs_per_device: int = 1
    retries: int = 1  # of a job whose process was killed


@dataclass
class OneProcessConf:
    """Several jobs in this process, which compute in turn: on a GPU each has a graph and a stream of its own."""

    _target_: str = "hydra_plugins.resnetlab_launchers.OneProcessLauncher"
    jobs: int = 2  # at once; on a GPU no more than its memory holds


@dataclass
class RayConf:
    """A task of Ray for each job."""

    _target_: str = "hydra_plugins.resnetlab_launchers.RayLauncher"
    address: str | None = None  # of a running cluster, such as auto; null: one of this machine, for the sweep's time
    num_cpus: int = 1  # of a job, and its threads
    num_gpus: float | None = None  # of a job; 0.5: two share one; null: 1 where this machine has any
    retries: int = 1  # of a job whose worker was killed


for name, node in (("processes", ProcessesConf), ("one_process", OneProcessConf), ("ray", RayConf)):
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="resnetlab")


class WorkerLauncher(Launcher):
    """Trains every job in a worker of its own, and returns the objectives. backend: in sweeps, imported when needed."""

    backend: str

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.task_function = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from resnetlab.sweeps.launch import launch

        return launch(self, job_overrides, initial_job_idx)


class ProcessesLauncher(WorkerLauncher):
    backend = "processes:Processes"


class OneProcessLauncher(WorkerLauncher):
    backend = "one_process:OneProcess"


class RayLauncher(WorkerLauncher):
    backend = "ray_tasks:RayTasks"
