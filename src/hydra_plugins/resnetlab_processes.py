"""hydra/launcher=processes, where Hydra looks for launchers. It imports this at every start: nothing heavy up here."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ProcessesConf:
    """A process for each job, `jobs` at once."""

    _target_: str = "hydra_plugins.resnetlab_processes.ProcessesLauncher"
    jobs: int | None = None  # at once; null: as many as there are cores, or runs_per_device on every GPU
    runs_per_device: int = 1
    retries: int = 1  # of a job whose process was killed


ConfigStore.instance().store(group="hydra/launcher", name="processes", node=ProcessesConf, provider="resnetlab")


class ProcessesLauncher(Launcher):
    """Trains every job in a process of its own, and returns the objectives."""

    def __init__(self, jobs: int | None, runs_per_device: int, retries: int) -> None:
        self.jobs, self.runs_per_device, self.retries = jobs, runs_per_device, retries

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from resnetlab.sweeps.hydra_launcher import launch

        return launch(self, job_overrides, initial_job_idx)
