"""The identity of a configuration as functions: `config.identity`, `config.name` and `config.folder`."""

from typing import Any

from resnetlab.config.schema import NOT_IDENTITY as NOT_IDENTITY
from resnetlab.config.schema import Config
from resnetlab.runs.layout import RunFolder


def identity(config: Config) -> dict[str, Any]:
    """config.identity"""
    return config.identity


def configuration_name(config: Config) -> str:
    """config.name"""
    return config.name


def run_folder(config: Config) -> RunFolder:
    """config.folder"""
    return config.folder
