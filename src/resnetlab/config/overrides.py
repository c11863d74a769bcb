"""The command line of train.py: what Hydra takes and what it does not, and the configurations of all its jobs."""

import re
from collections.abc import Mapping, Sequence, Set
from itertools import product

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from resnetlab.config.compose import parse
from resnetlab.config.schema import GROUPS, Config, conf_dir
from resnetlab.errors import ConfigError

SEARCH = "hydra/sweeper=optuna"
HYDRAS = ("hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.")  # the keys of Hydra's own to set


def normalize_arguments(arguments: Sequence[str]) -> list[str]:
    """Moves -m to the front, where argparse accepts overrides on both sides of it, and spells out seeds=N.

    A search is a sweep, with or without -m.

    >>> expand_arguments(["lr=0.1", "-m", "wd=0.1,0.2", "seeds=3"])
    ['-m', 'lr=0.1', 'wd=0.1,0.2', 'seed=range(0,3)']
    """
    overrides, flags = [], []
    for argument in arguments:
        check_argument(argument)
        if argument in ("-m", "--multirun"):
            flags = ["-m"]
        elif argument.startswith("seeds="):
            count = argument.removeprefix("seeds=")
            if not re.fullmatch(r"[1-9]\d{0,5}", count):
                raise ConfigError(f"seeds (={count}) must be a number of seeds, such as 5 for seed=0..4")
            flags = ["-m"]
            overrides.append(f"seed=range(0,{count})")
        elif argument == SEARCH:
            flags = ["-m"]
            overrides.append(argument)
        elif argument != "experiment=null":  # what conf/config.yaml says, which Hydra does not take back
            overrides.append(argument)
    twice = [override for override in overrides if override.lstrip("+").startswith("seed=")]
    if len(twice) > 1:
        raise ConfigError(f"{' '.join(twice)}: seeds=N stands for seed=0..N-1; give one of seeds and seed, once")
    return [*flags, *overrides]


def check_argument(argument: str) -> None:
    """Raises ConfigError for what Hydra takes and we do not."""
    key, _, value = argument.partition("=")
    if key.lstrip("+~").startswith("hydra") and not key.startswith(HYDRAS):
        raise ConfigError(f"{key} is not supported; of Hydra's own keys these are: {', '.join(HYDRAS)}")
    if key in ("hydra/launcher", "hydra/sweeper") and value in ("", "null"):
        raise ConfigError(f"{key} (={value}) must name one; leave it out for Hydra's own")
    if key in ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"):
        raise ConfigError(f"{key} is not supported; put your files into {conf_dir()}")
    if key.startswith("~"):
        raise ConfigError(f"{key} is not supported: a key cannot be removed; give it the value that you want")
    if key.removesuffix(".name") in GROUPS and key.endswith(".name"):
        raise ConfigError(f"{key} (={value}) cannot be set by itself; choose with {key.removesuffix('.name')}=...")
    if value.startswith("glob("):
        raise ConfigError(f"{argument} is not supported; write the options out: {key}=a,b,c")
    if key in GROUPS and value == "null":
        raise ConfigError(f"{key} (=null) must be one of {', '.join(GROUPS[key])}")


def configurations_of(overrides: Sequence[str], multirun: bool) -> list[Config]:
    """The configurations that the command line means, in the sweep's order; raises for the first that is wrong."""
    return [config for _, config in compose_jobs(overrides, multirun)]


def compose_jobs(overrides: Sequence[str], multirun: bool) -> list[tuple[str, Config]]:
    """The same with what tells each job from the others: "wd=0.1, seed=0", or "" for one job alone."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        batches: list[list[str]] = [list(overrides)]
        sweeps = preset_sweep(hydra_settings(overrides))
        if multirun:
            for override in parsed:
                if override.is_sweep_override() and str(override.key_or_group).startswith("hydra"):
                    raise ConfigError(f"{override.input_line} is not supported: a sweep is over the lab's own keys")
                if override.is_sweep_override() and not override.is_discrete_sweep():
                    raise ConfigError(f"{override.input_line} is no list of values; {SEARCH} searches an interval")
            spelt = OverridesParser.create().parse_overrides([f"{key}={values}" for key, values in sweeps.items()])
            batches = expand_sweep([*spelt, *parsed])
        else:
            require_multirun_flag(sweeps, {override.get_key_element() for override in parsed})
        nodes = [hydra.compose("config", overrides=batch, return_hydra_config=True) for batch in batches]
        for node, batch in zip(nodes, batches, strict=True):
            if preset_sweep(node.hydra) != sweeps:
                chosen = next(override for override in batch if override.startswith("experiment="))
                raise ConfigError(f"{chosen} is a sweep of its own and cannot be one value of another; give it alone")
        configs = [parse(node) for node in nodes]
    return list(zip(job_labels(batches), configs, strict=True))


def expand_sweep(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each job: all combinations, the last key fastest; a key given twice has its last values."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key, swept = override.get_key_element(), override.is_sweep_override()
        texts = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
        values[key] = [f"{key}={text}" for text in texts]
    return [list(job) for job in product(*values.values())]


def hydra_settings(overrides: Sequence[str]) -> DictConfig:
    """Hydra's own part of the configuration, as its sweeper and launcher find it.

    Call it within hydra.initialize_config_dir. Raises one of Hydra's errors.
    """
    chosen = [
        str(override.input_line)
        for override in OverridesParser.create().parse_overrides(list(overrides))
        if str(override.key_or_group).startswith(("experiment", "hydra")) and not override.is_sweep_override()
    ]
    settings: DictConfig = hydra.compose("config", overrides=chosen, return_hydra_config=True).hydra
    return settings


def preset_sweep(settings: DictConfig) -> dict[str, str]:
    """The sweep that a preset brings along, {"batch_size": "32,64,128"}, over which the command line wins."""
    return dict(settings.sweeper.get("params") or {})


def require_multirun_flag(sweeps: Mapping[str, str], given: Set[str]) -> None:
    """Raises ConfigError for a preset that is a sweep, without -m; not if the command line says one value of each."""
    left = [f"{key}={values}" for key, values in sweeps.items() if key not in given]
    if left:
        raise ConfigError(
            f"this preset is a sweep over {' '.join(left)}: add -m, or one value, {left[0].split(',')[0]}"
        )


def job_labels(batches: Sequence[Sequence[str]]) -> list[str]:
    """What tells the jobs' overrides apart: "wd=0.1, seed=0", or "" for one job alone."""
    shared = set(batches[0]).intersection(*batches) if batches else set()
    return [", ".join(o for o in batch if o not in shared) for batch in batches]


def jobs_of(arguments: Sequence[str]) -> list[tuple[str, Config]]:
    """(label, configuration) of each job of train.py's command line; a comma makes a sweep, with or without -m."""
    overrides = [argument for argument in normalize_arguments(arguments) if argument != "-m"]
    found = compose_jobs(overrides, multirun=True)
    if not found:
        raise ConfigError("the sweep has no jobs; one of its ranges or lists is empty")
    if len({label for label, _ in found}) < len(found):
        raise ConfigError("two jobs of the sweep are the same; name each value once")
    return found
