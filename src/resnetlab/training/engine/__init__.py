"""The training step as one function of device tensors, and the ways to run it: plainly, compiled, captured."""

from resnetlab.config.trainer import ENGINES
from resnetlab.training.engine.batches import DeviceBatches
from resnetlab.training.engine.cuda_graph import CudaGraphRunner
from resnetlab.training.engine.select import select_engine
from resnetlab.training.engine.step import NO_STEP, EagerRunner, ScaledOptimizer, TrainStep

__all__ = [
    "ENGINES",
    "NO_STEP",
    "CudaGraphRunner",
    "DeviceBatches",
    "EagerRunner",
    "ScaledOptimizer",
    "TrainStep",
    "select_engine",
]
