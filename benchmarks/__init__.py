"""`resnetlab bench`: the lab's step, measured in turn against what others would use, and against the machine."""

from resnetlab.bench.command import bench
from resnetlab.bench.options import NAMES, Options
from resnetlab.bench.start_up import start_up

__all__ = ["NAMES", "Options", "bench", "start_up"]
