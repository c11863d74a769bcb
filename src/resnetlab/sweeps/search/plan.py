"""What is going to be searched and how: read from the command line, and checked before any work."""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from resnetlab.config.compose import parse
from resnetlab.config.identity import identity
from resnetlab.config.messages import REFUSALS, error_message
from resnetlab.config.schema import Config, conf_dir
from resnetlab.errors import ConfigError
from resnetlab.runs.files import digest
from resnetlab.runs.layout import OUTPUTS
from resnetlab.sweeps.launchers import checked_settings
from resnetlab.sweeps.resources import jobs_at_once
from resnetlab.sweeps.search.space import Space

FREE = ("n_trials", "at_once", "storage")  # may differ between two launches of one search


@dataclass(frozen=True)
class Options:
    """The keys of hydra.sweeper, their defaults in hydra_plugins/resnetlab_optuna.py."""

    n_trials: int
    at_once: int | None
    sampler: str
    seed: int
    startup_trials: int
    pruner: str
    warmup_epochs: int | None
    storage: str | None

    @classmethod
    def read(cls, node: Mapping[str, Any]) -> "Options":
        """Raises ConfigError for a value that makes no sense."""
        options = cls(**{key: value for key, value in node.items() if key != "_target_"})
        for key, least, most in (
            *(("n_trials", 1, 100_000), ("at_once", 1, 1024), ("seed", 0, 2**32 - 1)),
            *(("startup_trials", 1, 100_000), ("warmup_epochs", 1, 100_000)),
        ):
            value = getattr(options, key)
            if not (value is None and key in ("at_once", "warmup_epochs")) and not least <= value <= most:
                raise ConfigError(f"hydra.sweeper.{key} (={value}) must be in {least}..{most:,}")
        for key, valid in (("sampler", ("tpe", "random")), ("pruner", ("median", "asha", "hyperband", "none"))):
            if (name := getattr(options, key)) not in valid:
                raise ConfigError(f"hydra.sweeper.{key} (={name}) must be one of {', '.join(valid)}")
        if options.storage is not None and "://" in options.storage:
            raise ConfigError(f"hydra.sweeper.storage (={options.storage}) must be a file of its own, not a database")
        return options

    def make_sampler(self, number: int) -> BaseSampler:
        """The sampler of one trial: its chance is made from (seed, number), so that a search goes on as it began."""
        seed = int(digest([self.seed, number]), 16)
        if self.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=self.startup_trials)

    def warmup(self, epochs: int) -> int:
        """The epochs that every run is trained. Of the longest run: `epochs`."""
        return min(epochs, self.warmup_epochs or math.ceil(epochs / 3))

    def make_pruner(self, epochs: int) -> BasePruner:
        """Time is counted in epochs from 1. epochs: of the longest run."""
        least = self.warmup(epochs)
        if self.pruner == "median":
            return MedianPruner(n_startup_trials=self.startup_trials, n_warmup_steps=least)
        if self.pruner == "asha":
            return SuccessiveHalvingPruner(min_resource=least)
        if self.pruner == "hyperband":
            return HyperbandPruner(min_resource=least, max_resource=epochs)
        return NopPruner()


@dataclass(frozen=True)
class SearchPlan:
    """A search. config: of the first value of every key. epochs: of the longest run. at_once: trials asked together."""

    space: Space
    options: Options
    config: Config
    epochs: int
    at_once: int

    @property
    def signature(self) -> dict[str, Any]:
        """What the search is: two that agree in this are one, and the second goes on with the first."""
        fixed = {key: value for key, value in identity(self.config).items() if key not in self.space.distributions}
        options = {key: value for key, value in vars(self.options).items() if key not in FREE}
        chosen = {"seed": self.config.seed, "objective": self.config.objective}
        return {"space": self.space.plain(), "configuration": fixed | chosen, "options": options}

    @property
    def folder(self) -> Path:
        """For example outputs/default/search/lr-schedule-wd-3f9a2c71."""
        keys = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "", key) for key in sorted(self.space.distributions))
        return OUTPUTS / self.config.study / "search" / f"{keys[:80]}-{digest(self.signature)}"

    @property
    def storage(self) -> Path:
        return Path(self.options.storage) if self.options.storage else self.folder / "search.journal"


def make_plan(overrides: Sequence[str]) -> SearchPlan:
    """The search that the command line means, each choice and both ends of each interval checked as a job is.

    Raises ConfigError or one of Hydra's errors.
    """
    ours = [override for override in overrides if not override.lstrip("+").startswith("hydra")]
    space = Space.read(ours)
    with composer():
        configs = [check(space, values) for values in space.corners()]
        settings = checked_settings(overrides)
    options = Options.read(dict(settings.sweeper))
    at_once = options.at_once or jobs_at_once(dict(settings.launcher), configs)
    if at_once is None:
        raise ConfigError(
            f"hydra.sweeper.at_once must be given: how many runs hydra.launcher.address (={settings.launcher.address}) "
            f"has room for is not known here; such as hydra.sweeper.at_once=8"
        )
    return SearchPlan(space, options, configs[0], max(c.epochs for c in configs), at_once)


def composer() -> AbstractContextManager:
    """Within Hydra's own sweep there is one already."""
    if GlobalHydra.instance().is_initialized():
        return nullcontext()
    return hydra.initialize_config_dir(str(conf_dir()), version_base="1.3")


def check(space: Space, values: Mapping[str, Any]) -> Config:
    """Raises ConfigError that names the values."""
    try:
        return parse(hydra.compose("config", overrides=space.job(values)))
    except REFUSALS as error:
        tried = " ".join(f"{key}={value}" for key, value in values.items())
        raise ConfigError(f"{error_message(error)} (tried for the search: {tried})") from None
