"""Schedules given by a list of epochs, or of [epoch, value]: constant, multistep, piecewise constant and linear."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any

from resnetlab.optim.schedules.base import Schedule, SchedulePoint
from resnetlab.optim.schedules.rules import require


@dataclass
class Constant(Schedule):
    """lr throughout."""

    name: str = "constant"

    def lr_factor(self, at: SchedulePoint) -> float:
        return 1.0


@dataclass
class MultiStep(Schedule):
    """lr x gamma at each milestone (epochs), as torch's MultiStepLR. Default: He et al. 2015 at about 200 epochs.

    Its milestones do not say how long the run was meant to be: to stretch it, set length as well.
    """

    name: str = "multistep"
    milestones: list[Any] = field(default_factory=lambda: [100, 150])  # epochs of the changes, rising
    gamma: float = 0.1  # factor on the lr at each change

    def lr_factor(self, at: SchedulePoint) -> float:
        return self.gamma ** bisect_right(self.milestones, at.t)

    def end(self) -> float | None:
        return self.prefix() + self.milestones[-1] if self.length is None else self.length

    def check(self) -> None:
        super().check()
        epochs = self.milestones
        ok = _is_list(epochs) and all(map(_is_amount, epochs))
        require(ok, "milestones", epochs, "a list of epochs, finite numbers of at least 0")
        require(all(a < b for a, b in pairwise(epochs)), "milestones", epochs, "rising")


@dataclass
class _Milestones(Schedule):
    """Base of the piecewise schedules: a list of [epoch, value]; its last epoch is the designed length."""

    milestones: list[Any] = field(default_factory=list)  # [epoch, value] in the order of the epochs
    relative: bool = True  # true: the values are multiples of lr | false: they are learning rates

    def absolute(self) -> bool:
        return not self.relative

    def designed_length(self) -> float | None:
        return self.prefix() + self.milestones[-1][0] if self.length is None else self.length

    def check(self) -> None:
        points = self.milestones
        pairs = _is_list(points) and all(_is_list(p) and len(p) == 2 and all(map(_is_amount, p)) for p in points)
        require(pairs, "milestones", points, "a list of [epoch, value], all finite numbers of at least 0")
        require(all(a[0] <= b[0] for a, b in pairwise(points)), "milestones", points, "in the order of their epochs")
        super().check()


@dataclass
class PiecewiseConstant(_Milestones):
    """Value i holds while t < epoch i, the last one for ever. Default: Atienza's 200 epochs (Keras' cifar10_resnet).

    His code counts epochs from 0 and asks `epoch > 80`: 81 epochs with t = 0 ... 80 have the first value.
    """

    name: str = "piecewise_constant"
    milestones: list[Any] = field(
        default_factory=lambda: [[81, 1.0], [121, 0.1], [161, 0.01], [181, 0.001], [200, 0.0005]]
    )

    def lr_factor(self, at: SchedulePoint) -> float:
        i = bisect_right(self.milestones, at.t, key=itemgetter(0))
        return float(self.milestones[min(i, len(self.milestones) - 1)][1])

    def check(self) -> None:
        super().check()
        rising = all(a[0] < b[0] for a, b in pairwise(self.milestones))
        require(rising, "milestones", self.milestones, "at rising epochs: one value for each")


@dataclass
class PiecewiseLinear(_Milestones):
    """Constant up to the first epoch, linear between the points, constant after the last. Default: the main experiment.

    Two points at one epoch are a jump: from that t on the later value holds. With a first point at epoch 0 the lr moves
    at once.
    """

    name: str = "piecewise_linear"
    milestones: list[Any] = field(default_factory=lambda: [[20, 1.0], [40, 0.1], [50, 0.0125], [60, 0.0025]])

    def lr_factor(self, at: SchedulePoint) -> float:
        i = bisect_right(self.milestones, at.t, key=itemgetter(0))
        if i in (0, len(self.milestones)):
            return float(self.milestones[max(i - 1, 0)][1])
        (t0, v0), (t1, v1) = self.milestones[i - 1], self.milestones[i]
        return float(v0 + (v1 - v0) * (at.t - t0) / (t1 - t0))


def _is_list(x: Any) -> bool:
    return isinstance(x, list | tuple) and len(x) > 0


def _is_amount(x: Any) -> bool:
    """Whether x is a finite number of at least 0. Lists are untyped in OmegaConf: an element may be anything."""
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) and x >= 0
