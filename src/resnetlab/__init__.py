"""How few epochs, and how much compute, does a small ResNet need to reach a given accuracy?

compose("wd=0.2", "data=digits") -> Config; build(config) -> module, datamodule, trainer; run(config) -> Summary.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetlab.build import build
    from resnetlab.config import Config, compose
    from resnetlab.errors import ConfigError, DataError, LabError
    from resnetlab.run import run
    from resnetlab.summary import Summary

__all__ = ["Config", "ConfigError", "DataError", "LabError", "Summary", "build", "compose", "run"]

HOMES = {
    "build": "build",
    "run": "run",
    "Summary": "summary",
    **dict.fromkeys(("Config", "compose"), "config"),
    **dict.fromkeys(("ConfigError", "DataError", "LabError"), "errors"),
}


class Lazy(ModuleType):
    """Imports what is asked for when it is asked for: torch takes seconds and 700 MiB, which the report does without.

    `build` and `run` are modules as well. An import of one sets the package's attribute to it; here the attribute
    stays the function.
    """

    def __getattribute__(self, name: str) -> Any:
        homes = ModuleType.__getattribute__(self, "HOMES")
        if name in homes:
            return getattr(import_module(f"resnetlab.{homes[name]}"), name)
        return ModuleType.__getattribute__(self, name)


sys.modules[__name__].__class__ = Lazy
