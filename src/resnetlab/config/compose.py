"""Composition by Hydra, and a configuration as YAML or plain data."""

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from resnetlab.config.schema import GROUPS, Config, conf_dir
from resnetlab.config.validate import check, cycles_momentum, refuse_unknown
from resnetlab.optim.averaging import resolve_momentum
from resnetlab.optim.regularization import resolve


def compose(*overrides: str) -> Config:
    """The configuration of `python train.py OVERRIDES`, checked. Raises ConfigError or one of Hydra's errors."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return parse(hydra.compose("config", overrides=list(overrides)))


def parse(node: DictConfig) -> Config:
    """A composed node as a checked Config, wd, l2, momentum and ema_momentum filled in where they are used."""
    node = node.copy()
    OmegaConf.set_struct(node, False)
    node.pop("hydra", None)
    refuse_unknown(node)
    config = OmegaConf.to_object(node)
    assert isinstance(config, Config)
    check(config)
    config.wd, config.l2 = resolve(config.regularization, config.wd, config.l2)
    config.ema_momentum = resolve_momentum(config.averaging, config.ema_momentum)
    if config.momentum is None and not cycles_momentum(config):
        config.momentum = config.optimizer.default_momentum
    return config


def to_yaml(config: Config) -> str:
    """The whole configuration, as it stands in a run's folder."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def read_yaml(path: Path) -> Config:
    """The inverse of to_yaml. Raises OSError, ConfigError or one of OmegaConf's errors."""
    plain = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(plain, dict)
    return from_plain({str(key): value for key, value in plain.items()})


def to_plain(config: Config) -> dict[str, Any]:
    """The same as plain data, for a checkpoint."""
    plain = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def from_plain(plain: dict[str, Any]) -> Config:
    """The inverse of to_plain."""
    node = OmegaConf.structured(Config)
    for group, options in GROUPS.items():
        option = options[plain.setdefault(group, {"name": "none"})["name"]]  # older runs know no averaging
        node[group] = OmegaConf.structured(option)
    return parse(OmegaConf.merge(node, plain))  # type: ignore[arg-type]
