"""Hydra's launchers: the package that each needs, and what its values must be.

A new launcher of another package needs a row in launchers.toml at most; one of resnetlab's own also a class in
hydra_plugins/resnetlab_launchers.py and the backend that it names.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import Any
from unittest.mock import patch

import torch
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import MissingConfigException
from omegaconf import DictConfig

from resnetlab.config.overrides import hydra_settings
from resnetlab.config.schema import Config
from resnetlab.errors import ConfigError, check_limits, require
from resnetlab.runs.files import data_beside
from resnetlab.runs.sweep_records import NO_OBJECTIVE, Outcome, SweepFolder
from resnetlab.sweeps.parallelism import cores
from resnetlab.sweeps.process_setup import end_with_parent

LOST = "its job {} ended without a result (killed, cancelled or out of time; the same command goes on)"


def tolerate_lost_jobs(folder: SweepFolder) -> AbstractContextManager[Any]:
    """Makes submitit's launchers wait for every job.

    hydra-submitit-launcher 1.2 asks one job after the other for its result and gives up at the first that has none,
    while others are queued or training.
    """
    from submitit.core import core, utils

    original: Any = core.Job.results

    def results(job: Any) -> list[Any]:
        try:
            return original(job)
        except utils.UncompletedJobError:
            number = job.submission().args[2]  # of the launcher's call: overrides, a key, the job's number
            if number not in folder.outcomes():
                folder.record(number, Outcome("failed", reason=LOST.format(job.job_id), log=str(job.paths.stderr)))
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=NO_OBJECTIVE)]

    return patch.object(core.Job, "results", results)


def end_workers_with_parent(folder: SweepFolder) -> AbstractContextManager[Any]:
    """Makes joblib's workers end with this process, also by a kill: they would wait for jobs for five minutes."""
    module: Any = import_module("hydra_plugins.hydra_joblib_launcher._core")
    ending = partial(module.Parallel, initializer=end_with_parent, initargs=((), os.getpid()))
    return patch.object(module, "Parallel", ending)


LAUNCHERS = data_beside(__file__, "launchers.toml")  # its rows; {} for a launcher of another package
LAUNCHERS |= {"submitit_slurm": LAUNCHERS["submitit_local"]}
AROUND: dict[str, Callable[[SweepFolder], AbstractContextManager[Any]]] = {  # a context in which it runs
    **{"joblib": end_workers_with_parent, "submitit_local": tolerate_lost_jobs, "submitit_slurm": tolerate_lost_jobs},
}


def choice(settings: DictConfig, group: str) -> str:
    """The launcher's or sweeper's name, as the command line or its preset chooses. settings: Hydra's own part."""
    return str(settings.runtime.choices[f"hydra/{group}"])


def checked_settings(overrides: Sequence[str]) -> DictConfig:
    """Hydra's own part of the configuration, its launcher and sweeper checked.

    Call it within hydra_context. Raises ConfigError or one of Hydra's errors.
    """
    try:
        settings = hydra_settings(overrides)
    except MissingConfigException as error:
        check_installed(str(error.missing_cfg_file).removeprefix("hydra/launcher/"))
        raise
    check_launcher(choice(settings, "launcher"), dict(settings.launcher))
    known = choice(settings, "sweeper") in ("basic", "optuna", "seeds")
    check_limits("hydra.sweeper", dict(settings.sweeper) if known else {})
    return settings


def check_installed(name: str) -> None:
    """Raises ConfigError for a launcher whose package is missing."""
    row = LAUNCHERS.get(name, {})
    if "module" in row and find_spec(row["module"]) is None:
        raise ConfigError(f"hydra/launcher={name} needs a package that is not here: pip install {row['package']}")
    if name == "submitit_slurm" and which("srun") is None:
        raise ConfigError(f"hydra/launcher={name} needs SLURM's srun, which is not here; take submitit_local")


def check_launcher(name: str, values: Mapping[str, Any]) -> None:
    """Raises ConfigError if its package is missing, or for a value that it cannot have or this machine has not."""
    check_installed(name)
    check_limits("hydra.launcher", {**values, "name": name} if name in LAUNCHERS else {})
    for key, choices in LAUNCHERS.get(name, {}).get("choices", {}).items():
        value = "null" if values.get(key) is None else values[key]
        require(value in choices, f"hydra.launcher.{key}", value, f"be {' or '.join(choices)}")
    require(values.get("n_jobs") != 0, "hydra.launcher.n_jobs", 0, "be a number of jobs, or -1 for all cores")
    require(values.get("address") != "", "hydra.launcher.address", "''", "be a cluster's, auto or null: this machine")
    if name == "ray" and values.get("address") is None:
        for key, here in (("num_cpus", cores()), ("num_gpus", torch.cuda.device_count())):
            value = values.get(key)
            require((value or 0) <= here, f"hydra.launcher.{key}", value, f"be at most {here}, what this machine has")


def check_jobs(configs: Sequence[Config], launcher: str) -> None:
    """Raises ConfigError for a run that cannot be a job of a sweep, or of this launcher's."""
    most = max(config.trainer.devices for config in configs)
    must = "be 1 with -m: a sweep gives each run one device (hydra/launcher=processes); run it by a command of its own"
    require(most == 1, "trainer.devices", most, must)
    for config in configs if launcher == "one_process" else ():
        profile, shared = config.trainer.profile, {"wandb", "trackio"} & set(config.logger.chosen)
        must = f"be left out with hydra/launcher={launcher}: a process has it for one run only; take processes"
        require(profile is None, "trainer.profile", profile, must)
        require(not shared, "logger", ",".join(sorted(shared)), must)
