"""The step captured as a CUDA graph, and replayed: one launch for a step's thousand kernels.

A graph repeats what was recorded, at the addresses that were recorded. So all that changes from step to step is a
tensor that the step itself reads: the position in the plan, lr and momentum (a row of the run's table). It is recorded
after a checkpoint was restored, never before, because restoring puts other tensors into the optimizer.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from resnetlab.errors import LabError, first_line
from resnetlab.optim.averaging import batch_norms
from resnetlab.optim.optimizers.base import make_capturable, set_lr_momentum
from resnetlab.training.engine.fewer_launches import FewerLaunches
from resnetlab.training.engine.step import ScaledOptimizer, TrainStep

WARM_UP = 3  # steps before the recording: kernels are chosen and workspaces allocated there


class CaptureFailed(LabError):
    """A step cannot be captured; the run's state is as it was before it was tried."""


class CudaGraphRunner:
    """Runs the step as a graph, one for each size of a batch (the last of an epoch is smaller).

    step: backward and optimizer are `scaled`. lr_momentum_table: (steps, 2), of the whole run. Raises CaptureFailed.
    """

    def __init__(
        self, step: TrainStep, module: nn.Module, scaled: ScaledOptimizer, lr_momentum_table: npt.NDArray[np.float64]
    ) -> None:
        self.step, self.module = step, module
        self.fewer_launches: FewerLaunches | None = None  # what is recorded instead, of equal mathematics
        self.optimizer, self.scaler = scaled.optimizer, scaled.scaler
        device = step.global_step.device
        self.lr_momentum_table = torch.from_numpy(lr_momentum_table).to(device, torch.float32)
        set_lr_momentum(self.optimizer, *map(float, lr_momentum_table[0]))  # a momentum that stays is the table's
        make_capturable(self.optimizer, device, cycles_momentum=len(np.unique(lr_momentum_table[:, 1])) > 1)
        if self.scaler is not None:
            self.scaler.scale(torch.zeros((), device=device))  # makes the scaler's tensors, which a recording may not
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, images: int, lr: float, momentum: float) -> None:
        """One step; lr and momentum are read from the table on the device."""
        if images not in self.graphs:
            self.graphs[images] = self.record(images)
        self.graphs[images].replay()

    def step_at_global_step(self, images: int) -> None:
        """The step with its own lr and momentum, read from the table on the device."""
        lr, momentum = self.lr_momentum_table.index_select(0, self.step.global_step.view(1))[0]
        set_lr_momentum(self.optimizer, lr, momentum)
        with nullcontext() if self.fewer_launches is None else self.fewer_launches.applied(self.step):
            self.step(images)

    def record(self, images: int) -> torch.cuda.CUDAGraph:
        """The graph of a step on a batch of `images`; the run's state is afterwards as it was."""
        restore = snapshot(self.state())
        scale = None if self.scaler is None else self.scaler.state_dict()
        generator = torch.cuda.default_generators[self.step.global_step.device.index]
        random = generator.get_state()
        with another_stream():
            for _ in range(WARM_UP):
                self.step_at_global_step(images)
                restore()
        generator.set_state(random)
        if self.scaler is not None:
            self.scaler.load_state_dict(scale)
        self.optimizer.zero_grad(set_to_none=True)  # the recording makes gradients of its own, in the graph's memory
        pool = next(iter(self.graphs.values())).pool() if self.graphs else None
        try:
            return recorded(partial(self.step_at_global_step, images), generator, pool)
        except CaptureFailed:
            if self.scaler is not None:
                self.scaler._per_optimizer_states.clear()
            raise

    def state(self) -> Iterable[Tensor]:
        """Every tensor that a step changes, but the scaler's, and lr, momentum and gradients, which it makes anew."""
        yield from self.module.state_dict(keep_vars=True).values()
        for values in self.optimizer.state.values():
            yield from (value for value in values.values() if isinstance(value, Tensor))
        step = self.step
        yield from (step.batches.position, step.global_step, step.first_nonfinite_step, step.metrics.sums)


class StatisticsRunner:
    """Re-estimates a network's running statistics, a batch a call; each forward pass is the replay of one CUDA graph.

    The network is in evaluation mode but for its batch norms, whose momentum is 1 / number. A forward pass that cannot
    be recorded is run as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network, norms = network, batch_norms(network)
        self.statistics: list[Any] = [s for norm in norms for s in (norm.running_mean, norm.running_var)]
        self.means = [torch.zeros_like(s) for s in self.statistics]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.recordable = True

    def __call__(self, x: Tensor, number: int) -> None:
        """The statistics are the plain mean over `number` batches afterwards, of which x (N, C, H, W) is the last."""
        if self.graph is None and self.recordable:
            self.images = x.clone()
            try:
                self.graph = self.record()
            except CaptureFailed:
                self.recordable = False
        if self.graph is None:
            self.network(x)
            return
        self.images.copy_(x)
        self.graph.replay()
        if number == 1:
            torch._foreach_zero_(self.means)
        torch._foreach_lerp_(self.means, self.statistics, 1 / number)
        torch._foreach_copy_(self.statistics, self.means)

    def record(self) -> torch.cuda.CUDAGraph:
        """The graph of a forward pass of `images`, with momentum 1; the network's buffers are as they were."""
        restore = snapshot(self.network.buffers())
        with another_stream():
            self.network(self.images)
        restore()
        return recorded(partial(self.network, self.images), torch.cuda.default_generators[self.images.device.index])


def recorded(call: Callable[[], object], generator: torch.Generator, pool: Any = None) -> torch.cuda.CUDAGraph:
    """The graph of a call. generator: the device's. Raises CaptureFailed, the generator as it was."""
    state = generator.clone_state()
    gc.collect()  # an earlier run's graph, which lies in cycles, may not be collected while this one is made
    graph = torch.cuda.CUDAGraph()
    torch._C._cuda_clearCublasWorkspaces()  # torch 2.11 keeps one for all: this one gets its own
    try:
        with torch.cuda.graph(graph, pool=pool):
            call()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # of the end of the recording; what has spoilt it is its context
        generator.graphsafe_set_state(state)  # torch 2.11: or it would be recording for good
        raise CaptureFailed(f"this step cannot be captured ({first_line(error.__context__ or error)})") from error
    return graph


@contextmanager
def another_stream() -> Iterator[None]:
    """Runs what is inside on a stream of its own, after all work before it and before all work behind it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def snapshot(tensors: Iterable[Tensor]) -> Callable[[], None]:
    """A function that puts the tensors' present values back in place."""
    held = list(tensors)
    values = [tensor.detach().clone() for tensor in held]

    @torch.no_grad()
    def restore() -> None:
        for tensor, value in zip(held, values, strict=True):
            tensor.copy_(value)

    return restore
