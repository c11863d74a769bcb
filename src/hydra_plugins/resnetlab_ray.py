"""hydra/launcher=ray, where Hydra looks for launchers. It imports this at every start: nothing heavy up here."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class RayConf:
    """A task of Ray for each job."""

    _target_: str = "hydra_plugins.resnetlab_ray.RayLauncher"
    address: str | None = None  # of a running cluster, such as auto; null: one of this machine, for the sweep's time
    num_cpus: int = 1  # of a job, and its threads
    num_gpus: float | None = None  # of a job; 0.5: two share one; null: 1 where this machine has any
    retries: int = 1  # of a job whose worker was killed


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayConf, provider="resnetlab")


class RayLauncher(Launcher):
    """Trains every job as a task of Ray, and returns the objectives."""

    def __init__(self, address: str | None, num_cpus: int, num_gpus: float | None, retries: int) -> None:
        self.address, self.num_cpus, self.num_gpus, self.retries = address, num_cpus, num_gpus, retries

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from resnetlab.sweeps.hydra_launcher import launch_on_ray

        return launch_on_ray(self, job_overrides, initial_job_idx)
