"""hydra/sweeper=optuna and seeds, where Hydra looks for sweepers. It imports this at every start: nothing heavy."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class OptunaConf:
    """A search for the largest objective, one trial a run."""

    _target_: str = "hydra_plugins.resnetlab_sweepers.CheckedSweeper"
    n_trials: int = 20  # of the whole search: the same command again does what is missing
    at_once: int | None = None  # trials asked for together; null: as many as the launcher runs at once
    sampler: str = "tpe"  # tpe | random
    seed: int = 0  # the sampler's
    startup_trials: int = 5  # the first ones, drawn at random and (with the median) trained to the end
    pruner: str = "median"  # median | asha | hyperband | none
    warmup_epochs: int | None = None  # that every run is trained before it can be pruned; null: a third of its epochs
    storage: str | None = None  # a file; null: search.journal in outputs/<study>/search/<keys>-<hash>


@dataclass
class SeedsConf:
    """Further seeds of every configuration until the sweep's question is decided; the objective is compared."""

    _target_: str = "hydra_plugins.resnetlab_sweepers.CheckedSweeper"
    params: dict[str, Any] | None = None  # a preset's sweep
    alpha: float = 0.05  # chance that any verdict of the sweep is wrong
    least_difference: float = 0.005  # of two means, that matters; below it they count as equal
    max_seeds: int = 20  # of a configuration
    baseline: str = "best"  # or the configuration that all others are compared with, as the table names it: wd=0.1


for name, node in (("optuna", OptunaConf), ("seeds", SeedsConf)):
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node, provider="resnetlab")


class CheckedSweeper(Sweeper):
    """Runs the search that train.py has checked, or its rounds of seeds, the jobs by the launcher."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.task_function = task_function
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        self.arguments = arguments
        self.task_function.search.run(self, self.task_function)  # type: ignore[attr-defined]
