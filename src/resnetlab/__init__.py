"""How few epochs, and how much compute, does a small ResNet need to reach a given accuracy?

compose("wd=0.2", "data=digits") -> Config; build(config) -> module, datamodule, trainer; run(config) -> Summary.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetlab.config.compose import compose as compose
    from resnetlab.config.schema import Config as Config
    from resnetlab.errors import ConfigError as ConfigError
    from resnetlab.errors import DataError as DataError
    from resnetlab.errors import LabError as LabError
    from resnetlab.runs.load_runs import load_runs as load_runs
    from resnetlab.runs.summary import Summary as Summary
    from resnetlab.training.build import build as build
    from resnetlab.training.inference.predict import load_model as load_model
    from resnetlab.training.run import run as run

MODULES = {"compose": "config.compose", "Config": "config.schema", "build": "training.build", "run": "training.run"}
MODULES |= {"Summary": "runs.summary", "load_runs": "runs.load_runs", "load_model": "training.inference.predict"}
MODULES |= dict.fromkeys(("ConfigError", "DataError", "LabError"), "errors")
__all__ = sorted(MODULES)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: torch takes seconds and 700 MiB, which the report does without."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"resnetlab.{MODULES[name]}"), name)
