"""The engines without Lightning, on any device: one run's step, its optimizer and scaler, and what runs them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from resnetlab import Config
from resnetlab.data import ImageData
from resnetlab.training.build import build_module
from resnetlab.training.engine.cuda_graph import CudaGraphRunner
from resnetlab.training.engine.fewer_launches import FewerLaunches
from resnetlab.training.engine.step import SAM, DeviceBatches, EagerRunner, ScaledOptimizer, TrainStep
from resnetlab.training.metrics import EpochMetrics

# 60 images in 8 steps an epoch, the last of 4 images: 104 steps
HUNDRED = ("batch_size=8", "epochs=13", "lr=1e-3")
# lr and momentum another at every step, the penalty in the loss, the decay in the optimizer, and an average
CYCLING = ("schedule=one_cycle", "regularization=l2_weight_decay", "averaging=ema", "ema_momentum=0.9")


class Rig:
    """One run on `device`.

    engine: eager | compile | graph | timed | fewer. The last two are what a graph records, run plainly: on a GPU both
    with FewerLaunches as in a run, on a CPU the latter alone; "graph compiled" and the like are compiled before. scale:
    the gradient scaler's initial factor; None for no scaler. half: in float16, as 16-mixed, or in another type.
    """

    def __init__(
        self, config: Config, device: str, engine: str, scale: float | None = None, half: bool | torch.dtype = False
    ) -> None:
        self.config, self.device, self.half = config, torch.device(device), half
        self.data = ImageData(config.data, config.batch_size, config.shift, config.seed)
        self.data.setup()
        self.lab = build_module(config, self.data).to(self.device)
        scaler = None if scale is None else torch.amp.GradScaler(device, init_scale=scale)
        self.scaled = ScaledOptimizer(self.lab.build_optimizer(), scaler)
        batches, rho = DeviceBatches(self.data, self.device), config.optimizer.sam
        self.step = TrainStep(batches, self.lab.batch_loss, self.scaled.backward, self.scaled)
        self.step.sam = SAM(self.lab.model, rho) if rho else None
        self.choose(engine)
        self.lab.val_metrics = EpochMetrics(self.device, top5=True)
        self.k = 0

    def choose(self, engine: str) -> None:
        engine, compiled = engine.removesuffix(" compiled"), engine.endswith(" compiled")
        self.engine: EagerRunner | CudaGraphRunner
        if engine in ("graph", "timed", "fewer"):
            self.engine = graph = CudaGraphRunner(self.step, self.lab.model, self.scaled, self.lab.lr_momentum_table)
            if self.device.type == "cuda" or engine == "fewer":
                graph.fewer_launches = FewerLaunches(self.lab.model)
            self.run: Callable[[int, float, float], None] = (
                graph if engine == "graph" else lambda images, lr, momentum: graph.step_at_global_step(images)
            )
        else:
            self.run = self.engine = EagerRunner(self.step, self.scaled.optimizer)
        if engine == "compile" or compiled:
            self.step.compile()

    def train(self, steps: int) -> list[float]:
        """The next steps' losses."""
        return [self.next() for _ in range(steps)]

    def next(self) -> float:
        """One step, and the loss of it."""
        self.advance()
        return self.step.metrics.compute()["loss"]

    def advance(self) -> None:
        """One step, with nothing read back."""
        epoch, index = divmod(self.k, self.data.steps_per_epoch)
        if index == 0:
            torch.manual_seed(epoch)
            self.step.start_epoch(epoch + 1, self.k)
        with self.autocast():
            self.run(self.data.batch_images(index), *map(float, self.lab.lr_momentum_table[self.k]))
        if self.lab.average is not None:
            self.config.averaging.update(
                self.lab.average, self.lab.model, self.k, self.lab.span, self.config.ema_momentum
            )
        self.k += 1

    def autocast(self) -> AbstractContextManager[Any]:
        """As Lightning's: without a cache, which would keep the weights of the chunk's first step."""
        kind = self.half if isinstance(self.half, torch.dtype) else torch.float16
        return torch.autocast(self.device.type, kind, enabled=bool(self.half), cache_enabled=False)

    def state(self) -> dict[str, Tensor]:
        """Copies of every tensor of the run, but for lr and momentum, which each step sets: {name: value}."""
        found = dict(self.lab.state_dict())
        for number, values in enumerate(self.scaled.optimizer.state.values()):
            found |= {f"optimizer/{number}/{key}": torch.as_tensor(value) for key, value in values.items()}
        if self.scaled.scaler is not None:
            values = self.scaled.scaler.state_dict()
            found |= {f"scaler/{key}": torch.tensor(values[key]) for key in ("scale", "_growth_tracker")}
        found |= {"position": self.step.batches.position, "global_step": self.step.global_step}
        found |= {"first_nonfinite_step": self.step.first_nonfinite_step}
        return {key: value.detach().cpu().clone() for key, value in (found | {"sums": self.step.metrics.sums}).items()}

    def resume(self, other: "Rig", engine: str) -> None:
        """Takes up what a checkpoint holds of another rig at the end of an epoch, before the engine is made."""
        assert other.k % self.data.steps_per_epoch == 0
        self.lab.load_state_dict(other.lab.state_dict())
        self.scaled.optimizer.load_state_dict(deepcopy(other.scaled.optimizer.state_dict()))
        if self.scaled.scaler is not None:
            self.scaled.scaler.load_state_dict(other.scaled.scaler.state_dict())
        self.k = other.k
        self.choose(engine)


def resumed(
    config: Config, device: str, engines: tuple[str, str], steps: tuple[int, int], **keys: Any
) -> tuple[list[float], dict[str, Tensor]]:
    """(losses, state at the end) of a run whose second part goes on in another rig from the checkpoint of the first."""
    first = Rig(config, device, engines[0], **keys)
    losses = first.train(steps[0])
    second = Rig(config, device, "eager", **keys)
    second.resume(first, engines[1])
    return losses + second.train(steps[1]), second.state()


def read_values(rig: Rig, steps: int) -> npt.NDArray[np.float64]:
    """(steps, 2): lr and momentum that the optimizer had in each of the next steps."""
    found = []
    for _ in range(steps):
        rig.advance()
        group = rig.scaled.optimizer.param_groups[0]
        found.append([float(group["lr"]), float(group["betas"][0] if "betas" in group else group["momentum"])])
    return np.array(found)


def assert_same_state(found: dict[str, Tensor], wanted: dict[str, Tensor], rtol: float, atol: float) -> None:
    """Weights, averages, running statistics, optimizer and scaler."""
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=rtol, atol=atol, msg=lambda text, key=key: f"{key}: {text}")
