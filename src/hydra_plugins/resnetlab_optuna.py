"""hydra/sweeper=optuna, where Hydra looks for sweepers. It imports this at every start: nothing heavy up here."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class OptunaConf:
    """A search for the largest objective, one trial a run."""

    _target_: str = "hydra_plugins.resnetlab_optuna.OptunaSweeper"
    n_trials: int = 20  # of the whole search: the same command again does what is missing
    at_once: int | None = None  # trials asked for together; null: as many as the launcher runs at once
    sampler: str = "tpe"  # tpe | random
    seed: int = 0  # the sampler's
    startup_trials: int = 5  # the first ones, drawn at random and (with the median) trained to the end
    pruner: str = "median"  # median | asha | hyperband | none
    warmup_epochs: int | None = None  # that every run is trained before it can be pruned; null: a third of its epochs
    storage: str | None = None  # a file; null: search.journal in outputs/<study>/search/<keys>-<hash>


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConf, provider="resnetlab")


class OptunaSweeper(Sweeper):
    """Runs the search that train.py has checked, its trials by the launcher."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.context, self.task_function, self.config = hydra_context, task_function, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        self.task_function.search.run(self, self.task_function)  # type: ignore[attr-defined]
