"""The training step as one function of device tensors, and the ways to run it: plainly, compiled, captured."""

from resnetlab.engine.choice import ENGINES, choose
from resnetlab.engine.feed import Feed
from resnetlab.engine.graph import Graph
from resnetlab.engine.step import NEVER, Eager, Scaled, Step

__all__ = ["ENGINES", "NEVER", "Eager", "Feed", "Graph", "Scaled", "Step", "choose"]
