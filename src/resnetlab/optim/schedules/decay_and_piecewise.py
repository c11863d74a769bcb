"""Schedules along one formula, such as steps or a cosine, or through a list of epochs or of [epoch, value]."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any

from resnetlab.optim.schedules.base import RunLength, Schedule, SchedulePoint, require


@dataclass
class Step(Schedule):
    """lr x gamma^floor(t / step_size), as torch's StepLR."""

    name: str = "step"
    step_size: float = 30.0  # epochs between two changes
    gamma: float = 0.1  # factor on the lr at each change

    def lr_factor(self, at: SchedulePoint) -> float:
        return self.gamma ** floor_with_tolerance(at.t / self.step_size)


@dataclass
class Exponential(Schedule):
    """lr x gamma^t, gamma per epoch, as torch's ExponentialLR. gamma above 1 rises."""

    name: str = "exponential"
    gamma: float = 0.95  # factor on the lr per epoch

    def lr_factor(self, at: SchedulePoint) -> float:
        return float(self.gamma**at.t)


@dataclass
class Polynomial(Schedule):
    """From lr to final x lr along (1 - t/T)^power, as torch's PolynomialLR; constant after T = length or the run."""

    name: str = "polynomial"
    power: float = 1.0  # of (1 - t/T); 1: linear
    final: float = 0.0  # at the end, a fraction of lr

    def lr_factor(self, at: SchedulePoint) -> float:
        return float(self.final + (1 - self.final) * (1 - min(at.t / at.T, 1.0)) ** self.power)


@dataclass
class Cosine(Schedule):
    """lr for `constant` epochs, then down to final x lr along a cosine, there after T = length or the run's epochs.

    half: torch's CosineAnnealingLR (which rises again after T; Loshchilov & Hutter 2017, arXiv 1608.03983). quarter:
    cos(pi/2 t/T) (Moenchmeyer's series, post V).
    """

    name: str = "cosine"
    shape: str = "half"  # half: a half period, flat at both ends | quarter: a quarter period, steep at the end
    constant: float = 0.0  # epochs at lr before the fall
    final: float = 0.0  # at the end, a fraction of lr

    def lr_factor(self, at: SchedulePoint) -> float:
        x = min(max((at.t - self.constant) / (at.T - self.constant), 0.0), 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * x)) if self.shape == "half" else math.cos(math.pi / 2 * x)
        return self.final + (1 - self.final) * fall

    def check_epochs(self, epochs: float) -> None:
        super().check_epochs(epochs)
        require(self.constant < epochs, "constant", self.constant, f"less than the schedule's {epochs:g} epochs")


@dataclass
class CosineRestarts(Schedule):
    """Half cosines from lr to final x lr, the first over `first` epochs, each `mult` times as long as the one before.

    As torch's CosineAnnealingWarmRestarts (SGDR: Loshchilov & Hutter 2017, arXiv 1608.03983). The defaults fill 20
    and 60 epochs exactly. cycle_decay is timm's, and with final 0 Keras' m_mul.
    """

    name: str = "cosine_restarts"
    first: float = 20.0  # epochs of the first cycle, the paper's T_0
    mult: float = 2.0  # length of a cycle over that of the one before, the paper's T_mult; at least 1
    final: float = 0.0  # at the end of each cycle, a fraction of lr
    cycle_decay: float = 1.0  # factor on the peak, lr, with each cycle; in (0, 1]

    def lr_factor(self, at: SchedulePoint) -> float:
        x = at.t / self.first
        if self.mult == 1:
            n = floor_with_tolerance(x)
            x -= n
        else:  # n cycles before this one, of mult^0 + ... + mult^(n-1) times the first
            n = floor_with_tolerance(math.log1p(x * (self.mult - 1)) / math.log(self.mult))
            x = (x - (self.mult**n - 1) / (self.mult - 1)) / self.mult**n
        peak = max(self.cycle_decay**n, self.final)
        return self.final + (peak - self.final) * 0.5 * (1 + math.cos(math.pi * x))

    def check(self) -> None:
        super().check()
        require(self.mult == 1 or self.mult >= 1.001, "mult", self.mult, "at least 1: 1 itself, or 1.001 and more")

    def check_span(self, span: RunLength) -> None:
        super().check_span(span)
        self.check_period("first", self.first, self.first, span)


@dataclass
class InverseSqrt(Schedule):
    """lr / sqrt(1 + t / timescale), as Hugging Face's and fairseq's inverse_sqrt (Vaswani et al. 2017, 1706.03762).

    Theirs is warmup_from=0, warmup_prefix=true and a timescale of the warmup's epochs.
    """

    name: str = "inverse_sqrt"
    timescale: float = 1.0  # epochs after which lr has fallen by sqrt(2)

    def lr_factor(self, at: SchedulePoint) -> float:
        return 1 / math.sqrt(1 + at.t / self.timescale)


@dataclass
class WarmupStableDecay(Schedule):
    """lr until `decay` epochs before the end, then down to final x lr (Hu et al. 2024, arXiv 2404.06395).

    As Hugging Face's warmup_stable_decay, whose warmup is warmup_from=0 here; the end is T = length or the run's.
    """

    name: str = "wsd"
    decay: float = 0.2  # epochs of the fall: a number, or a fraction below 1 of the schedule's
    shape: str = "linear"  # linear | cosine: a half period | sqrt: 1 - sqrt(x), steep at the beginning
    final: float = 0.0  # at the end, a fraction of lr

    def lr_factor(self, at: SchedulePoint) -> float:
        fall = self.decay if self.decay >= 1 else self.decay * at.T
        x = min(max((at.t - at.T + fall) / fall, 0.0), 1.0)
        y = {"linear": 1 - x, "cosine": 0.5 * (1 + math.cos(math.pi * x)), "sqrt": 1 - math.sqrt(x)}[self.shape]
        return self.final + (1 - self.final) * y

    def check_epochs(self, epochs: float) -> None:
        super().check_epochs(epochs)
        fits = self.decay < 1 or self.decay <= epochs
        require(fits, "decay", self.decay, f"at most the schedule's {epochs:g} epochs")


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


def floor_with_tolerance(x: float) -> int:
    """x rounded down, but up if only rounding errors are missing: 0.3 / 0.1 is 2.9999999999999996, and means 3."""
    return math.floor(x + 1e-9)


def _is_list(x: Any) -> bool:
    return isinstance(x, list | tuple) and len(x) > 0


def _is_amount(x: Any) -> bool:
    """Whether x is a finite number of at least 0. Lists are untyped in OmegaConf: an element may be anything."""
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) and x >= 0
