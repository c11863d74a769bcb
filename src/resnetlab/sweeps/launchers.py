"""The command line of train.py: what Hydra takes and what it does not, and the configurations of all its jobs."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from hydra.errors import MissingConfigException
from omegaconf import DictConfig

from resnetlab.config.overrides import hydra_settings
from resnetlab.config.schema import Config
from resnetlab.errors import ConfigError
from resnetlab.sweeps.resources import BOUNDS, cores


def checked_settings(overrides: Sequence[str]) -> DictConfig:
    """Hydra's own part of the configuration, with a launcher that can start. Within hydra_context.

    Raises ConfigError, or one of Hydra's errors.
    """
    try:
        settings = hydra_settings(overrides)
    except MissingConfigException as error:
        check_installed(str(error.missing_cfg_file).removeprefix("hydra/launcher/"))
        raise
    check_installed(launcher_of(settings))
    check_launcher(dict(settings.launcher))
    return settings


def is_search(settings: DictConfig) -> bool:
    """Whether the jobs are made up by Optuna, as the command line or its preset chooses. settings: Hydra's own part."""
    return str(settings.runtime.choices["hydra/sweeper"]) == "optuna"


def launcher_of(settings: DictConfig) -> str:
    """The launcher's name, as the command line or its preset chooses."""
    return str(settings.runtime.choices["hydra/launcher"])


def refuse_several_devices(configs: Iterable[Config]) -> None:
    """Raises ConfigError if a job of a sweep is a run on several devices."""
    if (most := max(config.trainer.devices for config in configs)) > 1:
        raise ConfigError(
            f"trainer.devices (={most}) cannot go with -m: a sweep gives each run one device "
            f"(hydra/launcher=processes); for a run on several give a command of its own"
        )


PACKAGES = {  # of the launchers that are not a part of Hydra or of ours: (module, what to install)
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "hydra-joblib-launcher"),
    "ray": ("ray", "ray"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "hydra-submitit-launcher"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "hydra-submitit-launcher"),
}


def check_installed(launcher: str) -> None:
    """Raises ConfigError for a launcher whose package is missing."""
    module, package = PACKAGES.get(launcher, ("resnetlab", ""))
    if find_spec(module) is None:
        raise ConfigError(f"hydra/launcher={launcher} needs a package that is not here: pip install {package}")


def check_launcher(values: Mapping[str, Any]) -> None:
    """Raises ConfigError for a value of a launcher that makes no sense, or that this machine cannot give."""
    for key, (least, most) in BOUNDS.items():
        value = values.get(key)
        if value is not None and not least <= value <= most:
            bounds = f"in {least}..{most}" if least < most else f"{least}"
            raise ConfigError(f"hydra.launcher.{key} (={value}) must be {bounds}")
    if "num_cpus" in values and values.get("address") is None:
        for key, here in (("num_cpus", cores()), ("num_gpus", torch.cuda.device_count())):
            if (values.get(key) or 0) > here:
                raise ConfigError(f"hydra.launcher.{key} (={values[key]}) is more than this machine has: {here}")
