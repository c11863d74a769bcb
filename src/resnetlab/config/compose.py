"""Composition by Hydra, and a configuration as YAML or plain data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf

from resnetlab.config.messages import unknown_key_message
from resnetlab.config.option_files import conf_dir
from resnetlab.config.schema import GROUPS, Config
from resnetlab.config.validate import check, check_uses, cycles_momentum
from resnetlab.data.own_images import OWN
from resnetlab.errors import ConfigError
from resnetlab.optim.averaging import resolve_momentum
from resnetlab.optim.regularization import resolve

store = ConfigStore.instance().store
store(name="lab_schema", node=Config)
for group, options in GROUPS.items():
    for name, option in options.items():
        store(group=f"schema/{group}", name=name, node=option)  # schema/: not shown among the group's options

BOOLEANS = {
    f"{prefix}{key.name}"
    for prefix, options in (("", [Config]), *((f"{group}.", [*GROUPS[group].values()]) for group in GROUPS))
    for option in options
    for key in fields(option)
    if key.type in (bool, bool | None)
}


@contextmanager
def hydra_context() -> Iterator[None]:
    """Inside, hydra.compose reads the lab's conf/; what an application of Hydra's around it has set is put back."""
    instances: dict[Any, Any] = Singleton._instances
    outer = {kind: instances.pop(kind) for kind in (GlobalHydra, VersionBase) if kind in instances}
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield
    finally:
        instances.update(outer)


def compose(*overrides: str) -> Config:
    """The configuration of `python train.py OVERRIDES`, checked. Raises ConfigError or one of Hydra's errors."""
    with hydra_context():
        return parse(compose_node(overrides))


def compose_node(overrides: Sequence[str]) -> DictConfig:
    """What Hydra makes of the overrides, its own part with it. Within hydra_context."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        value, key = override.value(), override.get_key_element()
        if key in BOOLEANS and isinstance(value, int | float) and value not in (0, 1):  # true, says OmegaConf 2.3
            raise ConfigError(f"{key} (={value}) must be true or false")
    return hydra.compose("config", overrides=list(overrides), return_hydra_config=True)


def parse(node: DictConfig) -> Config:
    """A composed node as a checked Config: wd, l2, momentum, ema_momentum and data.digest filled in where used."""
    node = node.copy()
    OmegaConf.set_struct(node, False)
    node.pop("hydra", None)
    check_keys(node)
    config: Any = OmegaConf.to_object(node)
    check(config)
    check_uses(config)
    wd, l2 = resolve(config.regularization, config.wd, config.l2)
    momentum = config.momentum
    if momentum is None and not cycles_momentum(config):
        momentum = config.optimizer.default_momentum
    ema_momentum = resolve_momentum(config.averaging, config.ema_momentum)
    if config.data.name in OWN:
        config.data.digest = config.data.digest or config.data.index.digest
    return replace(config, wd=wd, l2=l2, momentum=momentum, ema_momentum=ema_momentum)


def check_keys(node: DictConfig, path: str = "") -> None:
    """Raises ConfigError for a key that `+key=value` put past the schema. path: of the node, "" or "schedule."."""
    schema = OmegaConf.get_type(node)
    if schema is not None and is_dataclass(schema):
        valid = [field.name for field in fields(schema)]
        if extra := sorted(str(key) for key in node if key not in valid):
            raise ConfigError(unknown_key_message(extra[0], path, valid))
    for key in node:
        if not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            check_keys(node[key], f"{path}{key!s}.")


def to_yaml(config: Config) -> str:
    """The whole configuration, as it stands in a run's folder."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_plain(config: Config) -> dict[str, Any]:
    """The same as plain data, for a checkpoint."""
    return dict(OmegaConf.to_container(OmegaConf.structured(config)))  # type: ignore[arg-type]


def from_plain(plain: dict[str, Any]) -> Config:
    """The inverse of to_plain; nothing that it names is imported or called, as schedule.function is."""
    node = OmegaConf.structured(Config)
    for group, options in GROUPS.items():
        option = options[plain.setdefault(group, {"name": "none"})["name"]]  # older runs know no averaging
        node[group] = OmegaConf.structured(option)
    config: Any = OmegaConf.to_object(OmegaConf.merge(node, plain))
    return config
