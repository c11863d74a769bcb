"""How few epochs, and how much compute, does a small ResNet need to reach a given accuracy?

compose("wd=0.2", "data=digits") -> Config; build(config) -> module, datamodule, trainer; run(config) -> Summary.
"""

from resnetlab.build import build
from resnetlab.config import Config, compose
from resnetlab.errors import ConfigError, DataError, LabError
from resnetlab.run import run
from resnetlab.summary import Summary

__all__ = ["Config", "ConfigError", "DataError", "LabError", "Summary", "build", "compose", "run"]
