"""The plan of a search: its space and options, read from the command line and checked before any work."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra

from hydra_plugins.resnetlab_sweepers import OptunaConf
from resnetlab.config.compose import hydra_context, parse
from resnetlab.config.messages import USAGE_ERRORS, error_message
from resnetlab.config.schema import Config
from resnetlab.errors import ConfigError, require
from resnetlab.runs.files import digest
from resnetlab.runs.layout import SEARCH_JOURNAL
from resnetlab.sweeps.launchers import checked_settings, choice
from resnetlab.sweeps.parallelism import jobs_at_once
from resnetlab.sweeps.search.space import Space

FREE = ("_target_", "n_trials", "at_once", "storage")  # may differ between two launches of one search


class SearchPlan(NamedTuple):
    """A search. config: of the first value of every key. epochs: of the longest run. at_once: trials asked together."""

    space: Space
    options: OptunaConf
    config: Config
    epochs: int
    at_once: int

    @property
    def signature(self) -> dict[str, Any]:
        """The search's identity: of two with the same, the second goes on with the first."""
        fixed = {key: value for key, value in self.config.identity.items() if key not in self.space.distributions}
        options = {key: value for key, value in vars(self.options).items() if key not in FREE}
        chosen = {"seed": self.config.seed, "objective": self.config.objective}
        return {"space": self.space.plain(), "configuration": fixed | chosen, "options": options}

    @property
    def storage(self) -> Path:
        """For example outputs/default/search/lr-schedule-wd-3f9a2c71/search.journal."""
        if self.options.storage:
            return Path(self.options.storage)
        keys = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "", key) for key in sorted(self.space.distributions))
        return self.config.study_folder / "search" / f"{keys[:80]}-{digest(self.signature)}" / SEARCH_JOURNAL


def make_plan(overrides: Sequence[str]) -> SearchPlan:
    """Reads the command line, and checks each choice and both ends of each interval as a job is.

    Raises ConfigError or one of Hydra's errors.
    """
    space = Space.read([override for override in overrides if not override.lstrip("+").startswith("hydra")])
    with hydra_context():
        configs = [configuration_at(space, values) for values in space.corners()]
        settings = checked_settings(overrides)
    options = OptunaConf(**dict(settings.sweeper))
    path = options.storage or ""
    require("://" not in path, "hydra.sweeper.storage", path, "be a file of its own, not a database")
    ordinary = not os.path.lexists(path) or os.path.isfile(path)
    require(ordinary, "hydra.sweeper.storage", path, "be an ordinary file, or one that is not there yet")
    launcher = choice(settings, "launcher")
    at_once = options.at_once or jobs_at_once(launcher, dict(settings.launcher), configs)
    if at_once is None:
        room = f"how many runs hydra.launcher.address (={settings.launcher.address}) has room for is not known here"
        raise ConfigError(f"hydra.sweeper.at_once must be given: {room}; such as hydra.sweeper.at_once=8")
    return SearchPlan(space, options, configs[0], max(c.epochs for c in configs), at_once)


def configuration_at(space: Space, values: Mapping[str, Any]) -> Config:
    """The configuration of these values. Raises ConfigError that names them."""
    try:
        return parse(hydra.compose("config", overrides=space.job(values)))
    except USAGE_ERRORS as error:
        tried = " ".join(f"{key}={value}" for key, value in values.items())
        raise ConfigError(f"{error_message(error)} (tried for the search: {tried})") from None
