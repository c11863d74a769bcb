"""The schedules that are no formula: a Python function of the user's, and torch's reduce-on-plateau."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch

from resnetlab.dotted import error_in_one_line, import_callable
from resnetlab.optim.schedules.base import RunLength, Schedule, SchedulePoint, require


@dataclass
class Lambda(Schedule):
    """lr x f(t), f being the Python function at a dotted path, t in epochs, as torch's LambdaLR.

    f also gets what it names among its parameters: T (epochs that the schedule lasts), step (of the run, from 0) and
    steps (that the schedule lasts), and the values of `parameters`.
    """

    name: str = "lambda"
    function: str = "???"  # dotted path of f, such as math.cos or my_module.factor; must be given
    parameters: Any = None  # keyword arguments of f's own, such as 'schedule.parameters={power: 2}'; null: none

    def lr_factor(self, at: SchedulePoint) -> float:
        """f(t, ...). Raises ConfigError if f fails there, or returns a factor that is negative or not finite."""
        f, asked = _function(self.function)
        known = {"T": at.T, "step": at.k, "steps": at.n}
        must = f"return a number for every t in epochs: at t = {at.t:g}"
        with error_in_one_line("schedule.function", self.function, must):
            value = float(f(at.t, **{key: known[key] for key in asked}, **(self.parameters or {})))
        ok = math.isfinite(value) and value >= 0
        require(ok, "function", self.function, f"finite and not negative at every t: at t = {at.t:g} it is {value:g}")
        return value

    def check(self) -> None:
        super().check()
        given = self.parameters is None or isinstance(self.parameters, Mapping)
        named = given and not {"t", "T", "step", "steps"} & {*(self.parameters or {})}
        must = "{name: value, ...}, or null; t, T, step and steps are given anyway"
        require(named, "parameters", self.parameters, must)
        _function.cache_clear()  # a notebook may have changed it since
        _function(self.function)


@dataclass
class ReduceOnPlateau(Schedule):
    """lr until `monitor` stops improving, then x factor again and again: torch's ReduceLROnPlateau, made by `build`.

    The only schedule with state: `lr` returns the plan before any reduction. Three differences from Keras: its
    min_delta is an absolute improvement (threshold_mode abs, the default here; torch's is rel), it reduces in epoch
    number `patience` without improvement, torch in the next (Keras' patience 5 is 4 here), and its cooldown counts the
    epoch of the reduction (Keras' cooldown 3 is 2 here, its 1 and 0 are 0). After a warmup, as in timm, the metric
    counts from the first epoch that ends at the whole lr.
    """

    stateful: ClassVar[bool] = True

    name: str = "reduce_on_plateau"
    monitor: str = "val/loss"  # column of metrics.csv: val/loss, val/ce, val/acc, or the same with train
    mode: str = "auto"  # what is better: min | max | auto: max for an accuracy, as in Keras
    factor: float = 0.31622776601683794  # on the lr at each reduction, in (0, 1); sqrt(0.1), Atienza's
    patience: int = 5  # epochs without improvement that are tolerated
    cooldown: int = 0  # epochs after a reduction that do not count
    threshold: float = 1e-4  # least improvement that counts
    threshold_mode: str = "abs"  # abs: threshold is a difference | rel: a fraction of the best so far
    min_lr: float = 5e-4  # lower bound, a fraction of lr

    def lr_factor(self, at: SchedulePoint) -> float:
        return 1.0

    def follows_plan(self, k: int, span: RunLength) -> bool:
        """Whether step k has the planned lr, up to the first step after the warmup; then it has the optimizer's."""
        return self.time(k - 1, span) < self.warmup

    def build(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
        """torch's scheduler for an optimizer that still has its first lr; step it with `monitor` after each epoch."""
        mode: Any = ("max" if "acc" in self.monitor else "min") if self.mode == "auto" else self.mode
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode,
            **{key: getattr(self, key) for key in ("factor", "patience", "threshold", "threshold_mode", "cooldown")},
            min_lr=[self.min_lr * float(group["lr"]) for group in optimizer.param_groups],
            eps=0.0,  # torch's 1e-8 is absolute and would ignore the last reductions of a small lr
        )

    def check(self) -> None:
        super().check()
        require(self.interval == "epoch", "interval", self.interval, "epoch: the metric is known once an epoch")
        require(not self.stretch, "stretch", self.stretch, "false: this schedule follows the training, not the time")


@lru_cache
def _function(path: str) -> tuple[Callable[..., Any], frozenset[str]]:
    """The callable at a dotted path, and which of T, step and steps it names. Raises ConfigError if there is none."""
    f, names = import_callable("schedule.function", path, "function of t in epochs")
    return f, names & {"T", "step", "steps"}
