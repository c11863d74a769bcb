"""Identity of a configuration, and the readable name of its folder, outputs/<study>/<name>/seed=<n>."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from resnetlab.runs.files import data_beside, digest, sha256
from resnetlab.runs.summary import CHOICES

KEYS = data_beside(__file__, "identity.toml")
NOT_IDENTITY = frozenset[str](KEYS["not_identity"])  # keys that do not change a run's metrics
READABLE: dict[str, str] = KEYS["readable"]  # {key: its characters in the folder's name}
SHORT, LONG = 8, 12  # hexadecimal digits at the end of a configuration's name, and of its folder's


def identity_of(config: Any, groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Choices of the groups, and every other value that differs from its default and changes the result.

    A key that is added later leaves the identity of old runs alone, because they have its default; so does a group,
    whose default is its option "none". groups: {group: {option: its defaults}}, as schema.GROUPS.
    """
    values: dict[str, Any] = {}
    for group, options in groups.items():
        values |= group_identity(group, getattr(config, group), options)
    defaults = {
        "wd": config.regularization.default_wd,
        "l2": config.regularization.default_l2,
        "momentum": config.optimizer.default_momentum,
        "ema_momentum": config.averaging.default_momentum,
    }
    for key in fields(config):
        value = getattr(config, key.name)
        default = key.default if key.default_factory is MISSING else key.default_factory()
        if key.name not in groups and value is not None and value != defaults.get(key.name, default):
            values[key.name] = value
    if config.trainer.resolved_precision != "32-true":
        values["precision"] = config.trainer.resolved_precision  # auto means another one on another device
    if config.trainer.resolved_accelerator != "cuda":
        values.pop("trainer.tf32", None)  # of a GPU's arithmetic
    if config.init is not None:
        values["init"] = sha256(Path(config.init).read_bytes())  # wherever the file is
    return {key: value for key, value in values.items() if key not in NOT_IDENTITY}


def group_identity(group: str, chosen: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """{"schedule": "cosine", "schedule.final": 0.1}: the option's name, and its values that are not its defaults."""
    default = options[chosen.name]
    values: dict[str, Any] = {} if (group, chosen.name) == ("averaging", "none") else {group: chosen.name}
    for key in fields(chosen):
        value = getattr(chosen, key.name)
        if value != getattr(default, key.name):
            values[f"{group}.{key.name}"] = as_floats(value)
    return values


def as_floats(value: Any) -> Any:
    """A list with its integers as floats, at any depth: [[20, 1]] and [[20, 1.0]] are one schedule."""
    if isinstance(value, list):
        return [float(x) if isinstance(x, int) and not isinstance(x, bool) else as_floats(x) for x in value]
    return value


def readable_name(config: Any, identity: Mapping[str, Any]) -> str:
    """The chosen options, the values of READABLE, and a digest of the whole identity, of LONG digits."""
    names = {group: getattr(config, group).name for group in CHOICES}
    if config.data.digest is not None:
        names["data"] = f"images_{config.data.digest}"
    parts = [option for group, option in names.items() if option != "none" or group != "averaging"]
    parts += [f"{short}{identity[key]:g}" for key, short in READABLE.items() if key in identity]
    return "-".join([*parts, digest(identity, LONG)])
