"""The identity of a configuration, and the folder name made from it."""

from dataclasses import fields
from typing import Any

from resnetlab.config.schema import GROUPS, Config
from resnetlab.runs.files import digest
from resnetlab.runs.layout import OUTPUTS, RunFolder, seed_folder

# what does not change a run's figures: where things are, what is shown, what is read off them afterwards
NOT_IDENTITY = {
    *("study", "seed", "force", "thresholds", "objective", "snapshots", "data.root", "data.eval_batch_size", "engine"),
    *("trainer", "trainer.progress", "trainer.accelerator", "trainer.precision", "trainer.chunk", "trainer.profile"),
}

# top-level keys that stand in the folder's name when they are not at their defaults
READABLE = {
    "epochs": "e",
    "batch_size": "b",
    "lr": "lr",
    "wd": "wd",
    "l2": "l2",
    "momentum": "m",
    "ema_momentum": "ema",
    "shift": "shift",
    "data.limit": "limit",
    "model.depth": "depth",
    "trainer.devices": "devices",
}


def identity(config: Config) -> dict[str, Any]:
    """What a run is: its choices, and every other value that differs from its default.

    A key that is added later leaves the identity of old runs alone, because they have its default; so does a group,
    whose default is its option "none".
    """
    defaults = {
        "wd": config.regularization.default_wd,
        "l2": config.regularization.default_l2,
        "momentum": config.optimizer.default_momentum,
        "ema_momentum": config.averaging.default_momentum,
    }
    values: dict[str, Any] = {}
    for field in fields(config):
        part: Any = getattr(config, field.name)
        if field.name in GROUPS:
            option = GROUPS[field.name][part.name]
            blank = option() if isinstance(option, type) else option
            if (field.name, part.name) != ("averaging", "none"):
                values[field.name] = part.name
            for key in fields(part):
                value = getattr(part, key.name)
                if value != getattr(blank, key.name):
                    values[f"{field.name}.{key.name}"] = as_floats(value)
        elif part is not None and part != defaults.get(field.name, field.default):
            values[field.name] = part
    if config.trainer.resolved_precision != "32-true":
        values["precision"] = config.trainer.resolved_precision  # auto means another one on another device
    return {key: value for key, value in values.items() if key not in NOT_IDENTITY}


def as_floats(value: Any) -> Any:
    """[[20, 1]] and [[20, 1.0]] are one schedule."""
    if isinstance(value, list):
        return [float(x) if isinstance(x, int) and not isinstance(x, bool) else as_floats(x) for x in value]
    return value


def configuration_name(config: Config) -> str:
    """For example resnet56v2-cifar10-adamw-piecewise_linear-weight_decay-wd0.1-3f9a2c71."""
    values = identity(config)
    parts = [config.model.name, config.data.name, config.optimizer.name, config.schedule.name]
    parts += [config.regularization.name, *([] if config.averaging.name == "none" else [config.averaging.name])]
    parts += [f"{short}{values[key]:g}" for key, short in READABLE.items() if key in values]
    return "-".join([*parts, digest(values)])


def run_folder(config: Config) -> RunFolder:
    """outputs/<study>/<choices>-<hash>/seed=<n>, below the current folder."""
    return RunFolder(OUTPUTS / config.study / configuration_name(config) / seed_folder(config.seed))
