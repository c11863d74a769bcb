"""How few epochs, and how much compute, does a small ResNet need to reach a given accuracy?

compose("wd=0.2", "data=digits") -> Config; build(config) -> module, datamodule, trainer; run(config) -> Summary.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetlab.config.compose import compose
    from resnetlab.config.schema import Config
    from resnetlab.errors import ConfigError, DataError, LabError
    from resnetlab.runs.load_runs import load_runs
    from resnetlab.runs.summary import Summary
    from resnetlab.training.build import build
    from resnetlab.training.inference.predict import load_model
    from resnetlab.training.run import run

__all__ = [
    "Config",
    "ConfigError",
    "DataError",
    "LabError",
    "Summary",
    "build",
    "compose",
    "load_model",
    "load_runs",
    "run",
]

MODULES = {
    "build": "training.build",
    "run": "training.run",
    "load_model": "training.inference.predict",
    "load_runs": "runs.load_runs",
    "Summary": "runs.summary",
    "Config": "config.schema",
    "compose": "config.compose",
    **dict.fromkeys(("ConfigError", "DataError", "LabError"), "errors"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: torch takes seconds and 700 MiB, which the report does without."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"resnetlab.{MODULES[name]}"), name)
